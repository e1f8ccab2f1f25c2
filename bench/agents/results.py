"""What the sides are worth: means over seeds, paired differences, and what the figures show.

Pure. Each figure of a side is the mean over its seeds, with a 95% interval under ``intervals``.
Ratios are made for each seed alone, as both sides had the same arrivals.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from bench.agents.experiment import CALLING, PACED, SHORT_CALL, UNPACED, SideRun
from bench.reporting.statistics import SLO_QOE, interval, percentile
from bench.simulator.watermark import share_of, without_share

# A call was held up if it took this much longer than its tokens, at a step's time for each.
_HELD_S, _STEP_S = 2.0, 0.034
LEAST_GAIN = 0.15  # of agents' mean end-to-end time, by CALLING against paced answers
MOST_VIOLATIONS = 0.001  # of the readers under CALLING


def results_of(runs: Sequence[SideRun]) -> dict[str, Any]:
    """Figures of every side by its name, and ``claims`` if the three ways to treat calls ran.

    ``fcfs+watermark`` has the share with the shortest mean TTFT of chats; ``shares`` has the mean
    end-to-end time of agents and the mean TTFT with each of them.
    """
    by_name: dict[str, list[SideRun]] = {}
    for run in runs:
        by_name.setdefault(run.side.name, []).append(run)
    sides = {name: side_result(of_side) for name, of_side in by_name.items()}
    best: dict[str, Any] = {}
    shares: dict[str, Any] = {}
    for name, result in sides.items():
        family = without_share(name)
        share = share_of(name)
        if share is not None:
            result["watermark"] = share
            shares[f"{share:g}"] = {
                "task_e2e_mean_s": result["task_e2e_mean_s"],
                "chat_ttft_mean_s": result["chat_ttft_mean_s"],
            }
        if family not in best or result["chat_ttft_mean_s"] < best[family]["chat_ttft_mean_s"]:
            best[family] = result
    found: dict[str, Any] = {"sides": best}
    if shares:
        found["shares"] = shares
    if {PACED, UNPACED, CALLING} <= set(by_name):
        found["claims"] = claims_of(*(by_name[name] for name in (PACED, UNPACED, CALLING)))
    return found


def mean_e2e_s(run: SideRun) -> float:
    """Mean end-to-end time of a run's tasks, in seconds."""
    return statistics.fmean(task.e2e_s for task in run.tasks)


_FIGURES: Mapping[str, Callable[[SideRun], float]] = {
    "task_e2e_mean_s": mean_e2e_s,
    "task_e2e_p50_s": lambda run: statistics.median(task.e2e_s for task in run.tasks),
    "task_answered_mean_s": lambda run: statistics.fmean(task.answered_s for task in run.tasks),
    "task_calls_mean_s": lambda run: statistics.fmean(task.calls_s for task in run.tasks),
    "task_tools_mean_s": lambda run: statistics.fmean(task.tools_s for task in run.tasks),
    "call_short_wait_s": lambda run: _waits(run, lambda tokens: tokens <= SHORT_CALL),
    "call_long_wait_s": lambda run: _waits(run, lambda tokens: tokens > SHORT_CALL),
    "call_short_token_s": lambda run: _per_token(run, lambda tokens: tokens <= SHORT_CALL),
    "call_long_token_s": lambda run: _per_token(run, lambda tokens: tokens > SHORT_CALL),
    "calls_held": lambda run: statistics.fmean(
        call.wait_s - _STEP_S * call.tokens > _HELD_S for call in run.calls
    ),
    "task_preemptions": lambda run: statistics.fmean(task.preemptions for task in run.tasks),
    "chat_ttft_mean_s": lambda run: statistics.fmean(chat.ttft_s for chat in run.chats),
    "chat_ttft_p99_s": lambda run: percentile(sorted(chat.ttft_s for chat in run.chats), 99),
    "chat_preemptions": lambda run: statistics.fmean(chat.preemptions for chat in run.chats),
    "qoe_mean": lambda run: statistics.fmean(one.qoe for one in run.readers),
    "qoe_least": lambda run: min(one.qoe for one in run.readers),
    "slo_violations": lambda run: statistics.fmean(one.qoe < SLO_QOE for one in run.readers),
    "throughput_tok_s": lambda run: run.throughput_tok_s,
    "busy_share": lambda run: run.busy_share,
    "kv_peak_share": lambda run: run.kv_peak_share,
}


def _waits(run: SideRun, chosen: Callable[[int], bool]) -> float:
    """Mean wait for calls with a chosen number of tokens; NaN if there are none."""
    waits_s = [call.wait_s for call in run.calls if chosen(call.tokens)]
    return statistics.fmean(waits_s) if waits_s else math.nan


def _per_token(run: SideRun, chosen: Callable[[int], bool]) -> float:
    """The same wait for each token, in seconds: a step's time if calls never wait for memory."""
    calls = [call for call in run.calls if chosen(call.tokens)]
    tokens = sum(call.tokens for call in calls)
    return sum(call.wait_s for call in calls) / tokens if tokens else math.nan


def side_result(runs: Sequence[SideRun]) -> dict[str, Any]:
    """Figures of one side.

    ``task_e2e_p99_s`` is of the tasks of all runs together, as one run has too few.
    """
    result: dict[str, Any] = {
        "policy": runs[0].side.policy,
        "calls": runs[0].side.calls,
        "paced": runs[0].side.paced,
        "seeds": [run.seed for run in runs],
        "tasks": sum(len(run.tasks) for run in runs),
        "chats": sum(len(run.chats) for run in runs),
    }
    intervals: dict[str, list[float]] = {}
    for name, figure in _FIGURES.items():
        values = [figure(run) for run in runs]
        result[name] = statistics.fmean(values)
        intervals[name] = list(interval(values))
    e2e_s = sorted(task.e2e_s for run in runs for task in run.tasks)
    result["task_e2e_p99_s"] = percentile(e2e_s, 99)
    result["violations"] = sum(one.qoe < SLO_QOE for run in runs for one in run.readers)
    result["readers"] = sum(len(run.readers) for run in runs)
    result["intervals"] = intervals
    return result


def claims_of(
    paced: Sequence[SideRun], unpaced: Sequence[SideRun], calling: Sequence[SideRun]
) -> dict[str, Any]:
    """What treating calls as calls is worth, against answers that are paced.

    ``gain`` is the part of agents' mean end-to-end time that it saves; ``gain_by_pacing`` and
    ``gain_by_scheduling`` add up to it. All are means over seeds; ``by_seed`` has them for each.
    """
    by_seed = [{run.seed: mean_e2e_s(run) for run in runs} for runs in (paced, unpaced, calling)]
    seeds = list(by_seed[0])
    times_s = [tuple(of[seed] for of in by_seed) for seed in seeds]
    by_pacing = [1 - b / a for a, b, _ in times_s]
    by_scheduling = [(b - c) / a for a, b, c in times_s]
    gains = [1 - c / a for a, _, c in times_s]
    violations = statistics.fmean(_FIGURES["slo_violations"](run) for run in calling)
    gain = statistics.fmean(gains)
    return {
        "seeds": seeds,
        "by_seed": [
            {"seed": seed, "gain": a, "gain_by_pacing": b, "gain_by_scheduling": c}
            for seed, a, b, c in zip(seeds, gains, by_pacing, by_scheduling, strict=True)
        ],
        "gain": gain,
        "gain_by_pacing": statistics.fmean(by_pacing),
        "gain_by_scheduling": statistics.fmean(by_scheduling),
        "intervals": {
            "gain": list(interval(gains)),
            "gain_by_pacing": list(interval(by_pacing)),
            "gain_by_scheduling": list(interval(by_scheduling)),
        },
        "gain_holds": gain >= LEAST_GAIN,
        "slo_violations": violations,
        "slo_holds": violations <= MOST_VIOLATIONS,
    }


def table_of(title: str, results: Mapping[str, Any]) -> Table:
    """One row for each side."""
    table = Table(
        title=title,
        caption="means over seeds, with half of the 95% interval; p99: of all tasks; in calls: "
        "from ends of thoughts to whole calls, per task; preempt: preemptions per task, per chat",
    )
    columns = (
        "agents e2e s",
        "p99 s",
        "in calls",
        "preempt",
        "chat TTFT s",
        "p99 s",
    )
    table.add_column("", no_wrap=True)
    for column in (*columns, "preempt", "QoE", "SLO viol. %", "tok/s"):
        table.add_column(column, justify="right")
    for name, result in results["sides"].items():
        share = result.get("watermark")
        table.add_row(
            name if share is None else f"{without_share(name)} {share:g}",
            _with_spread(result, "task_e2e_mean_s"),
            f"{result['task_e2e_p99_s']:.0f}",
            f"{result['task_calls_mean_s']:.1f}",
            f"{result['task_preemptions']:.2f}",
            _with_spread(result, "chat_ttft_mean_s"),
            f"{result['chat_ttft_p99_s']:.0f}",
            f"{result['chat_preemptions']:.2f}",
            f"{result['qoe_mean']:.4f}",
            f"{100 * result['slo_violations']:.2f}",
            f"{result['throughput_tok_s']:.0f}",
        )
    return table


def verdict_of(claims: Mapping[str, Any]) -> list[str]:
    """The claims in words, one line each."""
    low, high = claims["intervals"]["gain"]
    return [
        f"{_holds(claims['gain_holds'])}: as calls, agents take {100 * claims['gain']:.1f}% less "
        f"time than with paced answers (95% interval {100 * low:.1f} to {100 * high:.1f}%), at "
        f"least {100 * LEAST_GAIN:.0f}% expected",
        f"of it {100 * claims['gain_by_pacing']:.1f} points are by pacing, "
        f"{100 * claims['gain_by_scheduling']:.1f} by scheduling",
        f"{_holds(claims['slo_holds'])}: {100 * claims['slo_violations']:.2f}% of the readers "
        f"miss their SLO, at most {100 * MOST_VIOLATIONS:.1f}% expected",
    ]


def _holds(held: bool) -> str:
    return "holds" if held else "does not hold"


def _with_spread(result: Mapping[str, Any], name: str) -> str:
    low, high = result["intervals"][name]
    return f"{result[name]:.1f} ± {(high - low) / 2:.1f}"
