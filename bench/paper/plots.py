"""Plots of the evaluation and of our experiments, as PNG files for the documentation.

Draws results as `bench.paper.results.results_of` returns them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.reporting.plots import COLOURS, save
from bench.simulator.results import ORACLE

Results = Mapping[str, Any]
_LEAST_REQUESTS = 15  # in each drawn bin


def tail_ttft(results: Results, workloads: tuple[str, ...], path: Path) -> None:
    """Draw p99 TTFT by bin of reasoning length, with a panel for each workload and load."""
    loads = list(results[workloads[0]])
    figure = Figure(figsize=(4 * len(loads), 3 * len(workloads)), layout="constrained")
    panels = figure.subplots(len(workloads), len(loads), squeeze=False)
    for row, workload in zip(panels, workloads, strict=True):
        for axes, load in zip(row, loads, strict=True):
            _bins(axes, results[workload][load])
            axes.set_title(f"{workload}, {load} load", fontsize="medium")
    panels[0][0].legend(fontsize="small")
    for row in panels:
        row[0].set_ylabel("p99 TTFT, s")
    for axes in panels[-1]:
        axes.set_xlabel("reasoning tokens, from")
    save(figure, path)


def readers(results: Results, workloads: tuple[str, ...], path: Path) -> None:
    """Draw SLO violations and throughput by load."""
    figure = Figure(figsize=(4.5 * len(workloads), 5), layout="constrained")
    panels = figure.subplots(2, len(workloads), squeeze=False)
    for column, workload in enumerate(workloads):
        by_load = results[workload]
        _bars(panels[0][column], by_load, lambda result: 100 * result["slo_violations"])
        _bars(panels[1][column], by_load, lambda result: result["throughput_tok_s"])
        panels[0][column].set_title(workload, fontsize="medium")
    panels[0][0].set_ylabel("QoE below 0.95, % of requests")
    panels[1][0].set_ylabel("tokens/s")
    panels[0][0].legend(fontsize="small")
    save(figure, path)


def moves(results: Results, workload: str, path: Path) -> None:
    """Draw the wait at the boundary, SLO violations and moves, with and without migration."""
    ablations = results["experiments"]["ablations"][workload]
    high = results[workload]["high"]
    shown = {
        "pascal": high["pascal"],
        "no migration": ablations["no_migration"],
        "non-adaptive": ablations["non_adaptive"],
        "with headroom": ablations["adaptive_with_headroom"],
        "slack": high["slack"],
        "slack stays": ablations["slack_stays"],
    }
    columns: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "boundary to answer, p99 s": lambda result: result["boundary_blocking_p99_s"],
        "QoE below 0.95, %": lambda result: 100 * result["slo_violations"],
        "moves per run": lambda result: result["migrations"],
        "KV transfer, p99 s": lambda result: result["transfers_s"]["p99"] or 0.0,
    }
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    for axes, (title, value) in zip(
        figure.subplots(1, len(columns), sharey=True), columns.items(), strict=True
    ):
        colours = [COLOURS["slack" if "slack" in name else "pascal"] for name in shown]
        bars = axes.barh(list(shown), [value(result) for result in shown.values()], color=colours)
        axes.bar_label(bars, fmt="%.3g", fontsize="small", padding=2)
        axes.margins(x=0.25)
        axes.set_title(title, fontsize="medium")
    figure.axes[0].invert_yaxis()  # all panels share it
    save(figure, path)


def sweeps(results: Results, path: Path) -> None:
    """Draw p99 TTFT and violations by quantum, by demotion threshold and by load."""
    experiments = results["experiments"]
    shown = {
        "quantum, tokens": experiments["quantum"],
        "demotion threshold, tokens": experiments["demotion"],
        "load: share of the KV memory": experiments["load"],
    }
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False)
    for column, (title, by_policy) in enumerate(shown.items()):
        for policy, by_value in by_policy.items():
            places = [float(value) for value in by_value]
            for row, value in enumerate((_p99_s, _violations)):
                panels[row][column].plot(
                    places,
                    [value(result) for result in by_value.values()],
                    marker="o",
                    color=COLOURS[policy],
                    label=policy,
                )
        panels[1][column].set_xlabel(title)
        panels[0][column].legend(fontsize="small")
        panels[1][column].set_ylim(bottom=0)
    panels[0][0].set_ylabel("p99 TTFT, s")
    panels[1][0].set_ylabel("QoE below 0.95, %")
    save(figure, path)


def instances(results: Results, path: Path) -> None:
    """Draw p99 TTFT and violations by the number of instances."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    panels = figure.subplots(1, 2)
    for policy, by_count in results["experiments"]["instances"].items():
        counts = [int(count) for count in by_count]
        for axes, value in zip(panels, (_p99_s, _violations), strict=True):
            values = [value(result) for result in by_count.values()]
            axes.plot(counts, values, marker="o", color=COLOURS[policy], label=policy)
    for axes, label in zip(panels, ("p99 TTFT, s", "QoE below 0.95, %"), strict=True):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("instances")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    panels[0].legend(fontsize="small")
    save(figure, path)


def _p99_s(result: Mapping[str, Any]) -> float:
    return float(result["ttft_s"]["p99"])


def _violations(result: Mapping[str, Any]) -> float:
    return 100 * float(result["slo_violations"])


def _bins(axes: Axes, by_policy: Mapping[str, Mapping[str, Any]]) -> None:
    counts = by_policy[ORACLE]["requests_by_bin"]
    bins = [name for name, count in counts.items() if count >= _LEAST_REQUESTS]
    for policy, result in by_policy.items():
        seconds = [result["ttft_p99_by_bin"][name] for name in bins]
        axes.plot(range(len(bins)), seconds, marker="o", color=COLOURS[policy], label=policy)
    axes.set_xticks(range(len(bins)), [name.split("-")[0] for name in bins], fontsize="x-small")
    axes.set_ylim(bottom=0)


def _bars(
    axes: Axes,
    by_load: Mapping[str, Mapping[str, Mapping[str, Any]]],
    value: Callable[[Mapping[str, Any]], float],
) -> None:
    policies = list(next(iter(by_load.values())))
    width = 0.8 / len(policies)
    for index, policy in enumerate(policies):
        places = [place + index * width for place in range(len(by_load))]
        heights = [value(by_policy[policy]) for by_policy in by_load.values()]
        axes.bar(places, heights, width, color=COLOURS[policy], label=policy)
    middle = (len(policies) - 1) * width / 2
    axes.set_xticks([place + middle for place in range(len(by_load))], list(by_load))
