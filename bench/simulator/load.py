"""Requests that a simulation serves: a named workload at a steady rate, for a limited time.

Pure. Must not import an engine: commands check loads before they start one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge

from bench.simulator.defaults import LONGEST
from bench.workloads.arrivals import Arrival
from bench.workloads.named import named


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a load is simulated, in seconds of virtual time."""

    from_s: float  # requests that arrive from here
    to_s: float  # to here are measured
    stop_s: float  # no request arrives later


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyLoad:
    """A named workload at a constant rate."""

    workload: str = "arena-hard"  # of `bench.workloads.named`
    rate: float  # requests per second, all instances together
    extent: Extent
    # Seconds per token of the requests that are running at time 0; None: none are.
    token_s: float | None = None
    longest: int = LONGEST  # tokens of prompt and output; longer requests are left out

    def arrivals(self, seed: int | str) -> Iterator[Arrival]:
        """The requests in order of time: the population of a steady state, then new ones."""
        workload = named(self.workload)
        coming = workload.arrivals(self.rate, seed)
        if self.token_s is not None:
            running = workload.under_way(self.rate, self.token_s, seed)
            coming = merge(running, coming, key=lambda arrival: arrival.at_s)
        for arrival in coming:
            if arrival.at_s >= self.extent.stop_s:
                return
            if arrival.longest <= self.longest:
                yield arrival
