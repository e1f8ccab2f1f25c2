"""Server-sent events (WHATWG HTML, section 9.2) on an aiohttp response.

Proxies cut a stream that is silent for long, often after 60 s. A comment line keeps it open, and a
parser that follows the standard ignores it. A common load client for chat completions fails on such
a comment, so each route has its own time of silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

BEGUN: web.RequestKey[web.StreamResponse] = web.RequestKey("begun", web.StreamResponse)

_COMMENT = b": keep-alive\n\n"
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx must not hold tokens back
}


class EventStream:
    """A stream whose headers were sent."""

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response
        self._clock = asyncio.get_running_loop().time
        self._sent_s = self._clock()

    async def send(self, frames: bytes) -> None:
        """Send whole frames. Raises ConnectionError if the client has left."""
        await self.response.write(frames)
        self._sent_s = self._clock()

    async def keep_alive(self, silence_s: float) -> None:
        """Send a comment after each ``silence_s`` of silence, until the client leaves."""
        try:
            while True:
                left_s = self._sent_s + silence_s - self._clock()
                if left_s > 0:
                    await asyncio.sleep(left_s)
                else:
                    await self.send(_COMMENT)
        except ConnectionError:
            return  # `send` raises it for the events, too


@asynccontextmanager
async def event_stream(request: web.Request, keepalive_s: float) -> AsyncIterator[EventStream]:
    """Send the headers. From here on, errors can only be reported within the stream.

    :param keepalive_s: silence after which a comment is sent; 0: never.
    """
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    request[BEGUN] = response
    stream = EventStream(response)
    if not keepalive_s:
        yield stream
        return
    keeping = asyncio.create_task(stream.keep_alive(keepalive_s))
    try:
        yield stream
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


def frame(data: bytes, event: str | None = None) -> bytes:
    """Format one event; ``data`` must not contain a line break (JSON has none)."""
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + data + b"\n\n"
