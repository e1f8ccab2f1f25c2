"""The `static` launcher: dials workers that run elsewhere, at ``launcher.addresses``.

They are started there, with ``pascal worker``, and stopped there. They outlive the gateway and
serve the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from gateway.config import Config
from gateway.launchers.dialer import Dialler, Place
from gateway.routing.cluster import Cluster


class StaticLauncher:
    """Keeps the workers at the configured addresses connected."""

    restartable = False
    restart_timeout_s = 0.0  # it restarts nothing
    restarts_total = 0

    def __init__(self, config: Config, cluster: Cluster) -> None:
        self.count = len(config.launcher.addresses)
        self._config = config
        self._dialler = Dialler(config, cluster)

    @property
    def names(self) -> Collection[str]:
        """Names of workers seen so far; a name is known from the first connection on."""
        return self._dialler.names

    @property
    def failures(self) -> Mapping[str, int]:
        """Consecutive failures to reach each worker, by its address."""
        return self._dialler.failures

    def restart(self, instance_id: str) -> None:
        """:raises RuntimeError: always; see `restartable`."""
        raise RuntimeError(f"{instance_id} was not started here")

    def describe(self) -> str:
        """Name the workers that it dials."""
        addresses = ", ".join(self._config.launcher.addresses)
        return f"Dialling {self.count} worker{'s' * (self.count != 1)} at {addresses}"

    async def run(self) -> None:
        """Keep all workers connected until cancelled."""
        launcher = self._config.launcher
        async with asyncio.TaskGroup() as tasks:
            for address in launcher.addresses:
                tasks.create_task(self._keep(Place(address, launcher.token or None)))

    async def _keep(self, place: Place) -> None:
        async def locate() -> Place:
            return place

        await self._dialler.keep_connected(place.address, locate)
