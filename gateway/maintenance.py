"""Taking instances out of service and back: what is asked for, how far it is.

The cluster moves the requests away; a launcher, if it can, starts the process again. An instance
is known by its name, whether it is there at the moment or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Protocol

import structlog

from gateway.cluster import Cluster
from gateway.errors import Conflict, NotFound

log = structlog.get_logger()


class Restarts(Protocol):
    """Whoever can start instances again; see `gateway.launcher`."""

    @property
    def restartable(self) -> bool:
        """Whether `restart` may be called."""

    @property
    def names(self) -> Collection[str]:
        """Of all its instances, also those that are not there now."""

    def restart(self, instance_id: str) -> None:
        """End the process of an instance and start it again."""


class Maintenance:
    """Drains instances, and restarts those that are to be."""

    def __init__(self, cluster: Cluster) -> None:
        self.launcher: Restarts | None = None
        self._cluster = cluster
        self._restarts: dict[str, asyncio.Task[None]] = {}  # asked for, until it is back

    def drain(self, instance_id: str, *, restart: bool) -> dict[str, Any]:
        """Begin; `describe` tells how far it is. Asking again changes nothing but ``restart``.

        :raises NotFound: there is no such instance.
        :raises Conflict: nobody here can restart it.
        """
        self._check(instance_id)
        launcher = self.launcher
        can = launcher is not None and launcher.restartable and instance_id in launcher.names
        if restart and not can:
            raise Conflict(
                f"Instance '{instance_id}' was not started by this gateway, so it cannot be "
                "restarted from here.",
                code="not_restartable",
            )
        self._cluster.drain(instance_id)
        if restart and instance_id not in self._restarts:
            self._restarts[instance_id] = asyncio.create_task(self._restart(instance_id))
        return self.describe(instance_id)

    def undrain(self, instance_id: str) -> dict[str, Any]:
        """Let it serve again; a restart that has not begun is not made. Raises `NotFound`."""
        self._check(instance_id)
        self._cluster.undrain(instance_id)
        return self.describe(instance_id)

    def describe(self, instance_id: str) -> dict[str, Any]:
        """One instance. Raises `NotFound`."""
        self._check(instance_id)
        instance = self._cluster.instances.get(instance_id)
        drained = instance_id in self._cluster.router.drained
        requests = 0 if instance is None else len(instance.routes)
        if instance_id in self._restarts and not requests:
            state = "restarting"
        elif drained:
            state = "draining" if requests else "drained"
        else:
            state = "absent" if instance is None else "serving"
        return {
            "id": instance_id,
            "state": state,
            "requests": requests,
            "pid": None if instance is None else instance.welcome.pid,
            "engine": None if instance is None else instance.welcome.engine,
        }

    def describe_all(self) -> list[dict[str, Any]]:
        """All instances that are known."""
        return [self.describe(name) for name in sorted(self._known())]

    def close(self) -> None:
        """Wait for no restart any more."""
        for task in self._restarts.values():
            task.cancel()

    async def _restart(self, name: str) -> None:
        try:
            if not await self._cluster.emptied(name):
                return  # undrained before it began
            assert self.launcher is not None
            ended = self._cluster.instances.get(name)
            self.launcher.restart(name)
            if ended is not None:
                await self._cluster.gone(ended)
            self._cluster.undrain(name)
            await self._cluster.present(name)
            log.info("instance_restarted", instance_id=name)
        finally:
            del self._restarts[name]

    def _known(self) -> set[str]:
        launched = set() if self.launcher is None else set(self.launcher.names)
        return launched | self._cluster.instances.keys()

    def _check(self, instance_id: str) -> None:
        known = self._known()
        if instance_id not in known:
            raise NotFound(
                f"There is no instance '{instance_id}'; known: {', '.join(sorted(known))}.",
                code="instance_not_found",
                param="instance_id",
            )
