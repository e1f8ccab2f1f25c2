"""Server-sent events (WHATWG HTML, section 9.2) on an aiohttp response.

Never sends a comment line: one that arrives as a read of its own jams the parser of a common load
client.
"""

from __future__ import annotations

from aiohttp import web

BEGUN: web.RequestKey[web.StreamResponse] = web.RequestKey("begun", web.StreamResponse)

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx must not hold tokens back
}


async def start_stream(request: web.Request) -> web.StreamResponse:
    """Send the headers. From here on an error can only be told within the stream."""
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    request[BEGUN] = response
    return response


def frame(data: bytes, event: str | None = None) -> bytes:
    """One event; ``data`` must have no line break (JSON has none)."""
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + data + b"\n\n"
