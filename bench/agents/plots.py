"""Plot of the sides for the documentation, as a PNG file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.reporting.plots import COLOURS, save
from bench.reporting.statistics import SLO_QOE

_DPI = 110


def plot_sides(results: Mapping[str, Mapping[str, Any]], title: str, path: Path) -> None:
    """Draw agents' end-to-end time, chats' TTFT and SLO violations of every side.

    :param results: by name, as `bench.agents.results.side_result` returns them.
    """
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = (
        ("task_e2e_mean_s", 1.0, "mean end-to-end time of a task, s"),
        ("chat_ttft_mean_s", 1.0, "mean TTFT of a chat, s"),
        ("slo_violations", 100.0, f"readers with a QoE below {SLO_QOE:g}, %"),
    )
    names = list(results)[::-1]
    colours = [COLOURS.get(name.partition(",")[0], "grey") for name in names]
    for axes, (key, scale, label) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        values = [scale * results[name][key] for name in names]
        highs = [scale * results[name]["intervals"][key][1] for name in names]
        spread = [high - value for high, value in zip(highs, values, strict=True)]
        axes.barh(names, values, xerr=spread, color=colours, capsize=3)
        axes.set_xlabel(label)
    figure.suptitle(title)
    save(figure, path, dpi=_DPI)
