"""Computes the results of the reproduction from its runs.

Pure. Names are those of `bench.simulator.results.cluster_result`. For every policy there is also:

    transfers_s   p50, p99 and maximum of the KV transfers between instances
    attainment    shares of the requests that reach a target: ttfat (0.25 s), tpot (0.1 s, of the
                  engine's generation), qoe (0.95), and all of these
    splits        by bin of reasoning tokens and by phase: mean seconds executed, blocked and
                  preempted
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.paper.cases import WORKLOADS
from bench.paper.outcome import PaperRun
from bench.paper.sections import SWEPT, Label, Scope
from bench.reporting.statistics import SLO_QOE, percentile
from bench.simulator.results import (
    BIN_TOKENS,
    ORACLE,
    best_watermark,
    cluster_result,
    policy_result,
)
from bench.simulator.spans import Split
from bench.simulator.timeline import TAU_S, TTFAT_S, RequestMetrics

Runs = Mapping[Label, Sequence[PaperRun]]
_ABLATED = SWEPT  # workload of the headlines of the ablations


def result_of(runs: Sequence[PaperRun], oracle: Sequence[PaperRun] = ()) -> dict[str, Any]:
    """Result of one policy under several seeds, as the module docstring describes it."""
    result = cluster_result(runs, [run.run for run in oracle])
    result["transfers_s"] = _quantiles([s for run in runs for s in run.transfers_s])
    result["attainment"] = _attainment(runs)
    result["splits"] = _splits(runs)
    return result


def results_of(scope: Scope, runs: Mapping[str, Runs]) -> dict[str, Any]:
    """All results of the command.

    The top level has the workloads, each by load and policy, the ``scope``, the number of
    ``seeds``, and the paper's ``headlines`` if their sections were run. ``experiments`` has all
    other results by section.

    :param runs: of each section that was asked for; with each share of ``fcfs+watermark``.
    """
    runs = {name: best_watermark(of_section) for name, of_section in runs.items()}
    results: dict[str, Any] = {
        "scope": scope.name,
        "seeds": {"all": len(scope.seeds), "sweeps": len(scope.sweep_seeds)},
    }
    for section in ("evaluation", "mixes"):
        results |= by_label(runs.get(section, {}))
    if "evaluation" in runs and "ablations" in runs:
        results["headlines"] = headlines(scope, runs["evaluation"], runs["ablations"])
    experiments: dict[str, Any] = {
        name: by_label(section)
        for name, section in runs.items()
        if name not in ("evaluation", "mixes")
    }
    if "evaluation" in runs:
        experiments["reductions"] = _reductions(scope, runs["evaluation"])
    if "load" in runs:
        experiments["load_reductions"] = _load_reductions(scope, runs["load"])
    if "characterisation" in runs:
        experiments["inflation"] = inflation(scope, runs["characterisation"])
    results["experiments"] = experiments
    return results


def by_label(runs: Runs) -> dict[str, Any]:
    """Results nested by the parts of their labels; with ratios if the oracle has the same label."""
    results: dict[str, Any] = {}
    for label, of_seeds in runs.items():
        place = results
        for part in label[:-1]:
            place = place.setdefault(part, {})
        place[label[-1]] = result_of(of_seeds, runs.get((*label[:-1], ORACLE), ()))
    return results


def headlines(scope: Scope, evaluation: Runs, ablations: Runs) -> dict[str, Any]:
    """The paper's headlines from our runs; except for reductions, the worse of both workloads."""
    high = {w: {p: evaluation[w, "high", p] for p in ("fcfs", "rr", "pascal")} for w in WORKLOADS}
    return {
        "fcfs_reduction": {w: _best_reduction(scope, evaluation, w, "fcfs") for w in WORKLOADS},
        "rr_reduction": {w: _best_reduction(scope, evaluation, w, "rr") for w in WORKLOADS},
        "slo_violations_pascal": max(violations(high[w]["pascal"]) for w in WORKLOADS),
        "throughput_ratio": min(_throughput(high[w]) for w in WORKLOADS),
        "no_migration_blocking_p99_s": result_of(ablations[_ABLATED, "no_migration"])[
            "boundary_blocking_p99_s"
        ],
        "non_adaptive_slo_violations": violations(ablations[_ABLATED, "non_adaptive"]),
        "worst_request_s": {
            other: max(_worst(high[w]["pascal"], high[w][other]) for w in WORKLOADS)
            for other in ("fcfs", "rr")
        },
        "transfers_p99_s": {
            w: _quantiles([s for run in high[w]["pascal"] for s in run.transfers_s])["p99"]
            for w in WORKLOADS
        },
        "non_adaptive_e2e": {
            name: _e2e(ablations[_ABLATED, "non_adaptive"], percent)
            / _e2e(high[_ABLATED]["pascal"], percent)
            - 1
            for name, percent in (("median", 50), ("p99", 99))
        },
    }


def inflation(scope: Scope, runs: Runs) -> dict[str, dict[str, float]]:
    """Mean TTFT as a multiple of the oracle's, by policy and bin, over all seeds."""
    best = _by_bin(request for run in runs[(ORACLE,)] for request in run.run.requests)
    ratios: dict[str, dict[str, float]] = {}
    for (policy,), of_seeds in runs.items():
        bins = _by_bin(request for run in of_seeds for request in run.run.requests)
        ratios[policy] = {
            bin_name(first): statistics.fmean(r.ttft_s for r in requests)
            / statistics.fmean(r.ttft_s for r in best[first])
            for first, requests in sorted(bins.items())
            if len(requests) >= scope.least_requests
        }
    return ratios


def violations(runs: Sequence[PaperRun]) -> float:
    """Share of the requests with a QoE below 0.95, averaged over the runs."""
    return statistics.fmean(
        sum(request.qoe < SLO_QOE for request in run.run.requests) / len(run.run.requests)
        for run in runs
    )


def reductions(
    scope: Scope, pascal: Sequence[PaperRun], other: Sequence[PaperRun]
) -> dict[str, float]:
    """Share by which the p99 TTFT is below another policy's, by bin.

    Only bins with ``scope.least_requests`` per run count.
    """
    ours, theirs = (policy_result([run.run for run in runs], []) for runs in (pascal, other))
    return {
        name: 1 - ours["ttft_p99_by_bin"][name] / theirs["ttft_p99_by_bin"][name]
        for name, count in ours["requests_by_bin"].items()
        if count >= scope.least_requests * len(pascal)
    }


def bin_name(first: int) -> str:
    """Name of a bin, such as ``0-511``."""
    return f"{first}-{first + BIN_TOKENS - 1}"


def _reductions(scope: Scope, runs: Runs) -> dict[str, Any]:
    """`reductions` by workload, load and other policy."""
    by_workload: dict[str, Any] = {}
    for workload, load, policy in runs:
        if policy == "pascal":
            by_workload.setdefault(workload, {})[load] = {
                other: reductions(
                    scope, runs[workload, load, "pascal"], runs[workload, load, other]
                )
                for other in ("fcfs", "rr")
            }
    return by_workload


def _load_reductions(scope: Scope, runs: Runs) -> dict[str, dict[str, float | None]]:
    """The reduction in the best bin, by other policy and utilisation."""
    loads = [load for policy, load in runs if policy == "pascal"]
    return {
        other: {
            load: max(
                reductions(scope, runs["pascal", load], runs[other, load]).values(), default=None
            )
            for load in loads
        }
        for other in ("fcfs", "rr")
    }


def _best_reduction(scope: Scope, runs: Runs, workload: str, other: str) -> float | None:
    """The best of all loads and bins, the paper's "up to"; None if no bin has enough requests."""
    shares: list[float] = []
    for (run_workload, load, policy), of_seeds in runs.items():
        if run_workload == workload and policy == "pascal":
            shares += reductions(scope, of_seeds, runs[workload, load, other]).values()
    return max(shares, default=None)


def _throughput(by_policy: Mapping[str, Sequence[PaperRun]]) -> float:
    ours, theirs = (
        statistics.fmean(run.run.throughput_tok_s for run in by_policy[policy])
        for policy in ("pascal", "fcfs")
    )
    return ours / theirs


def _worst(pascal: Sequence[PaperRun], other: Sequence[PaperRun]) -> float:
    """Largest increase of one request's TTFT against the same request under another policy, s."""
    pairs = zip(pascal, other, strict=True)
    return max(
        ours.ttft_s - theirs.ttft_s
        for one, two in pairs
        for ours, theirs in zip(one.run.requests, two.run.requests, strict=True)
    )


def _e2e(runs: Sequence[PaperRun], percent: float) -> float:
    return statistics.fmean(
        percentile(sorted(request.e2e_s for request in run.run.requests), percent) for run in runs
    )


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    ordered = sorted(values)
    if not ordered:
        return {"p50": None, "p99": None, "max": None}
    return {
        "p50": percentile(ordered, 50),
        "p99": percentile(ordered, 99),
        "max": ordered[-1],
    }


def _attainment(runs: Sequence[PaperRun]) -> dict[str, float]:
    kept = [
        (
            request.ttfat_s <= TTFAT_S,
            tpot_s is None or tpot_s <= TAU_S,
            request.qoe >= SLO_QOE,
        )
        for run in runs
        for request, tpot_s in zip(run.run.requests, run.generation_tpot_s, strict=True)
    ]
    shares = [sum(column) / len(kept) for column in zip(*kept, strict=True)]
    return {
        **dict(zip(("ttfat", "tpot", "qoe"), shares, strict=True)),
        "all": sum(map(all, kept)) / len(kept),
    }


def _splits(runs: Sequence[PaperRun]) -> dict[str, dict[str, dict[str, float]]]:
    by_bin: defaultdict[int, list[tuple[Split, Split]]] = defaultdict(list)
    for run in runs:
        for request, *phases in zip(run.run.requests, run.reasoning, run.answering, strict=True):
            by_bin[_bin(request)].append((phases[0], phases[1]))
    return {
        bin_name(first): {
            phase: {
                part: statistics.fmean(getattr(pair[index], f"{part}_s") for pair in pairs)
                for part in ("executed", "blocked", "preempted")
            }
            for index, phase in enumerate(("reasoning", "answering"))
        }
        | {"requests": {"count": float(len(pairs))}}
        for first, pairs in sorted(by_bin.items())
    }


def _bin(request: RequestMetrics) -> int:
    return request.reasoning_tokens // BIN_TOKENS * BIN_TOKENS


def _by_bin(requests: Iterable[RequestMetrics]) -> dict[int, list[RequestMetrics]]:
    bins: defaultdict[int, list[RequestMetrics]] = defaultdict(list)
    for request in requests:
        bins[_bin(request)].append(request)
    return bins
