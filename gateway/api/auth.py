"""Decides who may use the gateway: API keys, web origins, and clients on this machine.

Without any keys every client that reaches the address may use it, as in vLLM's own server;
the default address is the loopback. A browser sends `Origin` with every WebSocket and cross-site
request, so that a foreign page cannot use a gateway on the visitor's machine. Pages of
`allowed_origins` may open WebSockets, and `gateway.api.cors` lets them use `fetch`.

Behind a reverse proxy on this machine every client looks local. A request therefore counts as local
only if no header of it comes from a proxy. A proxy that adds no header cannot be noticed
(`docs/howto/reverse-proxy.md`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.config import ServerConfig
from gateway.keys.keys import Keys
from gateway.keys.registry import Caller
from gateway.schemas.errors import ApiError, Forbidden
from gateway.store import Scope

# Browsers cannot set headers on a WebSocket; OpenAI's convention is this subprotocol.
SUBPROTOCOL = "responses"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SUBPROTOCOL_KEY = "openai-insecure-api-key."
# Headers in which proxies name their client: RFC 7239 (Forwarded), RFC 9110 7.6.3 (Via), and others
# in common use.
_OF_PROXIES = frozenset(
    "forwarded via x-real-ip x-client-ip true-client-ip cf-connecting-ip fastly-client-ip".split()
)
_OF_PROXIES_PREFIX = "x-forwarded"  # -for, -host, -proto, -port, -server, ...


class ForbiddenOrigin(ApiError):
    """The request comes from a web page of an origin that is not allowed."""

    status = 403
    type = "invalid_request_error"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"Origin {origin} is not allowed; see server.allowed_origins.", code="forbidden_origin"
        )


def authenticate(config: ServerConfig, keys: Keys, headers: Mapping[str, str]) -> Caller:
    """Return who has sent these headers.

    :raises Unauthorized: a key is asked for, and none of them was sent.
    :raises ForbiddenOrigin: sent by a page of another origin.
    """
    _check_origin(config, headers)
    return keys.authenticate(_offered_key(headers))


def check_scope(caller: Caller, scope: Scope) -> None:
    """Raise `Forbidden` if the caller's key has another scope."""
    if not caller.may(scope):
        raise Forbidden(f"This API key does not have the scope '{scope}'.", code="missing_scope")


def is_local(remote: str | None, headers: Mapping[str, str]) -> bool:
    """Whether a request seems to come from a program on this machine.

    :param remote: the address at the other end of the connection, which may be a proxy's.
    """
    try:
        address = ipaddress.ip_address(remote or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    if not (mapped or address).is_loopback or any(map(_is_of_proxies, headers)):
        return False
    try:
        # A proxy that adds no header may still pass on the host name that its client used.
        hostname = urlsplit(f"//{headers.get('Host', '')}").hostname
    except ValueError:
        return False
    return hostname in _LOOPBACK


def _is_of_proxies(header: str) -> bool:
    name = header.lower()
    return name in _OF_PROXIES or name.startswith(_OF_PROXIES_PREFIX)


def _offered_key(headers: Mapping[str, str]) -> str:
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    if key := headers.get("X-Api-Key", ""):  # as clients of the Messages API send it
        return key.strip()
    for protocol in headers.get("Sec-WebSocket-Protocol", "").split(","):
        if protocol.strip().startswith(_SUBPROTOCOL_KEY):
            return protocol.strip().removeprefix(_SUBPROTOCOL_KEY)
    return ""


def _check_origin(config: ServerConfig, headers: Mapping[str, str]) -> None:
    origin = headers.get("Origin")
    if origin is None or origin in config.allowed_origins or "*" in config.allowed_origins:
        return
    try:
        parts = urlsplit(origin)
        hostname, place = parts.hostname, parts.netloc
    except ValueError:
        hostname, place = None, ""
    same_origin = place == headers.get("Host")
    # A foreign name may resolve to the loopback (DNS rebinding): there, only known names are ours.
    if config.host in _LOOPBACK:
        same_origin = same_origin and hostname in _LOOPBACK
    if not same_origin:
        raise ForbiddenOrigin(ascii(origin)[1:-1])
