"""Which of the gateway's two addresses serves a path, if operators have one of their own.

With ``server.operations_port``, metrics, administration and the operations page are served there,
and everything else at ``server.port``. So a load balancer can spread clients over several gateways
while operators reach each one, and the public address shows strangers nothing.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.api.pages.site import PREFIX
from gateway.config import ServerConfig
from gateway.schemas.errors import NotFound

_OPERATIONS: Final = ("/metrics", "/admin", "/ops")
_BOTH: Final = ("/health", "/ready", "/version", PREFIX.rstrip("/"))


def _is_at(path: str, places: tuple[str, ...]) -> bool:
    """Whether a path is one of these, or below one of them."""
    return any(path == place or path.startswith(f"{place}/") for place in places)


def operations_here(request: web.Request, config: ServerConfig) -> bool:
    """Whether the address that this request came to serves operators."""
    if not config.operations_port:
        return True
    transport = request.transport
    name = None if transport is None else transport.get_extra_info("sockname")
    return name is not None and name[1] == config.operations_port


def make_place_check(config: ServerConfig) -> Middleware:
    """A middleware that refuses what the other address serves."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if config.operations_port:
            _check_place(request, config)
        return await handler(request)

    return check


def _check_place(request: web.Request, config: ServerConfig) -> None:
    if _is_at(request.path, _BOTH):
        return
    of_operations = _is_at(request.path, _OPERATIONS)
    here = operations_here(request, config)
    if of_operations and not here:
        raise NotFound(
            f"{request.path} is served at the address of operators "
            "(server.operations_host, server.operations_port).",
            code="wrong_address",
        )
    if here and not of_operations:
        raise NotFound(
            f"{request.path} is served at the address of clients (server.host, server.port).",
            code="wrong_address",
        )
