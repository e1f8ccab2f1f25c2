"""What the benchmark needs of the machine, and what the kernel says about a process."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from bench.reporting.errors import BenchmarkError

BUSY: Final = 0.8  # share of a core above which a process may be the bottleneck
CROWDED: Final = 0.1  # share of the time in which a process waits for its core: others use it

_SPARE_DESCRIPTORS = 200  # of a process, beside its streams


@dataclass(frozen=True, slots=True)
class Cores:
    """Where processes run; None: anywhere, because there is only one core."""

    server: int | None  # the gateway, and what it is compared with, alone
    clients: int | None  # readers and scripted workers

    @classmethod
    def of_machine(cls) -> Self:
        """The first and the last core that this process may use."""
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[-1]) if len(cores) > 1 else cls(None, None)


def allow_streams(count: int) -> None:
    """Raise the limit on open files; child processes inherit it.

    :raises BenchmarkError: if the machine does not allow so many.
    """
    wanted = count + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BenchmarkError(
            f"{count} streams need {wanted} open files in one process, and the hard limit is "
            f"{hard} (ulimit -Hn); take fewer with --streams"
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass(frozen=True, slots=True)
class Usage:
    """A reading of a process's clocks, in seconds."""

    now_s: float
    cpu_s: float  # of all its threads, user and system
    waited_s: float  # ready to run, but another process had the core

    @classmethod
    def of(cls, pid: int) -> Self:
        """Read them now. The kernel counts nanoseconds (``schedstat``)."""
        ran_ns = waited_ns = 0
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                ran, waited, _ = (thread / "schedstat").read_text(encoding="ascii").split()
                ran_ns += int(ran)
                waited_ns += int(waited)
        return cls(time.monotonic(), ran_ns / 1e9, waited_ns / 1e9)

    def share_since(self, before: Usage) -> float:
        """Share of one core since an earlier reading."""
        return (self.cpu_s - before.cpu_s) / (self.now_s - before.now_s)

    def waited_share_since(self, before: Usage) -> float:
        """Share of the time in which it waited for its core."""
        return (self.waited_s - before.waited_s) / (self.now_s - before.now_s)


def rss_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise BenchmarkError(f"/proc/{pid}/smaps_rollup has no line Rss")
