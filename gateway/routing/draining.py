"""Taking instances out of service and back: drains, restarts, and their progress.

The cluster moves the requests away. A launcher starts the process again, if it can. Instances are
known by name, whether they are connected at the moment or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Protocol

import structlog

from gateway.routing.cluster import Cluster
from gateway.schemas.errors import Conflict, NotFound

log = structlog.get_logger()


class Restarts(Protocol):
    """A launcher that can start instances again; see `gateway.launchers.base`."""

    @property
    def restartable(self) -> bool:
        """Whether `restart` may be called."""

    @property
    def restart_timeout_s(self) -> float:
        """How long a restart may take, from `restart` until the instance serves again."""

    @property
    def names(self) -> Collection[str]:
        """The names of all its instances, also of those that are not connected now."""

    def restart(self, instance_id: str) -> None:
        """End the process of an instance and start it again."""


class Maintenance:
    """Drains instances, and restarts them where that was asked for."""

    def __init__(self, cluster: Cluster) -> None:
        self.launcher: Restarts | None = None
        self._cluster = cluster
        self._restarts: dict[str, asyncio.Task[None]] = {}  # until the instance is back
        self._errors: dict[str, str] = {}  # why the last restart of an instance failed

    def drain(self, instance_id: str, *, restart: bool) -> dict[str, Any]:
        """Begin to drain an instance; `describe` reports the progress.

        A second call changes nothing, except that it can add ``restart``.

        :raises NotFound: no instance of this name is known.
        :raises Conflict: no launcher of this gateway can restart it.
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
            assert launcher is not None
            self._errors.pop(instance_id, None)
            restarting = self._restart(instance_id, launcher)
            self._restarts[instance_id] = asyncio.create_task(restarting)
        return self.describe(instance_id)

    def undrain(self, instance_id: str) -> dict[str, Any]:
        """Let an instance serve again, and drop a restart that has not begun. Raises `NotFound`."""
        self._check(instance_id)
        self._cluster.undrain(instance_id)
        return self.describe(instance_id)

    def describe(self, instance_id: str) -> dict[str, Any]:
        """The state of one instance, as the API shows it. Raises `NotFound`."""
        self._check(instance_id)
        instance = self._cluster.instances.get(instance_id)
        drained = instance_id in self._cluster.drained
        requests = self._cluster.requests_of(instance_id)
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
            "error": self._errors.get(instance_id),
        }

    def describe_all(self) -> list[dict[str, Any]]:
        """The states of all known instances."""
        return [self.describe(name) for name in sorted(self._known())]

    def close(self) -> None:
        """Cancel pending restarts."""
        for task in self._restarts.values():
            task.cancel()

    async def _restart(self, name: str, launcher: Restarts) -> None:
        try:
            if not await self._cluster.emptied(name):
                return  # undrained before it began
            timeout_s = launcher.restart_timeout_s
            ended = self._cluster.instances.get(name)
            try:
                launcher.restart(name)
                async with asyncio.timeout(timeout_s):
                    if ended is not None:
                        await self._cluster.gone(ended)
                    self._cluster.undrain(name)
                    await self._cluster.present(name)
            except TimeoutError:
                self._restart_failed(name, f"it did not come back within {timeout_s:.0f} s")
            except Exception:
                log.exception("restart_failed", instance_id=name)
                self._restart_failed(name, "internal error, see the gateway's log")
            else:
                log.info("instance_restarted", instance_id=name)
        finally:
            del self._restarts[name]

    def _restart_failed(self, name: str, why: str) -> None:
        """Report a failed restart and let the instance serve, now or when it comes back."""
        self._errors[name] = f"Instance '{name}' was not restarted: {why}."
        log.error("instance_not_restarted", instance_id=name, reason=why)
        self._cluster.undrain(name)

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
