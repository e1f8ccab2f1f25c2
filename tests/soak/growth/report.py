"""The result of a soak: a judgement of every series, what was left behind, and the printout."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.soak.clients.stream import Tally
from tests.soak.growth.observations import Observations
from tests.soak.growth.series import SERIES, Series
from tests.soak.growth.slopes import HOUR_S, Judgement, judge


@dataclass(slots=True)
class Report:
    """The results of one run."""

    tally: Tally
    observations: Observations
    warm_up_s: float
    judgements: dict[str, Judgement] = field(default_factory=dict)
    per_1000: dict[str, float] = field(default_factory=dict)  # slope per 1000 responses
    not_judged: dict[str, str] = field(default_factory=dict)  # series: why
    left_behind: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)  # in the gateway's log, or at its end
    kills: int = 0
    pids: set[int] = field(default_factory=set)  # of all processes that were seen

    @property
    def failures(self) -> list[str]:
        """One line for each reason why the run fails."""
        lines = [
            f"{name} grows by {_formatted(SERIES_BY_NAME[name], judgement.slope)} per hour"
            for name, judgement in self.judgements.items()
            if judgement.failed
        ]
        lines += [f"left behind: {one}" for one in self.left_behind]
        lines += self.trouble
        if self.tally.violations:
            lines.append(f"{self.tally.violations} broken promises to readers")
        return lines


SERIES_BY_NAME = {series.name: series for series in SERIES}


def judge_all(report: Report, restarted: set[str]) -> None:
    """Judge every series from the end of the warm-up on.

    :param restarted: instances whose process was replaced, and whose memory started again.
    """
    counts = report.observations.after("pascal_responses_total", report.warm_up_s)
    for series in SERIES:
        instance = series.name.split()[0]
        times_s, values = report.observations.after(series.metric or series.name, report.warm_up_s)
        if not values:
            report.not_judged[series.name] = f"not exported: {series.metric}"
        elif instance in restarted:
            report.not_judged[series.name] = "its process was killed and started again"
        else:
            judgement = judge(times_s, values, rise=series.rise, share=series.share)
            report.judgements[series.name] = judgement
            ended = counts[1][-1] - counts[1][0] if counts[1] else 0
            if ended:
                hours = (times_s[-1] - times_s[0]) / HOUR_S
                report.per_1000[series.name] = judgement.slope * hours / ended * 1000


def _formatted(series: Series, value: float) -> str:
    return f"{value / series.scale:+.3g}{' ' if series.unit else ''}{series.unit}"


def show(report: Report, console: Console) -> None:
    """Print the table, and a line for each failure."""
    table = Table(title=f"judged after a warm-up of {report.warm_up_s:.0f} s")
    for column in ("series", "start", "end", "slope/h", "95%", "per 1000", "allowed/h", "verdict"):
        table.add_column(column, justify="left" if column in ("series", "verdict") else "right")
    for name, judgement in report.judgements.items():
        series = SERIES_BY_NAME[name]
        scaled = [
            f"{value / series.scale:.4g}"
            for value in (
                judgement.start,
                judgement.end,
                judgement.slope,
                judgement.low,
                judgement.high,
                judgement.allowed,
            )
        ]
        start, end, slope, low, high, allowed = scaled
        unit = f" [{series.unit}]".replace("[", r"\[") if series.unit else ""
        thousand = report.per_1000.get(name)
        table.add_row(
            name + unit,
            start,
            end,
            slope,
            f"{low} .. {high}",
            "" if thousand is None else f"{thousand / series.scale:.3g}",
            allowed,
            judgement.verdict,
        )
    console.print(table)
    for name, why in report.not_judged.items():
        console.print(f"not judged: {name}: {why}", markup=False)
    tally = report.tally
    for title, counter in (
        ("readers", tally.readers),
        ("responses seen to end", tally.responses),
        ("refusals", tally.refused),
    ):
        counts = ", ".join(f"{name} {count}" for name, count in counter.most_common())
        console.print(f"{title}: {counter.total()} ({counts})", markup=False)
    console.print(
        f"streams with expired events: {tally.expired}; connections cut: {tally.cut}; "
        f"workers killed: {report.kills}"
    )
    for line in tally.shown:
        console.print(f"  broken: {line}", markup=False)
    for line in report.failures:
        console.print(f"FAILED: {line}", markup=False)
    console.print("soak: failed" if report.failures else "soak: passed")


def write(report: Report, path: Path) -> None:
    """Write all results and series as JSON; infinite numbers become null."""
    document: dict[str, Any] = {
        "passed": not report.failures,
        "failures": report.failures,
        "warm_up_s": report.warm_up_s,
        "judgements": {name: asdict(judgement) for name, judgement in report.judgements.items()},
        "per_1000_responses": report.per_1000,
        "not_judged": report.not_judged,
        "kills": report.kills,
        "tally": {
            "readers": report.tally.readers,
            "responses": report.tally.responses,
            "refused": report.tally.refused,
            "expired": report.tally.expired,
            "violations": report.tally.violations,
            "shown": report.tally.shown,
        },
        "times_s": report.observations.times_s,
        "series": report.observations.values,
    }
    path.write_text(json.dumps(_finite(document)), encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and abs(value) == float("inf"):
        return None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return value
