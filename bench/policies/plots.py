"""Plots of scheduling policies for the documentation, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from bench.reporting.plots import COLOURS, save
from bench.simulator.results import BIN_TOKENS, LEAST_REQUESTS, ORACLE

_DPI = 110


def plot_policies(results: Mapping[str, Mapping[str, Any]], title: str, path: Path) -> None:
    """Draw tail TTFT by reasoning length, and SLO violations, with one colour per policy.

    :param results: by policy, as `bench.simulator.results.policy_result` returns them.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    ttft, violations = figure.subplots(1, 2, width_ratios=(3, 1))
    _plot_bins(ttft, results)
    _plot_violations(violations, results)
    figure.suptitle(title)
    save(figure, path, dpi=_DPI)


def plot_overhead(ratios: Mapping[str, float], path: Path) -> None:
    """Draw the CPU time of the scheduler under `slack`, as a multiple of vLLM's."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(list(ratios), list(ratios.values()), color=COLOURS["slack"])
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_ylabel("CPU time per step / vLLM's")
    figure.suptitle("CPU time of the scheduler, policy slack")
    save(figure, path, dpi=_DPI)


def _plot_bins(axes: Axes, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw multiples of the oracle's p99, with the 95% interval of the mean over seeds."""
    policies = [policy for policy in results if policy != ORACLE]
    bins = sorted(
        {b for policy in policies for b in results[policy]["ttft_p99_to_oracle"]},
        key=lambda text: int(text.partition("-")[0]),
    )
    width = 0.8 / len(policies)
    for index, policy in enumerate(policies):
        ratios = results[policy]["ttft_p99_to_oracle"]
        shown = [(i, b) for i, b in enumerate(bins) if b in ratios]
        ends = [results[policy]["intervals"][f"ttft_p99_to_oracle.{b}"] for _, b in shown]
        axes.bar(
            [i + (index - (len(policies) - 1) / 2) * width for i, _ in shown],
            [ratios[b] for _, b in shown],
            width,
            label=policy,
            color=COLOURS[policy],
            yerr=[(high - low) / 2 for low, high in ends],
            capsize=2,
        )
    axes.axhline(1.0, color=COLOURS[ORACLE], linestyle="--")
    axes.set_xticks(range(len(bins)), bins)
    axes.set_yscale("log")
    for axis_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_formatter(FormatStrFormatter("%g"))
    axes.set_xlabel(f"reasoning tokens (bins of {BIN_TOKENS}, {LEAST_REQUESTS} requests or more)")
    axes.set_ylabel("p99 TTFT / the oracle's")
    axes.legend(ncols=len(policies), fontsize="small")


def _plot_violations(axes: Axes, results: Mapping[str, Mapping[str, Any]]) -> None:
    shares = [100 * result["slo_violations"] for result in results.values()]
    bars = axes.bar(list(results), shares, color=[COLOURS[policy] for policy in results])
    axes.bar_label(bars, [f"{share:.2f}" for share in shares], fontsize="small")
    axes.set_ylabel("SLO violations (QoE < 0.95), %")
    # The longest name is wider than a bar.
    axes.set_xticks(range(len(results)), list(results), rotation=30, ha="right")
