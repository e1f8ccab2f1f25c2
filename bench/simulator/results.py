"""Results of scheduling policies under the same arrivals, from several runs of each policy.

Pure. A run is one policy under the arrivals of one seed. An overloaded system is chaotic, so that
results are means over runs, each with an interval. Names are those of `bench.load.measure`.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from bench.reporting.statistics import SLO_QOE, interval, percentile, summarize
from bench.simulator.timeline import RequestMetrics, TaskMetrics
from bench.simulator.watermark import share_of, without_share

ORACLE = "oracle"  # vLLM's own order with memory for every request
BIN_TOKENS = 512  # reasoning tokens in a bin
LEAST_REQUESTS = 50  # in a bin with a ratio to the oracle
_Run = TypeVar("_Run", bound="PolicyRun | ClusterRunLike")
_SUMMARIES = ("ttft_s", "ttfat_s", "tpot_s", "e2e_s", "qoe")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRun:
    """One policy under the arrivals of one seed."""

    policy: str
    seed: int
    requests: Sequence[RequestMetrics]  # the measured ones, all finished
    throughput_tok_s: float  # generated tokens per second of the window
    generated_tokens: int  # this and the rest: of all requests, measured or not
    recomputed_tokens: int  # of KV that was lost to preemptions
    reloaded_tokens: int  # of KV from the host
    kv_peak_blocks: int  # the largest use on one instance

    def ttft_p99_by_bin(self) -> dict[int, tuple[int, float]]:
        """By the first length of each bin: the number of its requests, and their p99 TTFT in s."""
        bins: defaultdict[int, list[float]] = defaultdict(list)
        for request in self.requests:
            first = request.reasoning_tokens // BIN_TOKENS * BIN_TOKENS
            bins[first].append(request.ttft_s)
        return {
            first: (len(values), percentile(sorted(values), 99))
            for first, values in sorted(bins.items())
        }

    def to_json(self) -> dict[str, Any]:
        """The values for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PolicyRun:
        """Inverse of `to_json`."""
        requests = [RequestMetrics(**request) for request in values.pop("requests")]
        return cls(requests=requests, **values)


def best_watermark(
    runs: Mapping[tuple[str, ...], Sequence[_Run]],
) -> dict[tuple[str, ...], Sequence[_Run]]:
    """The runs of each label, and of ``fcfs+watermark`` those with the best share alone.

    Best is the shortest mean TTFT, averaged over the runs. `policy_result` tells which it was.

    :param runs: by label; one part of a label is the policy.
    """
    best: dict[tuple[str, ...], Sequence[_Run]] = {}
    for label, of_label in runs.items():
        name = tuple(map(without_share, label))
        if name not in best or _ttft_s(of_label) < _ttft_s(best[name]):
            best[name] = of_label
    return best


def _ttft_s(runs: Sequence[PolicyRun | ClusterRunLike]) -> float:
    """Mean TTFT."""
    return statistics.fmean(
        _mean(run if isinstance(run, PolicyRun) else run.run, lambda request: request.ttft_s)
        for run in runs
    )


def policy_title(policy: str, result: Mapping[str, Any]) -> str:
    """The policy as tables show it, such as ``fcfs+watermark 0.02``.

    :param result: of the policy, as `policy_result` returns it.
    """
    watermark = result.get("watermark")
    return policy if watermark is None else f"{policy} {watermark:g}"


class ClusterRunLike(Protocol):
    """A record of one run of a cluster."""

    @property
    def run(self) -> PolicyRun:
        """Its requests and tokens."""

    @property
    def migrations(self) -> int:
        """Number of requests that changed instances."""


def policy_result(runs: Sequence[PolicyRun], oracle: Sequence[PolicyRun]) -> dict[str, Any]:
    """Means over the runs of one policy, with 95% intervals of the mean under ``intervals``.

    :param oracle: the oracle's runs; a seed without one has no ratio.
    """
    result: dict[str, Any] = {"completed": sum(len(run.requests) for run in runs), "failed": 0}
    intervals: dict[str, list[float]] = {}

    def over_runs(name: str, value: Callable[[PolicyRun], float | None]) -> float | None:
        values = [number for run in runs if (number := value(run)) is not None]
        if not values:
            return None
        intervals[name] = list(interval(values))
        return statistics.fmean(values)

    for name in _SUMMARIES:
        summaries = {
            run.seed: summarize(getattr(request, name) for request in run.requests) for run in runs
        }
        result[name] = {
            key: over_runs(f"{name}.{key}", lambda run, by=summaries, k=key: by[run.seed][k])  # type: ignore[misc]
            for key in ("mean", "p50", "p95", "p99", "min", "max")
        }
    if (share := share_of(runs[0].policy)) is not None:
        result["watermark"] = share
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
        result[name] = over_runs(name, value)
    result |= _bins(runs, oracle, intervals)
    result["seeds"] = [run.seed for run in runs]
    result["intervals"] = intervals
    return result


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


def tasks_result(runs: Sequence[Sequence[TaskMetrics]]) -> dict[str, Any]:
    """What agents experience, as means over the runs; empty if no run has a task.

    ``tasks`` is the number in all runs.
    """
    tasks = [run for run in runs if run]
    if not tasks:
        return {}
    result: dict[str, Any] = {"tasks": sum(map(len, tasks))}
    for name in ("e2e_s", "answered_s", "tools_s", "calls_s", "rounds", "preemptions"):
        summaries = [summarize(getattr(task, name) for task in run) for run in tasks]
        result[f"task_{name}"] = {
            key: statistics.fmean(number for one in summaries if (number := one[key]) is not None)
            for key in summaries[0]
        }
    return result


def _bins(
    runs: Sequence[PolicyRun], oracle: Sequence[PolicyRun], intervals: dict[str, list[float]]
) -> dict[str, Any]:
    """Results by bin; the keys are ranges such as ``0-511``."""
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
