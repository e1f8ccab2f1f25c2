"""The printout of a crowd's run, and its JSON."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.soak.crowd.outcomes import Group, Outcome, quantile


def show(outcome: Outcome, console: Console) -> None:
    """Print the table, the measurements, and a line for each failure."""
    table = Table(title="responses read to their end, and their QoE as the reader sees it")
    columns = (
        "readers", "number", "responses", "WebSocket", "SSE", "chat", "QoE min", "p1", "mean",
        "late max s", "gateway's QoE min", "reconnects",
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column == "readers" else "right")
    for name, group in outcome.groups.items():
        table.add_row(name, *_row(group))
    console.print(table)
    for line in (*_lines(outcome), *outcome.notes):
        console.print(line, markup=False)
    for line in outcome.tally.shown:
        console.print(f"  broken: {line}", markup=False)
    for line in outcome.failures:
        console.print(f"FAILED: {line}", markup=False)
    console.print("crowd: failed" if outcome.failures else "crowd: passed")


def _row(group: Group) -> list[str]:
    if not group.qoes:
        return [str(group.places), "0", *[""] * 9]
    return [
        str(group.places),
        str(len(group.qoes)),
        str(group.transports["WebSocket"]),
        str(group.transports["SSE"]),
        str(group.transports["chat"]),
        f"{min(group.qoes):.4f}",
        f"{quantile(group.qoes, 0.01):.4f}",
        f"{statistics.fmean(group.qoes):.4f}",
        f"{max(group.lates_s):.3f}",
        f"{min(group.gateway_qoes):.4f}",
        str(group.reconnects),
    ]


def _lines(outcome: Outcome) -> list[str]:
    """What the table does not say, one line a subject."""
    measured = outcome.measured
    lines = [
        f"connected after s: {_spread(outcome.connects_s)}; first event after s: "
        f"{_spread(outcome.answers_s)}",
        f"stalled readers disconnected: {len(outcome.closed_s)}, not disconnected: "
        f"{outcome.not_closed}; responses that went on: {outcome.went_on}; after s: "
        f"{_spread(outcome.closed_s)}; as the reader saw it: {_counts(outcome.closed_how)}",
        f"closed connections in the gateway's log: {_counts(outcome.closings)}",
        f"Stop pressed in time: {len(outcome.stops_s)}, after the end: {outcome.too_late}; "
        f"acknowledged after s: {_spread(outcome.stops_s)}",
        f"garbage: {outcome.tally.readers['sends garbage']} visits; refused: "
        f"{_counts(outcome.tally.refused)}",
        f"correct requests refused: {_counts(outcome.refusals)}",
        f"tokens: {outcome.tokens}, events: {outcome.events}, that all readers got",
    ]
    lines.append(
        "measured: "
        + ", ".join(
            f"{name} {value:.0%}" if name.endswith(("cpu", "busy")) else f"{name} {value:.1f}"
            for name, value in measured.items()
        )
    )
    return lines


def _counts(counter: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"


def _spread(values: list[float]) -> str:
    if not values:
        return "none"
    return f"{min(values):.2f} to {max(values):.2f}, median {statistics.median(values):.2f}"


def write(outcome: Outcome, path: Path) -> None:
    """Write all results as JSON."""
    groups = {
        name: {
            "readers": group.places,
            "responses": len(group.qoes),
            "transports": group.transports,
            "qoe": {
                "min": min(group.qoes, default=None),
                "p1": _finite(quantile(group.qoes, 0.01)),
                "mean": statistics.fmean(group.qoes) if group.qoes else None,
            },
            "late_max_s": max(group.lates_s, default=None),
            "gateway_qoe_min": min(group.gateway_qoes, default=None),
            "reconnects": group.reconnects,
        }
        for name, group in outcome.groups.items()
    }
    document = {
        "passed": not outcome.failures,
        "failures": outcome.failures,
        "notes": outcome.notes,
        "readers": groups,
        "stalled": {
            "disconnected": len(outcome.closed_s),
            "not_disconnected": outcome.not_closed,
            "went_on": outcome.went_on,
            "after_s": outcome.closed_s,
            "seen_as": outcome.closed_how,
            "logged": outcome.closings,
        },
        "connect_max_s": max(outcome.connects_s, default=None),
        "answer_max_s": max(outcome.answers_s, default=None),
        "stopped": {"too_late": outcome.too_late, "after_s": outcome.stops_s},
        "refused": {"garbage": outcome.tally.refused, "correct": outcome.refusals},
        "tokens": outcome.tokens,
        "events": outcome.events,
        "violations": {"count": outcome.tally.violations, "first": outcome.tally.shown},
        "measured": {name: _finite(value) for name, value in outcome.measured.items()},
    }
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
