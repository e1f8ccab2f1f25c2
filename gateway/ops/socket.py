"""``GET /admin/ops``: the WebSocket of the operations page."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from gateway.api.admin import check_operator
from gateway.api.connections import outlet_of
from gateway.api.http import SERVICE
from gateway.api.outlet import Outlet
from gateway.api.websocket import event_frame
from gateway.ops.asks import Asked
from gateway.ops.hub import MOST_VIEWERS, Hub
from gateway.schemas.errors import ApiError, InvalidRequest, Overloaded
from workers.policy.settings import POLICY_NAMES

SUBPROTOCOL = "operations"
HUB = web.AppKey("operations", Hub)
_SOCKETS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("operations_sockets")
POLICY_PATH = "/admin/policy"  # where a viewer switches the policy
_HEARTBEAT_S = 25.0
_MOST_BYTES = 4096  # of a message
_RETRY_S = 10


class _Viewer:
    """One socket.

    :param check: raises `ApiError` when its key does not hold any more.
    """

    def __init__(self, outlet: Outlet, check: Callable[[], object]) -> None:
        self.behind = False
        self.asked = Asked()
        self._outlet = outlet
        self._check = check

    @property
    def full(self) -> bool:
        """Whether it takes nothing now."""
        return self._outlet.full

    def send(self, data: bytes) -> None:
        """Send a JSON object."""
        try:
            self._check()
        except ApiError:
            self._outlet.cut()
        else:
            self._outlet.send(event_frame("", data))

    def take(self, text: str) -> None:
        """Take in what it asks for, or say what is wrong with that."""
        try:
            self.asked.take(text)
        except InvalidRequest as error:
            if not self.full:
                self.send(orjson.dumps({"type": "refused", "error": error.body()}))


def add_operations(app: web.Application) -> None:
    """Add the route, and the hub behind it. The other routes are there already."""
    paths = {resource.canonical for resource in app.router.resources()}
    hub = app[HUB] = Hub(app[SERVICE], POLICY_NAMES if POLICY_PATH in paths else ())
    sockets = app[_SOCKETS] = set()
    app.router.add_get("/admin/ops", watch, allow_head=False)

    async def close(_: web.Application) -> None:
        await hub.close()
        for socket in list(sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY, drain=False)

    app.on_shutdown.append(close)


async def watch(request: web.Request) -> web.StreamResponse:
    """Send what happens until the viewer leaves.

    :raises Forbidden: without a key, from another machine.
    :raises InvalidRequest: it is no WebSocket.
    :raises Overloaded: as many look as may.
    """
    owner = check_operator(request, "operations")
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise InvalidRequest(
            "This address is for WebSockets: the header 'Upgrade' must be 'websocket'.",
            param="Upgrade",
        )
    hub = request.app[HUB]
    if not hub.room:
        raise Overloaded(
            f"{MOST_VIEWERS} pages look at this gateway, its limit.",
            code="too_many_viewers",
            retry_after_s=_RETRY_S,
        )
    socket = web.WebSocketResponse(
        heartbeat=_HEARTBEAT_S, max_msg_size=_MOST_BYTES, compress=False, protocols=(SUBPROTOCOL,)
    )
    await socket.prepare(request)
    keys, sockets = request.app[SERVICE].keys, request.app[_SOCKETS]
    viewer = _Viewer(outlet_of(request), lambda: keys.check(owner))
    hub.add(viewer)
    sockets.add(socket)
    try:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            viewer.take(message.data)
    finally:
        sockets.discard(socket)
        hub.remove(viewer)
    return socket
