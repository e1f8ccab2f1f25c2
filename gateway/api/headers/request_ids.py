"""``X-Request-Id``: the id of an HTTP request, for those who look for it in logs.

A client, or a proxy, may send one. It is taken if it is safe in a log and in a header; otherwise
the gateway makes one. Every response carries it, and so does every line that is logged for the
request. The responses of a WebSocket have the id of its handshake.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from gateway import tracing

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEADER = "X-Request-Id"
OF_MESSAGES = "request-id"  # where clients of the Messages API look for it
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
_SAFE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def new_request_id() -> str:
    """An id for a request that has none."""
    return f"req_{secrets.token_hex(12)}"


def request_id_of(headers: Mapping[str, str]) -> str:
    """The id that a client has sent, if it is safe, or a new one."""
    sent = headers.get(HEADER, "")
    return sent if _SAFE.fullmatch(sent) else new_request_id()


@web.middleware
async def name_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, and log all of its lines with it."""
    request[REQUEST_ID] = request_id_of(request.headers)
    with tracing.of_request(request[REQUEST_ID]):
        return await handler(request)
