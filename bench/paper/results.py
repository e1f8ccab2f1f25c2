"""From the runs of the reproduction to its figures.

Pure. Names are those of `bench.simulator.results.policy_result`, to which is added, for every
policy:

    boundary_blocking_p99_s   from the boundary to the first answering token
    migrations                a run; transfers_s: p50, p99 and most of what their KV took
    attainment                shares of the requests: ttfat (within 0.25 s), tpot (of the engine's
                              generation, within 0.1 s), qoe (0.95 and more), all of them
    splits                    by bin of reasoning tokens and phase: mean seconds executed, blocked
                              and preempted
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.paper.cases import WORKLOADS
from bench.paper.outcome import PaperRun
from bench.paper.plan import SWEPT, Label, Scope
from bench.reporting.statistics import SLO_QOE, percentile
from bench.simulator.results import BIN_TOKENS, ORACLE, policy_result
from bench.simulator.spans import Split
from bench.simulator.timeline import TAU_S, TTFAT_S, RequestFigures

Runs = Mapping[Label, Sequence[PaperRun]]
_ABLATED = SWEPT  # the headlines of the ablations


def result_of(runs: Sequence[PaperRun], oracle: Sequence[PaperRun] = ()) -> dict[str, Any]:
    """Of one policy under several seeds; the module docstring says what is in it."""
    result = policy_result([run.run for run in runs], [run.run for run in oracle])
    waits = [sorted(request.ttfat_s for request in run.run.requests) for run in runs]
    result["boundary_blocking_p99_s"] = statistics.fmean(percentile(w, 99) for w in waits)
    result["migrations"] = statistics.fmean(run.migrations for run in runs)
    result["transfers_s"] = _quantiles([s for run in runs for s in run.transfers_s])
    result["attainment"] = _attainment(runs)
    result["splits"] = _splits(runs)
    return result


def results_of(scope: Scope, found: Mapping[str, Runs]) -> dict[str, Any]:
    """Everything that the command tells.

    At the top the workloads, each by load and policy; ``headlines``, the paper's, where the
    sections that they come from were run; ``scope``, which says ``quick`` if it was; the number of
    ``seeds``; and under ``experiments`` everything else, by section.

    :param found: the runs of each section that was asked for.
    """
    results: dict[str, Any] = {
        "scope": scope.name,
        "seeds": {"all": len(scope.seeds), "sweeps": len(scope.sweep_seeds)},
    }
    for section in ("evaluation", "mixes"):
        results |= by_label(found.get(section, {}))
    if "evaluation" in found and "ablations" in found:
        results["headlines"] = headlines(scope, found["evaluation"], found["ablations"])
    experiments: dict[str, Any] = {
        name: by_label(runs) for name, runs in found.items() if name not in ("evaluation", "mixes")
    }
    if "evaluation" in found:
        experiments["reductions"] = _reductions(scope, found["evaluation"])
    if "load" in found:
        experiments["load_reductions"] = _load_reductions(scope, found["load"])
    if "characterisation" in found:
        experiments["inflation"] = inflation(scope, found["characterisation"])
    results["experiments"] = experiments
    return results


def by_label(runs: Runs) -> dict[str, Any]:
    """A result for each label, nested by its parts; ratios where there is an oracle beside it."""
    found: dict[str, Any] = {}
    for label, of_seeds in runs.items():
        place = found
        for part in label[:-1]:
            place = place.setdefault(part, {})
        place[label[-1]] = result_of(of_seeds, runs.get((*label[:-1], ORACLE), ()))
    return found


def headlines(scope: Scope, evaluation: Runs, ablations: Runs) -> dict[str, Any]:
    """The paper's, from our runs; of all but the reductions the worst of both workloads."""
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
    """Mean TTFT as a multiple of the oracle's, by policy and bin, over all seeds together."""
    best = _by_bin(request for run in runs[(ORACLE,)] for request in run.run.requests)
    found: dict[str, dict[str, float]] = {}
    for (policy,), of_seeds in runs.items():
        bins = _by_bin(request for run in of_seeds for request in run.run.requests)
        found[policy] = {
            bin_name(first): statistics.fmean(r.ttft_s for r in requests)
            / statistics.fmean(r.ttft_s for r in best[first])
            for first, requests in sorted(bins.items())
            if len(requests) >= scope.least_requests
        }
    return found


def violations(runs: Sequence[PaperRun]) -> float:
    """Share of the requests below a QoE of 0.95, mean over the runs."""
    return statistics.fmean(
        sum(request.qoe < SLO_QOE for request in run.run.requests) / len(run.run.requests)
        for run in runs
    )


def reductions(
    scope: Scope, pascal: Sequence[PaperRun], other: Sequence[PaperRun]
) -> dict[str, float]:
    """By how much the p99 TTFT is below another policy's, by bin with enough requests a run."""
    mine, its = (policy_result([run.run for run in runs], []) for runs in (pascal, other))
    return {
        name: 1 - mine["ttft_p99_by_bin"][name] / its["ttft_p99_by_bin"][name]
        for name, count in mine["requests_by_bin"].items()
        if count >= scope.least_requests * len(pascal)
    }


def bin_name(first: int) -> str:
    """Such as ``0-511``."""
    return f"{first}-{first + BIN_TOKENS - 1}"


def _reductions(scope: Scope, runs: Runs) -> dict[str, Any]:
    """By workload, load and other policy: `reductions`."""
    found: dict[str, Any] = {}
    for workload, load, policy in runs:
        if policy == "pascal":
            found.setdefault(workload, {})[load] = {
                other: reductions(
                    scope, runs[workload, load, "pascal"], runs[workload, load, other]
                )
                for other in ("fcfs", "rr")
            }
    return found


def _load_reductions(scope: Scope, runs: Runs) -> dict[str, dict[str, float | None]]:
    """By other policy and utilisation: the best bin's."""
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
    """Over loads and bins, as the paper's "up to"; None if no bin has enough requests."""
    found: list[float] = []
    for (its_workload, load, policy), of_seeds in runs.items():
        if its_workload == workload and policy == "pascal":
            found += reductions(scope, of_seeds, runs[workload, load, other]).values()
    return max(found, default=None)


def _throughput(by_policy: Mapping[str, Sequence[PaperRun]]) -> float:
    mine, its = (
        statistics.fmean(run.run.throughput_tok_s for run in by_policy[policy])
        for policy in ("pascal", "fcfs")
    )
    return mine / its


def _worst(pascal: Sequence[PaperRun], other: Sequence[PaperRun]) -> float:
    """Most seconds that one request's TTFT is above its own under another policy."""
    pairs = zip(pascal, other, strict=True)
    return max(
        mine.ttft_s - its.ttft_s
        for one, two in pairs
        for mine, its in zip(one.run.requests, two.run.requests, strict=True)
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
    found: defaultdict[int, list[tuple[Split, Split]]] = defaultdict(list)
    for run in runs:
        for request, *phases in zip(run.run.requests, run.reasoning, run.answering, strict=True):
            found[_bin(request)].append((phases[0], phases[1]))
    return {
        bin_name(first): {
            phase: {
                part: statistics.fmean(getattr(pair[index], f"{part}_s") for pair in pairs)
                for part in ("executed", "blocked", "preempted")
            }
            for index, phase in enumerate(("reasoning", "answering"))
        }
        | {"requests": {"count": float(len(pairs))}}
        for first, pairs in sorted(found.items())
    }


def _bin(request: RequestFigures) -> int:
    return request.reasoning_tokens // BIN_TOKENS * BIN_TOKENS


def _by_bin(requests: Iterable[RequestFigures]) -> dict[int, list[RequestFigures]]:
    found: defaultdict[int, list[RequestFigures]] = defaultdict(list)
    for request in requests:
        found[_bin(request)].append(request)
    return found
