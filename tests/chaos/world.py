"""The system under test: the gateway in this process, each worker in its own.

With the `static` launcher a worker outlives its link: the gateway dials again after a cut, and this
module restarts killed workers. With the `local` launcher the gateway starts the workers, and
restarts a worker whose link ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from gateway import config as configuration
from gateway.app import make_runner
from gateway.config import Config
from gateway.launchers import dialer, local
from gateway.launchers.base import make_launcher
from gateway.launchers.worker_settings import local_settings
from gateway.routing.cluster import Cluster
from gateway.service import ResponseService
from gateway.store import ResponseStore
from tests.chaos.links import Links
from tests.chaos.nursery import Start
from workers.messages import StepStats
from workers.settings import WorkerSettings

SETTINGS: dict[str, Any] = {
    "model.dtype": "float32",  # so that the text does not depend on the rest of the batch
    "workers.kv_cache_gib": "0.1",
    "workers.restart_backoff_s": "0.1",
    "workers.restart_backoff_max_s": "0.5",
    # Many requests move at their boundary.
    "placement.boundary": "balance",
    "placement.balance_gap": "0",
    "placement.headroom": "0",
    "placement.cost_check": "false",
    "cluster.failover_timeout_s": "300",
    "cluster.max_restarts": "1000",  # a request may be hit by many faults
    "limits.max_requests": "1000",
    "limits.max_requests_per_user": "1000",
    "limits.load": "0",  # more than the engines can serve in time is part of the test
}


@dataclass(frozen=True, slots=True)
class World:
    """The running system, as a run sees it."""

    config: Config
    service: ResponseService
    links: Links
    url: str
    folder: Path  # in the command line of each worker
    workers: Workers | None  # with the `static` launcher

    @property
    def cluster(self) -> Cluster:
        """The cluster of the gateway."""
        return self.service.cluster

    @property
    def names(self) -> list[str]:
        """The names of all workers."""
        return names_of(self.config)

    def sound(self, *, met: bool) -> bool:
        """Whether all workers are connected and no connection is disturbed.

        :param met: also require that each can read the KV of all others.
        """
        instances, now = self.cluster.instances, time.monotonic()
        if set(instances) != set(self.names) or self.cluster.drained:
            return False
        heard = all(now - one.link.last_heard_s < 2.5 for one in instances.values())
        rest = all(proxy.at_rest for proxy in (*self.links.of.values(), *self.links.kv.values()))
        known = not met or all(
            one is other or one.can_read(other)
            for one in instances.values()
            for other in instances.values()
        )
        return heard and rest and known

    def used_blocks(self) -> int:
        """KV blocks held by requests or tickets; a worker without statistics counts as one."""

        def of(stats: StepStats | None) -> int:
            if stats is None:
                return 1
            held = 0 if stats.migration is None else stats.migration.held_blocks
            return stats.kv_blocks_used + held

        return sum(of(instance.stats) for instance in self.cluster.instances.values())

    def isolate(self) -> None:
        """Cut the links to all workers, and refuse new ones."""
        for proxy in self.links.of.values():
            proxy.refusing = True
            proxy.cut()

    def connect(self) -> None:
        """Accept links again."""
        for proxy in self.links.of.values():
            proxy.refusing = False

    def pid_of(self, name: str) -> int | None:
        """The process id of a worker, connected or not; None if it has no process."""
        instance = self.cluster.instances.get(name)
        if instance is not None:
            return instance.welcome.pid
        if self.workers is not None:
            return self.workers.pids.get(name)
        pids = processes_with(str(self.folder / f"{name}.sock"))
        return max(pids, default=None)


@asynccontextmanager
async def world(workers: int, launcher: str, settings: dict[str, str]) -> AsyncIterator[World]:
    """Start the system; on exit, end it with all its processes."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        own: dict[str, Any] = {
            "workers.count": str(workers),
            "server.state_dir": name,
            "launcher.kind": launcher,
        }
        if launcher == "static":
            paths = (folder / f"worker-{index}.sock" for index in range(workers))
            own["launcher.addresses"] = tuple(f"unix:{path}" for path in paths)
        config = configuration.load(environment={}, flags=SETTINGS | settings | own)
        store = ResponseStore(config.store_place)
        await store.open()
        service = ResponseService(config, store)
        runner = make_runner(service)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        links = Links()
        for module in (local, dialer):
            module.open_link = links.open_link  # type: ignore[attr-defined]
        (folder / "logs").mkdir()
        tasks = [asyncio.create_task(make_launcher(config, service.cluster, folder).run())]
        started = Workers(config, folder) if launcher == "static" else None
        if started is not None:
            tasks.append(asyncio.create_task(started.run()))
        try:
            ready = asyncio.create_task(service.cluster.wait_for_instances(workers))
            await asyncio.wait([ready, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield World(config, service, links, url, folder, started)
        finally:
            service.fail_all()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await runner.cleanup()
            await service.close()
            await store.close()
            links.close()


# ---- workers of the static launcher -----------------------------------------------------------


class Workers:
    """Starts the workers that the `static` launcher dials; see `tests.chaos.nursery`."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.pids: dict[str, int] = {}  # of the latest process, by instance
        self._config = config
        self._folder = folder

    async def run(self) -> None:
        """Start each worker, and restart it whenever it ends. All end with this task."""
        read_end, write_end = os.pipe()  # workers end when the other end closes
        try:
            with (self._folder / "logs" / "nursery.log").open("ab") as log:
                nursery = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "tests.chaos.nursery",
                    str(self._folder),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    pass_fds=(read_end,),
                    start_new_session=True,
                )
            assert nursery.stdin is not None
            assert nursery.stdout is not None
            try:
                settings = {
                    name: msgspec.structs.replace(
                        local_settings(self._config, index, self._folder), parent_fd=read_end
                    )
                    for index, name in enumerate(names_of(self._config))
                }
                for one in settings.values():
                    nursery.stdin.write(self._start(one))
                while line := (await nursery.stdout.readline()).decode().split():
                    if line[0] == "ended":
                        nursery.stdin.write(self._start(settings[line[1]]))
                    else:
                        self.pids[line[1]] = int(line[2])
                raise RuntimeError(f"the nursery ended: {_end_of(log.name)}")
            finally:
                os.close(write_end)
                nursery.stdin.close()
                await nursery.wait()
        finally:
            os.close(read_end)

    def _start(self, settings: WorkerSettings) -> bytes:
        log = self._folder / "logs" / f"{settings.instance_id}.log"
        return msgspec.json.encode(Start(settings, str(log))) + b"\n"


# ---- processes -----------------------------------------------------------------------------


def _end_of(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")[-2000:]


def names_of(config: Config) -> list[str]:
    """The names of all workers."""
    return [f"worker-{index}" for index in range(config.workers.count)]


def processes_with(text: str) -> list[int]:
    """Other processes whose command line contains this text."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if text.encode() in (entry / "cmdline").read_bytes():
                    pids.append(int(entry.name))
    return pids


async def until(condition: Callable[[], object], seconds: float) -> bool:
    """Poll the condition; :return: whether it became true in time."""
    deadline_s = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(0.02)
    return True
