"""CPU time, lateness and memory of a crowd's processes, and the cores that they run on."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from array import array
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.crowd.outcomes import quantile
from tests.soak.growth.observations import process

_PROBE_S = 0.02
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_LATE_MS = 20.0  # a client that is later than this at p99 is itself a bottleneck
_BUSY = 0.8  # share of their cores at which clients and workers are one
_STRANGERS = 0.3  # the same of other programs


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores the gateway has, and which the clients and the workers; empty: not pinned."""

    gateway: frozenset[int] = frozenset()
    others: frozenset[int] = frozenset()

    @classmethod
    def divided(cls) -> Cores:
        """The first core for the gateway and the rest for all else, if there are two or more."""
        first, *others = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(others)) if others else cls()

    @staticmethod
    def pin(pid: int, cores: frozenset[int]) -> None:
        """Move all threads of a process; 0: this process, and what it starts from now on."""
        if not cores:
            return
        for thread in os.listdir(f"/proc/{pid or os.getpid()}/task"):
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cores)


@dataclass(slots=True)
class Measure:
    """Measures from `begin` to `end`.

    :param pids: of the processes by name: ``gateway``, and those that are not this one.
    """

    pids: dict[str, int]
    cores: Cores
    peak_bytes: float = 0.0  # of the gateway's resident memory
    _lates_ms: array[float] = field(default_factory=lambda: array("d"))
    _began: dict[str, float] = field(default_factory=dict)

    def begin(self) -> None:
        """Start to measure, and keep this process free of long garbage collections."""
        gc.collect()
        gc.freeze()
        self._began = self._readings()

    async def watch(self) -> None:
        """Note how late this process is, and the gateway's memory, until cancelled."""
        clock = asyncio.get_running_loop().time
        looked_s = 0.0
        while True:
            due_s = clock() + _PROBE_S
            await asyncio.sleep(_PROBE_S)
            self._lates_ms.append((clock() - due_s) * 1000)
            if due_s - looked_s > 1.0:
                looked_s = due_s
                resident = process("gateway", self.pids["gateway"]).get("gateway rss", 0.0)
                self.peak_bytes = max(self.peak_bytes, resident)

    def end(self) -> dict[str, float]:
        """Shares of one core, milliseconds and bytes."""
        began, ended = self._began, self._readings()
        passed = {name: ended[name] - began[name] for name in ended}
        wall_s = passed.pop("wall")
        results = {
            "seconds": wall_s,
            "client late p99 ms": quantile(self._lates_ms, 0.99),
            "client late max ms": max(self._lates_ms, default=0.0),
            "gateway rss begin MiB": began["rss"] / 2**20,
            "gateway rss peak MiB": self.peak_bytes / 2**20,
            "gateway rss end MiB": ended["rss"] / 2**20,
        }
        passed.pop("rss")
        for name in ("client", *self.pids):
            results[f"{name} cpu"] = passed[name] / wall_s
        if self.cores.others:
            results["gateway's cores busy"] = passed["gateway's cores"] / wall_s
            results["other cores busy"] = passed["other cores"] / wall_s / len(self.cores.others)
        return results

    def _readings(self) -> dict[str, float]:
        readings = {"wall": time.monotonic(), "client": time.process_time()}
        readings |= {name: _cpu_s(pid) for name, pid in self.pids.items()}
        readings["rss"] = process("gateway", self.pids["gateway"]).get("gateway rss", 0.0)
        readings["gateway's cores"] = _busy_s(self.cores.gateway)
        readings["other cores"] = _busy_s(self.cores.others)
        return readings


def bottlenecks(measured: dict[str, float], cores: int = 1) -> list[str]:
    """Reasons why something else than the gateway may have caused a low QoE.

    :param cores: of clients and workers.
    """
    lines = []
    late_ms = measured["client late p99 ms"]
    if late_ms > _LATE_MS:
        lines.append(f"the clients' loop was late by {late_ms:.0f} ms at p99")
    gateway = measured["gateway cpu"]
    others = sum(
        share for name, share in measured.items() if name.startswith(("client cpu", "worker"))
    )
    if others / cores > _BUSY:
        lines.append(f"clients and workers took {others / cores:.0%} of their cores")
    for name, used in (("gateway's cores", gateway), ("other cores", others / cores)):
        strangers = measured.get(f"{name} busy", 0.0) - used
        if strangers > _STRANGERS:
            lines.append(f"other programs took {strangers:.0%} of the {name}")
    return lines


def _cpu_s(pid: int) -> float:
    """User and system time of a process; 0 if it has ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S
    return 0.0


def _busy_s(cores: frozenset[int]) -> float:
    """Time that these cores were not idle, summed, by whichever program."""
    busy = 0
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *ticks = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in cores:
            user, niced, system, _idle, _waiting, *others = map(int, ticks[:8])
            busy += user + niced + system + sum(others)
    return busy * _TICK_S
