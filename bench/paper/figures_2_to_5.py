"""Draws the paper's Figures 2 to 5 as PNG files for the documentation.

The data come from `bench.paper.figure_2`, `bench.paper.figure_3` and `bench.paper.results`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.paper.figure_3 import Story
from bench.reporting.plots import COLOURS, save

if TYPE_CHECKING:
    from bench.paper.figure_2 import UnitLine

_PARTS = {"executed": "#4f81bd", "blocked": "#c0504d", "preempted": "#e0a030"}
_LEAST_REQUESTS = 5  # in each drawn bin


def figure_2(lines: Mapping[str, Mapping[str, UnitLine]], path: Path) -> None:
    """Draw the units of time in which each request computes.

    :param lines: by policy and request, as `bench.paper.figure_2.timelines` returns them.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (policy, requests) in zip(_column(figure, len(lines)), lines.items(), strict=True):
        for row, line in enumerate(requests.values()):
            ended = line.spans[-1][1]
            axes.barh(row, ended - line.arrival, left=line.arrival, height=0.5, color="#e8e8e8")
            for begin, end in line.spans:
                axes.barh(row, end - begin, left=begin, height=0.5, color=COLOURS[policy])
            axes.text(ended + 0.2, row, f"TTFT {line.ttft}", va="center", fontsize="small")
        axes.set_yticks(range(len(requests)), list(requests))
        axes.invert_yaxis()
        axes.set_xlim(0, 18)
        axes.set_xticks(range(0, 19, 2))
        axes.set_ylabel(policy)
    save(figure, path)


def figure_3(stories: Mapping[str, Story], path: Path) -> None:
    """Draw tokens generated, read and expected over time."""
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    axes_of = figure.subplots(1, len(stories), sharey=True)
    for axes, (name, story) in zip(axes_of, stories.items(), strict=True):
        count = range(1, len(story.generated) + 1)
        axes.step(story.generated, count, where="post", color="#9aa0a6", label="generated")
        axes.plot(story.expected, count, "--", color="black", linewidth=0.8, label="expected")
        axes.step(story.released, count, where="post", color=COLOURS["pascal"], label="read")
        axes.set_title(f"{name}: QoE {story.qoe:.2f}", fontsize="medium")
        axes.set_xlabel("units of time")
    axes_of[0].set_ylabel("tokens")
    axes_of[0].legend(fontsize="small")
    save(figure, path)


def figure_4(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw reasoning latency by length, split into executed, blocked and preempted.

    :param results: of the characterisation, by policy.
    """
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    _splits(figure.subplots(1, len(results), sharey=True), results, "reasoning")
    save(figure, path)


def figure_5(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw answering latency, split in the same way, and the requests within each target."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes_of = figure.subplots(1, len(results) + 1, width_ratios=[1] * len(results) + [1.8])
    _splits(axes_of[:-1], results, "answering")
    targets = {"ttfat": "TTFAT", "tpot": "TPOT", "qoe": "QoE", "all": "all"}
    width = 0.8 / len(results)
    for index, (policy, result) in enumerate(results.items()):
        places = [place + index * width for place in range(len(targets))]
        shares = [100 * result["attainment"][target] for target in targets]
        axes_of[-1].bar(places, shares, width, label=policy, color=COLOURS[policy])
    middle = (len(results) - 1) * width / 2
    axes_of[-1].set_xticks([place + middle for place in range(len(targets))], targets.values())
    axes_of[-1].set_title("requests within the target, %", fontsize="medium")
    axes_of[-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def _splits(axes_of: Sequence[Axes], results: Mapping[str, Mapping[str, Any]], phase: str) -> None:
    tallest = 0.0
    for axes, (policy, result) in zip(axes_of, results.items(), strict=True):
        bins = {
            name: parts[phase]
            for name, parts in result["splits"].items()
            if parts["requests"]["count"] >= _LEAST_REQUESTS
        }
        bottom = [0.0] * len(bins)
        for part, colour in _PARTS.items():
            seconds = [split[part] for split in bins.values()]
            axes.bar(range(len(bins)), seconds, bottom=bottom, color=colour, label=part)
            bottom = [low + more for low, more in zip(bottom, seconds, strict=True)]
        tallest = max([tallest, *bottom])
        axes.set_xticks(range(len(bins)), list(bins), rotation=60, fontsize="x-small")
        axes.set_title(policy, fontsize="medium")
    for axes in axes_of:
        axes.set_ylim(0, 1.05 * tallest or 1.0)
    axes_of[0].set_ylabel(f"{phase}, mean s")
    axes_of[0].legend(fontsize="x-small")


def _column(figure: Figure, rows: int) -> Sequence[Axes]:
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)
    return [row[0] for row in panels]
