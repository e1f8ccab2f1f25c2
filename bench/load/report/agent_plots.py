"""The plot of agents' tasks, as SVG text; see `bench.load.report.plots`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from bench.load.report.plots import ANSWER, FADED, MOST_ROWS, THOUGHT, svg, thinned

_COLOURS = {"turn that calls": THOUGHT, "tool": FADED, "answer": ANSWER}


def tasks(result: Mapping[str, Any]) -> str | None:
    """The turns of tasks and the tools between them, one task per row, in the order of sending."""
    by_task: dict[int, list[Mapping[str, Any]]] = {}
    for request in result["requests"]:
        if request["sent_s"] is not None and request["ended_s"] is not None:
            by_task.setdefault(request["conversation"], []).append(request)
    if not by_task:
        return None
    rows = thinned(sorted(by_task.items(), key=lambda row: row[1][0]["sent_s"]), MOST_ROWS)

    def draw(axes: Axes) -> None:
        for row, (_, turns) in enumerate(rows):
            for label, begin_s, end_s in spans(turns):
                axes.barh(row, end_s - begin_s, left=begin_s, height=0.8, color=_COLOURS[label],
                          linewidth=0)  # fmt: skip
        axes.set_ylim(len(rows) - 0.5, -0.5)
        size = 6 if len(rows) > 24 else 8
        axes.set_yticks(range(len(rows)), [str(task) for task, _ in rows], fontsize=size)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds from the start of the run")
        axes.set_ylabel("task")
        axes.legend(
            handles=[Patch(color=colour, label=label) for label, colour in _COLOURS.items()],
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(_COLOURS),
        )  # fmt: skip

    return svg("tasks", draw, height=1.2 + 0.12 * max(12, len(rows)), width=10.0)


def spans(turns: list[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """What one task did, with begin and end in seconds of the run.

    :param turns: its requests, in order.
    """
    found = [
        ("turn that calls" if turn["calls"] else "answer", turn["sent_s"], turn["ended_s"])
        for turn in turns
    ]
    tools = [("tool", before["ended_s"], after["sent_s"]) for before, after in pairwise(turns)]
    return sorted((*found, *tools), key=lambda span: span[1])
