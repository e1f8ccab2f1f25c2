"""Server-sent events (WHATWG HTML, section 9.2) on an aiohttp response.

Proxies cut a stream that is silent for long, often after 60 s. A comment line keeps it open, and a
parser that follows the standard ignores it. A common load client for chat completions fails on such
a comment, so each route has its own time of silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import HttpVersion11, web

from gateway.api.connections import outlet_of
from gateway.api.outlet import Outlet

BEGUN: web.RequestKey[web.StreamResponse] = web.RequestKey("begun", web.StreamResponse)

COMMENT = b": keep-alive\n\n"
_LOOKS = 4  # in the time of silence: no token has to read the clock
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx must not hold tokens back
}


class EventStream:
    """A stream whose headers were sent.

    Frames of events go out through `outlet`, made by `chunk`; all other frames through `send`.
    """

    def __init__(self, response: web.StreamResponse, outlet: Outlet, *, chunked: bool) -> None:
        self.response = response
        self.outlet = outlet
        self._chunked = chunked
        self._quiet = True  # no frame was made since the last look

    def chunk(self, frame: bytes) -> bytes:
        """What goes to the connection for a frame: a chunk, unless the client knows none."""
        self._quiet = False
        return b"%x\r\n%b\r\n" % (len(frame), frame) if self._chunked else frame

    async def send(self, frames: bytes) -> None:
        """Send whole frames. Raises ConnectionError if the client has left."""
        await self.response.write(frames)
        self._quiet = False

    async def keep_alive(self, silence_s: float, sign: bytes) -> None:
        """Send a sign of life after each ``silence_s`` of silence, until the client leaves."""
        quiet_looks = 0
        try:
            while True:
                await asyncio.sleep(silence_s / _LOOKS)
                quiet_looks = quiet_looks + 1 if self._quiet else 0
                self._quiet = True
                if quiet_looks == _LOOKS:
                    quiet_looks = 0
                    if not self.outlet.full:
                        await self.send(sign)
                        self._quiet = True
        except ConnectionError:
            return  # the followers of the outlet notice it, too


@asynccontextmanager
async def event_stream(
    request: web.Request, keepalive_s: float, sign: bytes = COMMENT
) -> AsyncIterator[EventStream]:
    """Send the headers. From here on, errors can only be reported within the stream.

    :param keepalive_s: silence after which a sign of life is sent; 0: never.
    :param sign: whole lines that clients take for nothing.
    """
    response = web.StreamResponse(headers=_HEADERS)
    chunked = request.version >= HttpVersion11
    if chunked:
        response.enable_chunked_encoding()
    else:
        response.force_close()  # its end is the end of the response
    await response.prepare(request)
    request[BEGUN] = response
    stream = EventStream(response, outlet_of(request), chunked=chunked)
    if not keepalive_s:
        yield stream
        return
    keeping = asyncio.create_task(stream.keep_alive(keepalive_s, sign))
    try:
        yield stream
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


def frame(data: bytes, event: str | None = None) -> bytes:
    """Format one event; ``data`` must not contain a line break (JSON has none)."""
    if event is None:
        return b"data: %b\n\n" % data
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)
