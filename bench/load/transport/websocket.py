"""Client of the Responses API over WebSocket.

`Connection` is one socket that any number of response streams share; ``stream_id`` tells them
apart. It neither chooses requests nor judges events: every event goes to its
`bench.load.record.ResponseRecord`, stamped when it is read off the socket. A lost connection ends
its streams. `bench.load.transport.pool` assigns streams to sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from bench.load.record import ResponseRecord, decode
from bench.load.transport.interface import Clock, ServerError


class _InvalidEvent(Exception):
    """An event that belongs to no stream of this connection."""


class Stream:
    """One response in progress, made by `Connection.create`."""

    def __init__(self, connection: Connection, record: ResponseRecord) -> None:
        self.record = record
        self._connection = connection
        self._ended = asyncio.Event()

    async def wait(self) -> None:
        """Return when the response has ended; `record` says how."""
        await self._ended.wait()

    async def cancel(self) -> None:
        """Ask the server to cancel it. Otherwise its engine would go on generating.

        Does nothing if the server has not sent the response's id, or is gone.
        """
        if self.record.response_id is not None:
            await self._connection.send(
                {"type": "response.cancel", "response_id": self.record.response_id}
            )

    def settle(self) -> None:
        """Let `wait` return if the record has ended."""
        if self.record.ended:
            self._ended.set()


class Connection:
    """One WebSocket, made by `open`. `close` must be called, also after it was lost."""

    def __init__(self, socket: ClientConnection, clock: Clock) -> None:
        self._socket = socket
        self._clock = clock
        self._streams: dict[
            str, Stream
        ] = {}  # ended ones too, because nothing may follow their end
        self._lost: str | None = None  # why nothing can be sent any more
        self._reader = asyncio.create_task(self._read(), name="connection-reader")

    @classmethod
    async def open(
        cls, url: str, *, api_key: str | None = None, clock: Clock = time.monotonic
    ) -> Connection:
        """Connect to ``ws://HOST/v1/responses``.

        :raises ServerError: if that fails.
        """
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            socket = await connect(
                url,
                additional_headers=headers,
                compression=None,  # frames are tiny
                max_size=None,  # a final object carries a whole answer
                ping_interval=None,  # measure a slow server, do not cut it off
                open_timeout=None,  # the caller has its own limit
                proxy=None,  # its delay would be measured too
            )
        except InvalidStatus as error:
            status = error.response.status_code
            raise ServerError(f"{url}: refused with HTTP {status}") from error
        except (OSError, WebSocketException) as error:
            raise ServerError(f"{url}: {str(error) or type(error).__name__}") from error
        return cls(socket, clock)

    @property
    def closed(self) -> bool:
        """True when nothing can be sent any more."""
        return self._lost is not None

    async def create(
        self, stream_id: str, body: Mapping[str, Any], record: ResponseRecord
    ) -> Stream:
        """Send ``response.create``. If the connection is lost, the returned stream has ended.

        :param stream_id: unique on this connection.
        """
        stream = Stream(self, record)
        self._streams[stream_id] = stream
        record.sent_s = self._clock()
        await self.send({"type": "response.create", "stream_id": stream_id, **body})
        if self._lost is not None:
            self._lose(stream)
        return stream

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one client event. On a lost connection it is discarded, and all streams end."""
        try:
            await self._socket.send(msgspec.json.encode(message), text=True)
        except ConnectionClosed:
            await asyncio.wait([self._reader])  # it notes the reason and ends the streams

    async def close(self) -> None:
        """Close the socket. Messages that the server sent before are still received."""
        await self._socket.close()
        await self._reader

    async def _read(self) -> None:
        reason = "connection closed"
        try:
            async for message in self._socket:
                received_s = self._clock()
                self._dispatch(message, received_s)
            reason = f"connection closed by the server, code {self._socket.close_code}"
        except ConnectionClosed as error:
            reason = f"connection lost: {error}"
        except (msgspec.DecodeError, _InvalidEvent) as error:
            reason = f"the server sent an invalid event: {error}"
        finally:
            self._lost = reason
            for stream in self._streams.values():
                self._lose(stream)
            # No longer read, so it must not stay open.
            await self._socket.close()

    def _dispatch(self, message: str | bytes, received_s: float) -> None:
        event = decode(message)
        if event.stream_id in self._streams:
            streams = [self._streams[event.stream_id]]
        elif event.stream_id is None and event.type == "error":  # about the whole connection
            streams = [s for s in self._streams.values() if not s.record.ended]
        else:
            raise _InvalidEvent(f"{event.type} with an unknown stream_id, {event.stream_id!r}")
        for stream in streams:
            stream.record.receive(event, received_s)
            stream.settle()

    def _lose(self, stream: Stream) -> None:
        stream.record.abandon(self._lost or "connection closed", self._clock())
        stream.settle()
