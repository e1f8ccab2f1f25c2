"""Cross-origin requests of web pages (WHATWG Fetch, section 3.2) from ``server.allowed_origins``.

A browser asks before it sends a page's request to another origin (the preflight), and shows the
page the response only if its headers allow it. Pages of other origins get no such header.

This API uses no cookies, so the headers never allow credentials: a key is sent as
``Authorization``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from gateway.api.auth import ForbiddenOrigin
from gateway.config import ServerConfig

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_REQUEST_METHOD = "Access-Control-Request-Method"
_METHODS = "GET, POST, DELETE, OPTIONS"
# Pages may read these, too.
_EXPOSED = ", ".join(
    (
        "Retry-After",
        "WWW-Authenticate",
        "X-Request-Id",
        "request-id",
        *(
            f"x-ratelimit-{fact}-{what}"
            for what in ("requests", "tokens")
            for fact in ("limit", "remaining", "reset")
        ),
    )
)
_MAX_AGE_S = 600  # how long a browser may cache the response to a preflight
_TOKEN = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # RFC 9110, 5.6.2


def allow_origin(config: ServerConfig, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that let a page read a response; none if its origin is not allowed."""
    if "*" in config.allowed_origins:
        shared = {"Access-Control-Allow-Origin": "*"} if "Origin" in headers else {}
    elif not config.allowed_origins:
        return {}
    elif (origin := headers.get("Origin")) in config.allowed_origins:
        shared = {"Access-Control-Allow-Origin": str(origin), "Vary": "Origin"}
    else:
        return {"Vary": "Origin"}  # a cache must not give this response to an allowed page
    return {**shared, "Access-Control-Expose-Headers": _EXPOSED} if shared else {}


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether this is the request by which a browser asks for permission."""
    return method == "OPTIONS" and "Origin" in headers and _REQUEST_METHOD in headers


def allow_request(config: ServerConfig, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that answer a preflight, in addition to those of `allow_origin`.

    :raises ForbiddenOrigin: the page's origin is not allowed.
    """
    origin = headers["Origin"]
    if origin not in config.allowed_origins and "*" not in config.allowed_origins:
        raise ForbiddenOrigin(ascii(origin)[1:-1])
    asked = (name.strip() for name in headers.get("Access-Control-Request-Headers", "").split(","))
    allowed = {"Access-Control-Allow-Methods": _METHODS, "Access-Control-Max-Age": str(_MAX_AGE_S)}
    names = [name for name in asked if _TOKEN.fullmatch(name)]
    if names:  # handlers ignore headers that they do not know
        allowed["Access-Control-Allow-Headers"] = ", ".join(names)
    return allowed


def make_middleware(config: ServerConfig) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Make the middleware that answers preflights; they carry no key and reach no handler."""

    @web.middleware
    async def answer_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not is_preflight(request.method, request.headers):
            return await handler(request)
        return web.Response(status=204, headers=allow_request(config, request.headers))

    return answer_preflight
