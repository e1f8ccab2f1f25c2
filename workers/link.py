"""The worker's end of the link: a WebSocket server for gateways.

Decides which gateway may connect, and how to answer wrong frames. Knows frames and close codes, but
not the life of a request, which belongs to `workers.requests.service`.

Close codes:

    1001    the worker stops
    1002    the gateway speaks another version of the protocol
    1007    a frame cannot be decoded
    1008    the token is wrong, or ``hello`` is missing, came twice or names no gateway
    1012    the gateway has connected again
    1013    too many gateways are connected, or this one leaves too much unread
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import socket
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TypeAlias, assert_never

import msgspec
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from workers.errors import WorkerError
from workers.messages import (
    MAX_TO_WORKER_BYTES,
    PROTOCOL,
    Cancel,
    Count,
    Detokenize,
    Finish,
    HandOver,
    Hello,
    MeetPeer,
    PeerMet,
    PolicySet,
    Rejected,
    SetPace,
    SetPolicy,
    Step,
    Submit,
    TellLoad,
    ToGateway,
    TokenRun,
    Welcome,
    decode_to_worker,
    encode,
)
from workers.requests.gateways import MOST_GATEWAYS, Gateway
from workers.requests.questions import not_answered
from workers.requests.service import Service
from workers.settings import MAX_SOCKET_PATH_BYTES

_log = structlog.get_logger()

_HELLO_TIMEOUT_S = 10.0
_LONGEST_NAME = 128  # characters, of a gateway
_CLOSE_S = 1.0  # that a gateway has to answer a close frame

_Order: TypeAlias = (
    Submit | Count | Detokenize | Cancel | SetPace | HandOver | MeetPeer | SetPolicy | TellLoad
)


@dataclass(frozen=True, slots=True)
class _Served:
    connection: ServerConnection
    gateway: Gateway


class Link:
    """Serves all gateways that connect."""

    def __init__(
        self, service: Service, welcome: Welcome, token: str | None, heartbeat_s: float
    ) -> None:
        self._service = service
        self._heartbeat_s = heartbeat_s
        self._welcome = welcome
        self._token = token
        self._served: dict[str, _Served] = {}  # by the gateway's name, once its hello was accepted

    async def handle(self, connection: ServerConnection) -> None:
        """Serve one connection from its first message to its end."""
        hello = await self._greeted(connection)
        if hello is None:
            return
        filled = asyncio.Event()
        cut = asyncio.Event()
        reasons: list[str] = []

        def end(reason: str) -> None:
            reasons.append(reason)
            cut.set()

        gateway = Gateway(hello.gateway, filled.set, end)
        # No await from here to `connect`: there is one connection for each name.
        earlier = self._served.get(gateway.name)
        if earlier is not None:
            self._service.disconnect(earlier.gateway)
        self._served[gateway.name] = _Served(connection, gateway)
        self._service.connect(gateway)
        _log.info("gateway_connected", gateway=gateway.name)
        try:
            async with asyncio.TaskGroup() as tasks:
                if earlier is not None:
                    again = "the gateway has connected again"
                    tasks.create_task(_refuse(earlier.connection, CloseCode.SERVICE_RESTART, again))
                sender = tasks.create_task(self._send(connection, gateway, filled))
                heart = tasks.create_task(self._beat(gateway))
                cutter = tasks.create_task(_end_when(cut, connection, reasons))
                await self._receive(connection, gateway)
                for task in (sender, heart, cutter):
                    task.cancel()
        finally:
            self._service.disconnect(gateway)
            if self._served[gateway.name].gateway is gateway:
                del self._served[gateway.name]
            _log.info(
                "gateway_disconnected",
                gateway=gateway.name,
                code=connection.close_code,
                reason=connection.close_reason,
            )

    async def _greeted(self, connection: ServerConnection) -> Hello | None:
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                message = decode_to_worker(await connection.recv())
        except (TimeoutError, ConnectionClosed):
            await _refuse(connection, CloseCode.POLICY_VIOLATION, "no hello")
            return None
        except (msgspec.MsgspecError, RecursionError) as error:
            await _refuse(connection, CloseCode.INVALID_DATA, str(error))
            return None
        if not isinstance(message, Hello):
            await _refuse(connection, CloseCode.POLICY_VIOLATION, "hello must come first")
        elif message.protocol != PROTOCOL:
            reason = f"this worker speaks protocol {PROTOCOL}, not {message.protocol}"
            await _refuse(connection, CloseCode.PROTOCOL_ERROR, reason)
        elif self._token is not None and not hmac.compare_digest(
            self._token.encode(), (message.token or "").encode()
        ):
            await _refuse(connection, CloseCode.POLICY_VIOLATION, "wrong token")
        elif not 0 < len(message.gateway) <= _LONGEST_NAME:
            reason = f"gateway: a name of 1 to {_LONGEST_NAME} characters is required"
            await _refuse(connection, CloseCode.POLICY_VIOLATION, reason)
        elif len(self._served) >= MOST_GATEWAYS and message.gateway not in self._served:
            reason = f"{MOST_GATEWAYS} gateways are connected"
            await _refuse(connection, CloseCode.TRY_AGAIN_LATER, reason)
        else:
            return message
        return None

    async def _receive(self, connection: ServerConnection, gateway: Gateway) -> None:
        try:
            async for frame in connection:
                try:
                    message = decode_to_worker(frame)
                except (msgspec.MsgspecError, RecursionError) as error:
                    await _refuse(connection, CloseCode.INVALID_DATA, str(error))
                    return
                if isinstance(message, Hello):
                    await _refuse(connection, CloseCode.POLICY_VIOLATION, "hello came twice")
                    return
                if gateway not in self._service.gateways:
                    return  # it has connected again
                try:
                    self._obey(gateway, message)
                except Exception as error:  # noqa: BLE001 (only this request fails)
                    self._failed(gateway, message, error)
        except ConnectionClosed:
            return  # the gateway died without a close frame

    def _failed(self, gateway: Gateway, message: _Order, error: Exception) -> None:
        """Answer a message that the service could not carry out."""
        kind, failure = type(message).__name__, type(error).__name__
        request_id = None
        if isinstance(message, Count):
            request_id = message.prompt.request_id
        elif not isinstance(message, MeetPeer | SetPolicy | TellLoad):
            request_id = message.request_id
        _log.error("message_failed", message=kind, request_id=request_id, kind=failure)
        match message:
            case MeetPeer():
                self._service.not_met(gateway, message.peer, failure)
            case SetPolicy():
                self._service.policy_set(gateway, message.policy, failure)
            case Count() | Detokenize():
                self._service.reply(gateway, not_answered(message, failure))
            case Submit() | Cancel() | HandOver():
                reason = f"the worker could not carry out {kind}: {failure}"
                self._service.fail(gateway, message.request_id, reason)
            case SetPace() | TellLoad():
                pass  # what was said before still holds
            case _:
                assert_never(message)

    def _obey(self, gateway: Gateway, message: _Order) -> None:
        service = self._service
        match message:
            case Submit():
                service.submit(gateway, message)
            case Count() | Detokenize():
                service.answer(gateway, message)
            case Cancel():
                service.cancel(gateway, message.request_id)
            case SetPace():
                service.set_pace(gateway, message.request_id, message.pace)
            case HandOver():
                service.hand_over(gateway, message.request_id)
            case MeetPeer():
                service.meet_peer(gateway, message.peer)
            case SetPolicy():
                service.set_policy(gateway, message.policy)
            case TellLoad():
                service.gateways.told(gateway, message.load)
            case _:
                assert_never(message)

    async def _send(
        self, connection: ServerConnection, gateway: Gateway, filled: asyncio.Event
    ) -> None:
        try:
            policy = self._service.policy or self._welcome.policy  # it may have been changed
            await connection.send(encode(msgspec.structs.replace(self._welcome, policy=policy)))
            while True:
                await filled.wait()
                filled.clear()
                while (message := gateway.outbox.take()) is not None:
                    # `send` waits while the gateway does not read. The outbox merges new messages.
                    for frame in self._frames(gateway, message):
                        await connection.send(frame)
                    self._service.gateways.drained()
        except ConnectionClosed:
            return  # `_receive` sees this too and ends the connection

    def _frames(self, gateway: Gateway, message: ToGateway) -> Iterator[bytes]:
        """The message as frames. A request whose part cannot be encoded fails; the others go on."""
        try:
            yield encode(message)
            return
        except Exception as error:  # noqa: BLE001 (models and templates can produce any text)
            kind = type(error).__name__
        _log.error("message_not_sent", message=type(message).__name__, kind=kind)
        match message:
            case Rejected():
                reason = f"the reason cannot be sent: {kind}"
                yield encode(msgspec.structs.replace(message, message=reason, param=None))
            case PeerMet():
                yield encode(PeerMet(engine_id=message.engine_id, error=kind))
            case PolicySet():
                yield encode(PolicySet(policy=message.policy, error=kind))
            case Step():
                runs = tuple(self._sendable(gateway, message))
                yield encode(msgspec.structs.replace(message, runs=runs))

    def _sendable(self, gateway: Gateway, step: Step) -> Iterator[TokenRun]:
        for run in step.runs:
            try:
                encode(msgspec.structs.replace(step, runs=(run,)))
            except Exception as error:  # noqa: BLE001 (see `_frames`)
                if run.finish is None:
                    self._service.fail(gateway, run.request_id, "the output could not be sent")
                    continue
                message = f"the output could not be sent: {type(error).__name__}"
                finish = Finish(reason="error", message=message)
                run = TokenRun(
                    request_id=run.request_id,
                    position=run.position,
                    token_ids=(),
                    texts=(),
                    finish=finish,
                )
            yield run

    async def _beat(self, gateway: Gateway) -> None:
        while True:
            try:
                self._service.heartbeat(gateway)
            except Exception as error:  # noqa: BLE001 (without heartbeats the worker seems dead)
                _log.error("heartbeat_failed", kind=type(error).__name__, reason=str(error))
            await asyncio.sleep(self._heartbeat_s)


async def _end_when(cut: asyncio.Event, connection: ServerConnection, reasons: list[str]) -> None:
    """End a connection whose gateway does not read."""
    await cut.wait()
    await _refuse(connection, CloseCode.TRY_AGAIN_LATER, reasons[0])


async def _refuse(connection: ServerConnection, code: CloseCode, reason: str) -> None:
    _log.warning("connection_refused", code=int(code), reason=reason)
    # A close frame holds 123 bytes of reason.
    await connection.close(code, reason.encode()[:120].decode(errors="ignore"))


def check_free(address: str) -> None:
    """Check that a worker can listen on an address.

    :raises WorkerError: if another process listens there, or this machine has no such address.
    :raises ValueError: if the address is neither ``unix:/path`` nor ``tcp://host:port``.
    """
    scheme, path, host, port = _parts(address)
    try:
        if scheme == "unix":
            if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
                most = f"at most {MAX_SOCKET_PATH_BYTES} bytes"
                raise WorkerError(f"listen: a Unix socket's path has {most}: {path}")
            if not os.path.isdir(os.path.dirname(path) or "."):
                raise WorkerError(f"listen: the folder of {path} does not exist")
            if os.path.exists(path) and _answers(path):
                raise WorkerError(f"listen: another process listens on {path}")
            return
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # The server sets this too, and so does a launcher that reserves the port for it.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        raise WorkerError(f"listen: cannot listen on {host}:{port}: {error.strerror}") from error


def _answers(path: str) -> bool:
    """Whether a process listens on the path. The socket of a dead process still has its file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CLOSE_S)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _parts(address: str) -> tuple[str, str, str, int]:
    """Split an address into scheme, path, host and port; absent parts are empty or 0."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix" and rest:
        return scheme, rest, "", 0
    parts = urllib.parse.urlsplit(address)
    if scheme != "tcp" or not parts.hostname or parts.port is None:
        raise ValueError(f"listen must be unix:/path or tcp://host:port, not {address!r}")
    return scheme, "", parts.hostname, parts.port


@contextlib.asynccontextmanager
async def listening(address: str, link: Link) -> AsyncIterator[Server]:
    """Listen on ``unix:/path`` or ``tcp://host:port``; the file of a socket is removed at the end.

    :raises ValueError: if the address is neither.
    """
    scheme, rest, host, port = _parts(address)
    if scheme == "unix":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(rest)
        mask = os.umask(0o177)  # only this user may connect
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
    async with serve(
        link.handle,
        host,
        port,
        compression=None,
        max_size=MAX_TO_WORKER_BYTES,
        close_timeout=_CLOSE_S,
    ) as server:
        yield server
