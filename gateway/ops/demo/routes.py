"""``/admin/demo``: start and stop the load of the demonstration, and kill a worker.

Only a gateway with the setting ``server.demo`` has it, such as that of ``pascal demo``. Elsewhere
the route answers 404.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from gateway.api.admin import DemoBody, DemoLevel, check_operator
from gateway.api.http import SERVICE, read_bytes
from gateway.api.refusals import json_response
from gateway.ops.demo.load import OFF, DemoLoad
from gateway.ops.hub import Hub
from gateway.ops.socket import HUB
from gateway.schemas.bodies import parse_json_object
from gateway.schemas.errors import Conflict, InvalidRequest, NotFound, convert
from gateway.service import ResponseService

log = structlog.get_logger()

PATH = "/admin/demo"


class Demonstration:
    """What operators may do to a gateway that is shown. `begin` and `close` must be called."""

    def __init__(self, service: ResponseService, hub: Hub) -> None:
        server = service.config.server
        self.enabled = server.demo != ""
        key = server.api_keys[0] if server.api_keys else None
        self.load = DemoLoad(Path(server.state_dir) / "logs" / "demo-load.log", key)
        self._service, self._hub = service, hub
        self._base_url = ""

    def begin(self, base_url: str) -> None:
        """Start the load of the settings.

        :param base_url: of this gateway, as the load reaches it.
        """
        self._base_url = base_url
        level = self._service.config.server.demo
        if level != "" and level != OFF:
            self.set_load(level)

    async def close(self) -> None:
        """End the load."""
        await self.load.close()

    def set_load(self, level: DemoLevel) -> None:
        """Set the level of the load."""
        before = self.load.level
        self.load.set(level, self._base_url)
        if level != before:
            log.info("demo_load_set", level=level, before=before)
            self._hub.note(f"load {before} → {level}")

    def kill(self, instance_id: str) -> None:
        """Send SIGKILL to a worker of this machine; its launcher starts it again.

        :raises NotFound: no instance of this name is known.
        :raises Conflict: it does not run, or not here.
        """
        known = self._service.maintenance.describe(instance_id)
        if self._service.config.launcher.kind != "local":
            raise Conflict(
                f"Instance '{instance_id}' was not started by this gateway, so it cannot be "
                "killed from here.",
                code="not_restartable",
            )
        try:
            if known["pid"] is None:
                raise ProcessLookupError
            os.kill(known["pid"], signal.SIGKILL)
        except ProcessLookupError:
            raise Conflict(
                f"Instance '{instance_id}' does not run now.", code="not_running"
            ) from None
        log.info("demo_worker_killed", instance_id=instance_id, pid=known["pid"])
        self._hub.note(f"{instance_id} killed")

    def describe(self) -> dict[str, Any]:
        """The state of the load, as the API shows it."""
        told = self.load.told
        return {
            "load": self.load.level,
            "running": told.running,
            "begun": told.begun,
            "completed": told.completed,
            "failed": told.failed,
            "error": self.load.error or told.error,
        }


DEMO = web.AppKey("demonstration", Demonstration)


def add_demo(app: web.Application) -> None:
    """Add the routes. The hub of the operations is there already."""
    demonstration = app[DEMO] = Demonstration(app[SERVICE], app[HUB])
    app.router.add_get(PATH, get_demo, allow_head=False)
    app.router.add_post(PATH, set_demo)

    async def close(_: web.Application) -> None:
        await demonstration.close()

    app.on_shutdown.append(close)


async def get_demo(request: web.Request) -> web.Response:
    """``GET /admin/demo``."""
    check_operator(request, "operations")
    return json_response(_demonstration(request).describe())


async def set_demo(request: web.Request) -> web.Response:
    """``POST /admin/demo``."""
    check_operator(request)
    demonstration = _demonstration(request)
    body = convert(parse_json_object(await read_bytes(request)), DemoBody)
    if body.load is None and body.kill is None:
        raise InvalidRequest("Give 'load', 'kill' or both.", param="load")
    if body.kill is not None:
        demonstration.kill(body.kill)
    if body.load is not None:
        demonstration.set_load(body.load)
    return json_response(demonstration.describe())


def _demonstration(request: web.Request) -> Demonstration:
    demonstration = request.app[DEMO]
    if not demonstration.enabled:
        raise NotFound(
            "This gateway is not a demonstration: `pascal demo` starts one.", code="not_a_demo"
        )
    return demonstration
