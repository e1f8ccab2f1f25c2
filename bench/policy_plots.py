"""Plots of scheduling policies, as PNG files for the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.policy_figures import BIN_TOKENS, LEAST_REQUESTS, ORACLE

matplotlib.use("Agg")

_COLOURS = {
    ORACLE: "#9aa0a6",
    "fcfs": "#c0504d",
    "rr": "#e0a030",
    "pascal": "#4f81bd",
    "slack": "#2e8b57",
}


def plot_policies(results: Mapping[str, Mapping[str, Any]], title: str, path: Path) -> None:
    """Tail TTFT by reasoning length beside SLO violations, one colour per policy.

    :param results: by policy, as `bench.policy_figures.policy_result` returns them.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    ttft, violations = figure.subplots(1, 2, width_ratios=(3, 1))
    _plot_bins(ttft, results)
    _plot_violations(violations, results)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def plot_overhead(ratios: Mapping[str, float], path: Path) -> None:
    """CPU time of the scheduler under `slack`, as a multiple of vLLM's own."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(list(ratios), list(ratios.values()), color=_COLOURS["slack"])
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_ylabel("CPU time per step / vLLM's own")
    figure.suptitle("The scheduler's own CPU time, policy slack")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _plot_bins(axes: Axes, results: Mapping[str, Mapping[str, Any]]) -> None:
    some = next(iter(results.values()))
    seeds = len(some["seeds"])
    bins = [b for b, count in some["requests_by_bin"].items() if count >= LEAST_REQUESTS * seeds]
    width = 0.8 / len(results)
    for index, (policy, result) in enumerate(results.items()):
        places = [i + (index - (len(results) - 1) / 2) * width for i in range(len(bins))]
        heights = [result["ttft_p99_by_bin"][b] for b in bins]
        axes.bar(places, heights, width, label=policy, color=_COLOURS[policy])
    axes.set_xticks(range(len(bins)), bins)
    axes.set_yscale("log")
    axes.set_xlabel(f"reasoning tokens (bins of {BIN_TOKENS})")
    axes.set_ylabel("p99 TTFT, s")
    axes.legend(ncols=len(results), fontsize="small")


def _plot_violations(axes: Axes, results: Mapping[str, Mapping[str, Any]]) -> None:
    shares = [100 * result["slo_violations"] for result in results.values()]
    bars = axes.bar(list(results), shares, color=[_COLOURS[policy] for policy in results])
    axes.bar_label(bars, [f"{share:.2f}" for share in shares], fontsize="small")
    axes.set_ylabel("SLO violations (QoE < 0.95), %")
