"""Why the scheduling of calls matters, or does not: cells that vary what is thought to decide it.

As an answer, a call is urgent until its reader has ``high_water_s`` of text, and until then it goes
before thoughts. Only the rest of a longer call comes after them. So the scheduling of calls can
matter only if many of their tokens are beyond the mark. Cells vary the mark and the lengths of
calls. In each, calls under ``slack`` are scheduled as answers and as calls.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from bench.agents.experiment import (
    CALLING,
    HIGH_WATER_S,
    PACED,
    SHORT_CALL,
    SIDES,
    UNPACED,
    CallLengths,
    Case,
    Mix,
    SideRun,
)
from bench.agents.results import claims_of, mean_e2e_s, side_result
from bench.reporting.statistics import interval
from workers.policy.settings import PolicySettings

_LOW_WATER_S = PolicySettings().low_water_s
# As short as the policy takes it without requests that swap places all the time: one second above
# the low-water mark. As an answer, a call is then urgent for about 45 tokens.
_LEAST_S = _LOW_WATER_S + 1.0
_MOST_S = 4 * HIGH_WATER_S  # urgent for about 720 tokens


@dataclass(frozen=True, slots=True)
class Cell:
    """One variation of a mix."""

    calls: CallLengths
    high_water_s: float
    few_chats: bool = False  # a seventh of the mix's; twice as many tasks take their memory

    def of_mix(self, mix: Mix) -> Mix:
        """The mix with this cell's calls and chats."""
        if self.few_chats:
            rates = round(mix.chat_rate / 7, 3), 2 * mix.task_rate
            mix = replace(mix, chat_rate=rates[0], task_rate=rates[1])
        return replace(mix, calls=self.calls)


CELLS = (
    Cell("short", HIGH_WATER_S),
    Cell("agent", _LEAST_S),
    Cell("agent", HIGH_WATER_S),
    Cell("agent", _MOST_S),
    Cell("files", _LEAST_S),
    Cell("files", HIGH_WATER_S),
    Cell("files", _LEAST_S, few_chats=True),
)


def cases_of(mix: Mix, cell: Cell) -> list[Case]:
    """A cell with two or three ways to treat calls, under the arrivals of every seed.

    Only with the default mark are calls also paced: a mark does not change what pacing costs.
    """
    ways = {PACED, UNPACED, CALLING} if cell.high_water_s == HIGH_WATER_S else {UNPACED, CALLING}
    sides = [replace(of, high_water_s=cell.high_water_s) for of in SIDES if of.name in ways]
    return [(side, seed, cell.of_mix(mix)) for seed in mix.seeds for side in sides]


def results_of(
    mix: Mix, runs: Mapping[Case, SideRun], cells: Sequence[Cell] = CELLS
) -> list[dict[str, Any]]:
    """Figures of each cell: its sides by name, and what scheduling is worth.

    ``by_scheduling`` is the part of agents' mean end-to-end time that it saves beside calls which
    are delivered at once, but scheduled as answers; with its interval over seeds. ``claims``: as
    `bench.agents.results.claims_of` says, if calls were also paced.

    :param runs: of the cells' cases, and perhaps of others.
    """
    results = []
    for cell in cells:
        by_side: dict[str, list[SideRun]] = {}
        for case in cases_of(mix, cell):
            by_side.setdefault(case[0].name, []).append(runs[case])
        results.append(_cell_result(cell, by_side))
    return results


def _cell_result(cell: Cell, by_side: Mapping[str, Sequence[SideRun]]) -> dict[str, Any]:
    saved = [
        1 - mean_e2e_s(calling) / mean_e2e_s(unpaced)
        for unpaced, calling in zip(by_side[UNPACED], by_side[CALLING], strict=True)
    ]
    result: dict[str, Any] = {
        "calls": cell.calls,
        "high_water_s": cell.high_water_s,
        "few_chats": cell.few_chats,
        "sides": {name: side_result(of) for name, of in by_side.items()},
        "by_scheduling": statistics.fmean(saved),
        "interval": list(interval(saved)),
    }
    if PACED in by_side:
        result["claims"] = claims_of(*(by_side[name] for name in (PACED, UNPACED, CALLING)))
    return result


def table_of(title: str, cells: Sequence[Mapping[str, Any]]) -> Table:
    """One row for each cell."""
    table = Table(
        title=title,
        caption="mark: high_water_s; means over seeds, with half of the 95% interval; arrows: "
        "from calls as answers, delivered at once, to calls as calls; ms: for each token, from "
        f"the end of thoughts to the whole call; short: up to {SHORT_CALL} tokens",
    )
    columns = ("e2e s", "by sched. %", "to paced %", "short calls ms", "longer ms")
    for column in ("calls", "mark s"):
        table.add_column(column, no_wrap=True)
    for column in (*columns, "preempt", "SLO viol. %"):
        table.add_column(column, justify="right")
    for cell in cells:
        claims = cell.get("claims")
        table.add_row(
            cell["calls"] + (", few chats" if cell["few_chats"] else ""),
            f"{cell['high_water_s']:g}",
            _change(cell, "task_e2e_mean_s"),
            _percent(cell["by_scheduling"], cell["interval"]),
            _percent(claims["gain"], claims["intervals"]["gain"]) if claims else "",
            _change(cell, "call_short_token_s", factor=1000.0),
            _change(cell, "call_long_token_s", factor=1000.0),
            _change(cell, "task_preemptions"),
            _change(cell, "slo_violations", factor=100.0),
        )
    return table


def _change(cell: Mapping[str, Any], name: str, factor: float = 1.0) -> str:
    before, after = (factor * cell["sides"][way][name] for way in (UNPACED, CALLING))
    return f"{before:.1f} → {after:.1f}"


def _percent(mean: float, bounds: Sequence[float]) -> str:
    low, high = bounds
    return f"{100 * mean:.1f} ± {50 * (high - low):.1f}"
