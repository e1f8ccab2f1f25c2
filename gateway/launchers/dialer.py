"""Connects to workers that run elsewhere: dials, serves the link, dials again after a loss.

It starts and ends no process. It asks for the address of a worker before each attempt, since a
worker that was restarted may be elsewhere. Pauses grow with every failure
(`gateway.launchers.backoff`); a link that outlasts the pause before it resets them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from gateway.config import Config
from gateway.launchers.backoff import Backoff
from gateway.launchers.liveness import check_alive
from gateway.routing.cluster import Cluster
from gateway.routing.worker_link import LinkError, WorkerLink, open_link

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Place:
    """The address and the token of a worker."""

    address: str
    token: str | None = field(repr=False)


class Dialler:
    """Keeps all workers of a gateway connected."""

    def __init__(self, config: Config, cluster: Cluster) -> None:
        self.names: set[str] = set()  # of all workers that were ever connected
        self._config = config
        self._cluster = cluster
        self._backoffs: dict[str, Backoff] = {}

    @property
    def failures(self) -> Mapping[str, int]:
        """Consecutive failures of each worker, by its label."""
        return {label: backoff.failures for label, backoff in self._backoffs.items()}

    async def keep_connected(self, label: str, locate: Callable[[], Awaitable[Place]]) -> None:
        """Keep one worker connected until cancelled.

        :param label: the name of the worker in logs.
        :param locate: returns the current place; raises `LinkError` if there is none.
        """
        workers = self._config.workers
        backoff = Backoff(workers.restart_backoff_s, workers.restart_backoff_max_s)
        self._backoffs[label] = backoff
        last_reason = ""
        while True:
            served_since_s: float | None = None
            try:
                place = await locate()
                link = await open_link(place.address, place.token, self._cluster.gateway)
                try:
                    served_since_s = time.monotonic()
                    await self._serve(link, backoff)
                finally:
                    await link.close()
            except Exception as error:
                if not isinstance(error, LinkError):
                    log.exception("worker_handling_failed", worker=label)
                reason = str(error)
            else:
                reason = "the link ended"
            served_s = None if served_since_s is None else time.monotonic() - served_since_s
            pause_s = backoff.failed(served_s)
            if backoff.failures == 1:
                last_reason = ""
            if reason != last_reason:  # logged once, not at every attempt
                log.warning("worker_unreachable", worker=label, reason=reason)
                last_reason = reason
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))

    async def _serve(self, link: WorkerLink, backoff: Backoff) -> None:
        welcome, served = link.welcome, self._config.served_model_name
        if welcome.instance_id in self._cluster.instances:
            raise LinkError(
                f"another worker is called {welcome.instance_id} as well; change its --id"
            )
        if welcome.model != served:
            raise LinkError(f"it serves the model {welcome.model!r}, this gateway {served!r}")
        self.names.add(welcome.instance_id)
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch(link, backoff))
                try:
                    await self._cluster.serve(link)
                finally:
                    watch.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _watch(self, link: WorkerLink, backoff: Backoff) -> None:
        since_s = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            timeout_s = self._config.workers.heartbeat_timeout_s
            check_alive(link, self._cluster, link.welcome.instance_id, timeout_s)
            backoff.forgive(time.monotonic() - since_s)
