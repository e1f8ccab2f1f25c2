"""Figures of scheduling policies under the same arrivals: several runs of each, one result.

Pure. A run is a policy under one seed's arrivals. An overloaded system is chaotic: figures are
means over runs, each with its interval. Names are those of `bench.load.measure`.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from bench.reporting.statistics import SLO_QOE, interval, percentile, summarize
from bench.simulator.timeline import RequestMetrics

ORACLE = "oracle"  # vLLM's own order with memory for everybody
BIN_TOKENS = 512  # of reasoning
LEAST_REQUESTS = 50  # in a bin whose ratio to the oracle is told
_SUMMARIES = ("ttft_s", "ttfat_s", "tpot_s", "e2e_s", "qoe")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRun:
    """One policy under the arrivals of one seed."""

    policy: str
    seed: int
    requests: Sequence[RequestMetrics]  # the measured ones; all are finished
    throughput_tok_s: float  # generated
    generated_tokens: int  # of all requests, measured or not, as the rest
    recomputed_tokens: int  # KV that preemptions had lost
    reloaded_tokens: int
    kv_peak_blocks: int  # largest use on one instance

    def ttft_p99_by_bin(self) -> dict[int, tuple[int, float]]:
        """First reasoning length of a bin -> requests in it, their p99 TTFT in seconds."""
        bins: defaultdict[int, list[float]] = defaultdict(list)
        for request in self.requests:
            first = request.reasoning_tokens // BIN_TOKENS * BIN_TOKENS
            bins[first].append(request.ttft_s)
        return {
            first: (len(values), percentile(sorted(values), 99))
            for first, values in sorted(bins.items())
        }

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PolicyRun:
        """Inverse of `to_json`."""
        requests = [RequestMetrics(**request) for request in values.pop("requests")]
        return cls(requests=requests, **values)


class ClusterRunLike(Protocol):
    """Any record of one run of a cluster."""

    @property
    def run(self) -> PolicyRun:
        """What its requests and engines did."""

    @property
    def migrations(self) -> int:
        """Requests that changed instances."""


def policy_result(runs: Sequence[PolicyRun], oracle: Sequence[PolicyRun]) -> dict[str, Any]:
    """Means over the runs of one policy, with 95% intervals of the mean under ``intervals``.

    :param oracle: the oracle's runs; where it has none under a seed, that seed has no ratio.
    """
    figures: dict[str, Any] = {"completed": sum(len(run.requests) for run in runs), "failed": 0}
    intervals: dict[str, list[float]] = {}

    def over_runs(name: str, value: Callable[[PolicyRun], float | None]) -> float | None:
        values = [found for run in runs if (found := value(run)) is not None]
        if not values:
            return None
        intervals[name] = list(interval(values))
        return statistics.fmean(values)

    for name in _SUMMARIES:
        summaries = {
            run.seed: summarize(getattr(request, name) for request in run.requests) for run in runs
        }
        figures[name] = {
            key: over_runs(f"{name}.{key}", lambda run, by=summaries, k=key: by[run.seed][k])  # type: ignore[misc]
            for key in ("mean", "p50", "p95", "p99", "min", "max")
        }
    scalars: dict[str, Callable[[PolicyRun], float]] = {
        "throughput_tok_s": lambda run: run.throughput_tok_s,
        "slo_violations": lambda run: _share(run, lambda r: r.qoe < SLO_QOE),
        "slo_violations_ttfat": lambda run: _share(run, lambda r: r.qoe_ttfat < SLO_QOE),
        "preemptions_per_request": lambda run: _mean(run, lambda r: r.preemptions),
        "preemptions_most": lambda run: max(r.preemptions for r in run.requests),
        "resumes_per_request": lambda run: _mean(run, lambda r: r.resumes),
        "underruns": lambda run: sum(r.underruns for r in run.requests),
        "underruns_by_preemption": lambda run: sum(r.underruns_by_preemption for r in run.requests),
        "recomputed_tokens": lambda run: run.recomputed_tokens,
        "reloaded_tokens": lambda run: run.reloaded_tokens,
    }
    for name, value in scalars.items():
        figures[name] = over_runs(name, value)
    figures |= _bins(runs, oracle, intervals)
    figures["seeds"] = [run.seed for run in runs]
    figures["intervals"] = intervals
    return figures


def cluster_result(runs: Sequence[ClusterRunLike], oracle: Sequence[PolicyRun]) -> dict[str, Any]:
    """`policy_result`, and what requests did at the phase boundary, as means over the runs.

    ``boundary_blocking_p99_s`` is the p99 of the time from the boundary to the first answering
    token; ``migrations`` are those of one run.
    """
    waits = [sorted(request.ttfat_s for request in run.run.requests) for run in runs]
    return {
        **policy_result([run.run for run in runs], oracle),
        "boundary_blocking_p99_s": statistics.fmean(percentile(wait, 99) for wait in waits),
        "migrations": statistics.fmean(run.migrations for run in runs),
    }


def _bins(
    runs: Sequence[PolicyRun], oracle: Sequence[PolicyRun], intervals: dict[str, list[float]]
) -> dict[str, Any]:
    """By the bins' ranges, such as ``0-511``."""
    oracle_bins = {run.seed: run.ttft_p99_by_bin() for run in oracle}
    seconds: defaultdict[int, list[float]] = defaultdict(list)
    counts: defaultdict[int, int] = defaultdict(int)
    ratios: defaultdict[int, list[float]] = defaultdict(list)
    for run in runs:
        for first, (count, p99_s) in run.ttft_p99_by_bin().items():
            seconds[first].append(p99_s)
            counts[first] += count
            best = oracle_bins.get(run.seed, {}).get(first)
            if best is not None and count >= LEAST_REQUESTS:
                ratios[first].append(p99_s / best[1])
    for first, values in ratios.items():
        intervals[f"ttft_p99_to_oracle.{_range(first)}"] = list(interval(values))
    return {
        "ttft_p99_by_bin": {_range(b): statistics.fmean(seconds[b]) for b in sorted(seconds)},
        "requests_by_bin": {_range(b): counts[b] for b in sorted(counts)},
        "ttft_p99_to_oracle": {_range(b): statistics.fmean(ratios[b]) for b in sorted(ratios)},
    }


def _range(first: int) -> str:
    return f"{first}-{first + BIN_TOKENS - 1}"


def _share(run: PolicyRun, condition: Callable[[RequestMetrics], bool]) -> float:
    return sum(map(condition, run.requests)) / len(run.requests)


def _mean(run: PolicyRun, value: Callable[[RequestMetrics], float]) -> float:
    return statistics.fmean(map(value, run.requests))
