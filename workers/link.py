"""The worker's end of the link: a WebSocket server for one gateway at a time.

Decides who may connect and what happens to frames that are wrong. Knows frames and close codes,
nothing about requests: those are `workers.service`.

Close codes: 1001 the worker stops, 1007 a frame that is no message, 1008 wrong token or order,
1013 another gateway is connected, 1002 another protocol version.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import urllib.parse
from collections.abc import AsyncIterator
from typing import assert_never

import msgspec
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State

from workers.messages import (
    MAX_TO_WORKER_BYTES,
    PROTOCOL,
    Cancel,
    HandOver,
    Hello,
    MeetPeer,
    SetPace,
    Submit,
    Welcome,
    decode_to_worker,
    encode,
)
from workers.outbox import Outbox
from workers.service import Service

_log = structlog.get_logger()

_HELLO_TIMEOUT_S = 10.0
_CLOSE_S = 2.0  # for the gateway to answer a close frame


class Link:
    """Serves the gateway that is connected."""

    def __init__(
        self, service: Service, welcome: Welcome, token: str | None, heartbeat_s: float
    ) -> None:
        self._service = service
        self._heartbeat_s = heartbeat_s
        self._welcome = welcome
        self._token = token
        self._current: ServerConnection | None = None  # the gateway's, from its hello on
        self._serving = asyncio.Lock()  # held by one connection until all its requests are gone

    async def handle(self, connection: ServerConnection) -> None:
        """One connection, from its first message to its end."""
        if not await self._greeted(connection):
            return
        self._current = connection  # at once: of two that come together, the second is refused
        async with self._serving:
            _log.info("gateway_connected")
            try:
                await self._serve(connection)
            finally:
                self._service.disconnect()
                _log.info(
                    "gateway_disconnected",
                    code=connection.close_code,
                    reason=connection.close_reason,
                )

    async def _greeted(self, connection: ServerConnection) -> bool:
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                message = decode_to_worker(await connection.recv())
        except (TimeoutError, ConnectionClosed):
            await _refuse(connection, CloseCode.POLICY_VIOLATION, "no hello")
            return False
        except msgspec.MsgspecError as error:
            await _refuse(connection, CloseCode.INVALID_DATA, str(error))
            return False
        if not isinstance(message, Hello):
            await _refuse(connection, CloseCode.POLICY_VIOLATION, "hello must come first")
        elif message.protocol != PROTOCOL:
            reason = f"protocol {PROTOCOL} is spoken here, not {message.protocol}"
            await _refuse(connection, CloseCode.PROTOCOL_ERROR, reason)
        elif self._token is not None and not hmac.compare_digest(
            self._token.encode(), (message.token or "").encode()
        ):
            await _refuse(connection, CloseCode.POLICY_VIOLATION, "wrong token")
        elif self._current is not None and self._current.state is State.OPEN:
            await _refuse(connection, CloseCode.TRY_AGAIN_LATER, "another gateway is connected")
        else:
            return True
        return False

    async def _serve(self, connection: ServerConnection) -> None:
        outbox, filled = Outbox(), asyncio.Event()
        self._service.connect(outbox, filled.set)
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(self._send(connection, outbox, filled))
            heart = tasks.create_task(self._beat())
            await self._receive(connection)
            sender.cancel()
            heart.cancel()

    async def _receive(self, connection: ServerConnection) -> None:
        try:
            async for frame in connection:
                try:
                    message = decode_to_worker(frame)
                except msgspec.MsgspecError as error:
                    await _refuse(connection, CloseCode.INVALID_DATA, str(error))
                    return
                if isinstance(message, Hello):
                    await _refuse(connection, CloseCode.POLICY_VIOLATION, "hello came twice")
                    return
                self._obey(message)
        except ConnectionClosed:
            return  # without a close frame: the gateway died

    def _obey(self, message: Submit | Cancel | SetPace | HandOver | MeetPeer) -> None:
        match message:
            case Submit():
                self._service.submit(message)
            case Cancel():
                self._service.cancel(message.request_id)
            case SetPace():
                self._service.set_pace(message.request_id, message.pace)
            case HandOver():
                self._service.hand_over(message.request_id)
            case MeetPeer():
                self._service.meet_peer(message.peer)
            case _:
                assert_never(message)

    async def _send(
        self, connection: ServerConnection, outbox: Outbox, filled: asyncio.Event
    ) -> None:
        try:
            await connection.send(encode(self._welcome))
            while True:
                await filled.wait()
                filled.clear()
                while (message := outbox.take()) is not None:
                    # Waits while the gateway does not read; what comes meanwhile is merged.
                    await connection.send(encode(message))
                    self._service.drained()
        except ConnectionClosed:
            return  # the receiver sees it too, and ends the connection

    async def _beat(self) -> None:
        while True:
            self._service.heartbeat()
            await asyncio.sleep(self._heartbeat_s)


async def _refuse(connection: ServerConnection, code: CloseCode, reason: str) -> None:
    _log.warning("connection_refused", code=int(code), reason=reason)
    # A close frame holds 123 bytes of reason.
    await connection.close(code, reason.encode()[:120].decode(errors="ignore"))


@contextlib.asynccontextmanager
async def listening(address: str, link: Link) -> AsyncIterator[Server]:
    """Listen on ``unix:/path`` or ``tcp://host:port``; the socket's path is removed at the end.

    :raises ValueError: if the address is neither.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "unix" and rest:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(rest)
        mask = os.umask(0o177)  # other users have no business on this link
        try:
            server = await unix_serve(
                link.handle,
                rest,
                compression=None,
                max_size=MAX_TO_WORKER_BYTES,
                close_timeout=_CLOSE_S,
            )
        finally:
            os.umask(mask)
        try:
            async with server:
                yield server
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(rest)
        return
    parts = urllib.parse.urlsplit(address)
    if scheme != "tcp" or not parts.hostname or parts.port is None:
        raise ValueError(f"listen must be unix:/path or tcp://host:port, not {address!r}")
    async with serve(
        link.handle,
        parts.hostname,
        parts.port,
        compression=None,
        max_size=MAX_TO_WORKER_BYTES,
        close_timeout=_CLOSE_S,
    ) as server:
        yield server
