"""The interface of launchers, which bring workers to the gateway, and the choice of one.

local     `gateway.launchers.local`: starts workers as processes on this machine
static    `gateway.launchers.static`: dials workers that were started elsewhere
ray       `gateway.launchers.ray_cluster`: starts workers as actors of a Ray cluster
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gateway.config import Config
from gateway.launchers.local import LocalSupervisor
from gateway.launchers.static import StaticLauncher
from gateway.routing.cluster import Cluster
from gateway.routing.draining import Restarts
from gateway.scrape import Restarting


class Launcher(Restarts, Restarting, Protocol):
    """Connects workers to the cluster, and connects them again after a failure."""

    @property
    def count(self) -> int:
        """The number of instances it aims for."""

    def describe(self) -> str:
        """Describe what `run` does, in one line for the terminal."""

    async def run(self) -> None:
        """Keep the workers connected until cancelled.

        :raises gateway.launchers.local.CannotServe: no worker can be started.
        """


def make_launcher(config: Config, cluster: Cluster, socket_dir: Path) -> Launcher:
    """Make the configured launcher.

    :param socket_dir: folder for the sockets of workers on this machine.
    """
    if config.launcher.kind == "static":
        return StaticLauncher(config, cluster)
    if config.launcher.kind == "ray":
        from gateway.launchers.ray_cluster import RayLauncher  # ray may not be installed

        return RayLauncher(config, cluster)
    return LocalSupervisor(config, cluster, socket_dir)
