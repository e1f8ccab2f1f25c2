"""Samples of the gateway and its workers, taken from outside: /proc, /metrics, files."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.soak.clients.stage import HEADERS
from tests.soak.growth.series import METRICS

Values = dict[str, float]


@dataclass(slots=True)
class Observations:
    """All samples of a run."""

    times_s: list[float] = field(default_factory=list)  # since the first reader
    values: dict[str, list[float | None]] = field(default_factory=dict)  # by series

    def add(self, time_s: float, sample: Values) -> None:
        """Append a sample; a series that it lacks gets a gap."""
        for name in sample.keys() - self.values.keys():
            self.values[name] = [None] * len(self.times_s)
        self.times_s.append(time_s)
        for name, values in self.values.items():
            values.append(sample.get(name))

    def after(self, name: str, since_s: float) -> tuple[list[float], list[float]]:
        """Times and values of a series from ``since_s`` on, without its gaps."""
        pairs = [
            (time_s, value)
            for time_s, value in zip(self.times_s, self.values.get(name, []), strict=False)
            if value is not None and time_s >= since_s
        ]
        return [time_s for time_s, _ in pairs], [value for _, value in pairs]


class Observer:
    """Samples one gateway.

    :param pid: of the gateway.
    :param store: its SQLite file.
    """

    def __init__(self, url: str, pid: int, store: Path, http: aiohttp.ClientSession) -> None:
        self.workers: dict[str, int] = {}  # process ids by instance, as last seen
        self.restarted: set[str] = set()  # instances that were seen with two processes
        self.pids = {pid}
        self.missing = set(METRICS)  # never exported so far
        self._url = url
        self._pid = pid
        self._store = store
        self._http = http

    async def instances(self) -> list[dict[str, Any]]:
        """The instances, as the gateway lists them."""
        async with self._http.get(f"{self._url}/admin/instances", headers=HEADERS) as answer:
            instances: list[dict[str, Any]] = (await answer.json())["instances"]
            return instances

    async def pid_of(self, instance_id: str) -> int | None:
        """Process id of a connected instance; None if it is not connected."""
        pids = {one["id"]: one["pid"] for one in await self.instances()}
        pid: int | None = pids.get(instance_id)
        return pid

    async def look(self) -> Values:
        """One sample of all series and metrics, by name."""
        sample: Values = {}
        requests = 0
        for instance in await self.instances():
            name, pid = instance["id"], instance["pid"]
            requests += instance["requests"]
            if pid is None:
                continue
            self.pids.add(pid)
            if self.workers.setdefault(name, pid) != pid:
                self.restarted.add(name)
                self.workers[name] = pid
            sample |= process(name, pid)
        sample |= process("gateway", self._pid) | await self._metrics()
        sample["requests"] = requests
        sample["store file"] = float(self._store.stat().st_size)
        return sample

    async def _metrics(self) -> Values:
        async with self._http.get(f"{self._url}/metrics") as answer:
            text = await answer.text()
        sums: Values = {}
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                if not one.name.endswith("_bucket"):
                    sums[one.name] = sums.get(one.name, 0.0) + one.value
        self.missing -= sums.keys()
        return sums


def process(name: str, pid: int) -> Values:
    """Resident memory in bytes and open descriptors; empty for a process that has ended."""
    with suppress(OSError):
        # The second field of statm is counted in pages.
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        size = os.sysconf("SC_PAGE_SIZE")
        return {f"{name} rss": float(pages * size), f"{name} fds": float(descriptors)}
    return {}


async def observe(
    observer: Observer, observations: Observations, began_s: float, interval_s: float
) -> None:
    """Sample until cancelled; a sample that fails is a gap."""
    while True:
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            sample = await observer.look()
            observations.add(time.monotonic() - began_s, sample)
        await asyncio.sleep(interval_s)
