"""A connection that feeds a stream as the bytes arrive, without a task and without a queue.

A reader costs about a tenth of what it costs with a library, so one core serves a thousand.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

from tests.soak.clients.frames import Parser, ServerSentEvents, WebSocketFrames, masked
from tests.soak.clients.stage import KEY, Stage, connected, end_by_reset
from tests.soak.clients.stream import Refused, Stream, Violation

_PATIENCE_S = 300.0  # for what one `follow` waits for
_HEAD = f"Host: soak\r\nAuthorization: Bearer {KEY}\r\n"
_UPGRADE = (
    f"GET /v1/responses HTTP/1.1\r\n{_HEAD}Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()

Arrived = Callable[[dict[str, Any], float], None]


class Wire(asyncio.Protocol):
    """One connection to the gateway, over which one stream is read at a time.

    :param arrived: called with each event and the time of its arrival in seconds, after the checks.
    """

    def __init__(self, parser: Parser, stream: Stream, arrived: Arrived | None = None) -> None:
        self.ended = ""  # how the connection has ended, in words; empty while it is open
        self.transport: asyncio.Transport
        self.port = 0  # of this end
        self.ignores = False  # whether it throws messages away, as if it had not read them
        self.connect_s = 0.0  # time until the gateway took the connection
        self.answer_s: float | None = None  # from there to its first message
        self._parser = parser
        self._stream = stream
        self._arrived = arrived
        self._goal = 0  # the sequence number that `follow` waits for
        self._failure: Refused | Violation | None = None
        self._woken: asyncio.Future[None] | None = None
        self._asked_s = 0.0
        self._clock = asyncio.get_running_loop().time

    async def follow(self, upto: int | None = None) -> bool:
        """Wait for the end of the stream, or for ``upto`` further events.

        :return: False if the connection has ended before. Raises `Refused` for an error event.
        """
        self._goal = 2**63 if upto is None else self._stream.last + upto
        while not self._stream.ended and self._stream.last < self._goal:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self.ended:
                return False
            self._woken = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._woken
            except TimeoutError:
                raise Violation(f"waited {_PATIENCE_S:.0f} s for events") from None
            finally:
                self._woken = None
        if isinstance(self._failure, Violation):
            raise self._failure
        return True

    async def closed(self) -> None:
        """Wait until the connection has ended, at most a second; then end it."""
        for _ in range(20):
            if self.ended:
                return
            await asyncio.sleep(0.05)
        self.vanish()
        self.ended = "nothing"

    def ask(self, request: bytes, began_s: float) -> None:
        """Send the request of a connection that was begun at ``began_s``."""
        self._asked_s = self._clock()
        self.connect_s = self._asked_s - began_s
        self.transport.write(request)

    def send(self, **event: Any) -> None:
        """Send one event over a WebSocket."""
        self.transport.write(masked(json.dumps(event).encode()))

    def leave(self) -> None:
        """Close the connection, if it is still open, without waiting for the server's close."""
        if not self.transport.is_closing():
            self.transport.write(self._parser.goodbye)
            self.transport.close()

    def vanish(self) -> None:
        """End the connection by a reset."""
        end_by_reset(self.transport)

    # ---- called by the loop -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no instance
        self.port = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        """Feed the stream with what has come."""
        now = self._clock()
        parser, stream = self._parser, self._stream
        try:
            messages = parser.feed(data)
            if messages and self.answer_s is None:
                self.answer_s = now - self._asked_s
            for message in () if self.ignores else messages:
                event = stream.take(message)
                if self._arrived is not None:
                    self._arrived(event, now)
        except (Refused, Violation) as failure:
            self._failure = failure
        except (ValueError, KeyError, TypeError) as error:
            self._failure = Violation(f"no event: {type(error).__name__}: {error}")
        if parser.pongs:
            self.transport.writelines(parser.pongs)
            parser.pongs.clear()
        if parser.over:
            self.transport.close()
        if self._failure is not None or stream.ended or stream.last >= self._goal:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note how it has ended."""
        self.ended = self._parser.over or (type(exc).__name__ if exc else "end of file")
        self._wake()

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


async def websocket(
    stage: Stage, stream: Stream, arrived: Arrived | None, *, slow: bool = False
) -> Wire:
    """Open a WebSocket; events may be sent at once."""
    return await _open(stage, Wire(WebSocketFrames(), stream, arrived), _UPGRADE, slow)


async def posted(
    stage: Stage,
    stream: Stream,
    arrived: Arrived | None,
    request: dict[str, Any],
    *,
    path: str = "/v1/responses",
    slow: bool = False,
) -> Wire:
    """Start a response or a chat completion with POST, and read its server-sent events."""
    body = json.dumps(request | {"stream": True}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\n{_HEAD}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return await _open(stage, Wire(ServerSentEvents(), stream, arrived), head.encode() + body, slow)


async def resumed(stage: Stage, stream: Stream, arrived: Arrived | None) -> Wire:
    """Read the rest of a stream with GET."""
    path = f"/v1/responses/{stream.response_id}?stream=true&starting_after={stream.last}"
    head = f"GET {path} HTTP/1.1\r\n{_HEAD}Connection: close\r\n\r\n"
    return await _open(stage, Wire(ServerSentEvents(), stream, arrived), head.encode(), False)


async def _open(stage: Stage, wire: Wire, first: bytes, slow: bool) -> Wire:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    raw = await connected(stage, slow=slow)
    await loop.create_connection(lambda: wire, sock=raw)
    wire.ask(first, began_s)
    return wire
