"""Who runs the workers: one interface, and the choice of ``launcher.kind``.

local     `gateway.launchers.local`: processes of this gateway, on this machine
static    `gateway.launchers.static`: workers that run elsewhere, by address
ray       `gateway.launchers.ray_cluster`: actors of a Ray cluster
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
    """Brings workers to the cluster, and brings them back."""

    @property
    def count(self) -> int:
        """Instances that there are to be."""

    def describe(self) -> str:
        """What `run` sets out to do, in one line for people."""

    async def run(self) -> None:
        """Keep the workers connected until cancelled.

        :raises gateway.launchers.local.CannotServe: there is no hope for any.
        """


def make_launcher(config: Config, cluster: Cluster, socket_dir: Path) -> Launcher:
    """The one that is configured.

    :param socket_dir: for sockets of workers on this machine.
    """
    if config.launcher.kind == "static":
        return StaticLauncher(config, cluster)
    if config.launcher.kind == "ray":
        from gateway.launchers.ray_cluster import RayLauncher  # ray may not be installed

        return RayLauncher(config, cluster)
    return LocalSupervisor(config, cluster, socket_dir)
