"""Cells of ``pascal bench agents``: how long calls are, and for how long one is urgent."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from rich.console import Console

from bench.agents import urgency
from bench.agents.experiment import (
    CALLING,
    FULL,
    HIGH_WATER_S,
    PACED,
    QUICK,
    SHORT_CALL,
    UNPACED,
    CallLengths,
    cases_of,
    run_side,
)
from bench.agents.urgency import CELLS, Cell
from bench.workloads.arrivals import Arrival
from tests.bench.agents.test_experiment import LITTLE
from tests.bench.agents.test_results import BY_NAME, run_of


def tasks_with(calls: CallLengths) -> list[Arrival]:
    mix = dataclasses.replace(FULL, calls=calls)
    arrivals = itertools.islice(mix.arrivals(1), 200)
    return [arrival for arrival in arrivals if arrival.rounds]


def test_only_the_lengths_of_calls_differ() -> None:
    short, agent, files = tasks_with("short"), tasks_with("agent"), tasks_with("files")
    assert len(short) == len(agent) == len(files) > 20
    longer = 0
    for of_short, of_agent, of_files in zip(short, agent, files, strict=True):
        assert of_short.at_s == of_agent.at_s == of_files.at_s
        for less, same, more in zip(of_short.rounds, of_agent.rounds, of_files.rounds, strict=True):
            call = same.lengths.call
            assert less.lengths == dataclasses.replace(same.lengths, call=min(call, 100))
            tripled = min(3 * call, 8000) if call > SHORT_CALL else call
            assert more.lengths == dataclasses.replace(same.lengths, call=tripled)
            assert less.tool_s == same.tool_s == more.tool_s
            longer += tripled > call
        first = of_files.rounds[0].lengths.call
        assert of_files.lengths == dataclasses.replace(of_agent.lengths, call=first)
    assert longer > 5


def test_parts_share_the_cases_of_the_default() -> None:
    cases = [case for cell in CELLS for case in urgency.cases_of(QUICK, cell)]
    assert len(set(cases)) == len(cases)
    shared = set(cases) & set(cases_of(QUICK))
    assert {side.name for side, _, _ in shared} == {PACED, UNPACED, CALLING}
    assert len(shared) == 3 * len(QUICK.seeds)
    for side, _, _ in cases:
        assert side.name != PACED or side.high_water_s == HIGH_WATER_S
    few = Cell("files", 3.0, few_chats=True).of_mix(QUICK)
    assert (few.chat_rate, few.task_rate, few.calls) == (0.1, 0.7, "files")


def test_each_cell_says_what_scheduling_saves() -> None:
    mix = dataclasses.replace(QUICK, seeds=(1, 2))
    cells = [Cell("files", 3.0, few_chats=True), Cell("files", HIGH_WATER_S)]
    times_s = {PACED: (400.0, 500.0), UNPACED: (200.0, 400.0), CALLING: (180.0, 320.0)}
    runs = {
        (side, seed, of): run_of(side, seed, times_s[side.name][seed - 1], late=seed - 1)
        for cell in cells
        for side, seed, of in urgency.cases_of(mix, cell)
    }
    low, usual = urgency.results_of(mix, runs, cells)
    assert (low["calls"], low["high_water_s"], low["few_chats"]) == ("files", 3.0, True)
    assert set(low["sides"]) == {UNPACED, CALLING}
    assert "claims" not in low
    assert low["by_scheduling"] == usual["by_scheduling"] == pytest.approx((0.1 + 0.2) / 2)
    assert low["interval"][0] < 0.15 < low["interval"][1]
    assert usual["claims"]["gain"] == pytest.approx((0.55 + 0.36) / 2)
    console = Console(width=140, record=True)
    console.print(urgency.table_of("title", [low, usual]))
    rows = [line for line in console.export_text().splitlines() if "files" in line]
    assert len(rows) == 2
    for row in rows:
        assert "300.0 → 250.0" in row
        assert "15.0 ± " in row
        assert "2.5 → 2.5" in row
    assert "few chats" in rows[0]
    assert "45.5 ± " not in rows[0]
    assert "45.5 ± " in rows[1]


def test_a_lower_mark_makes_calls_wait_that_are_scheduled_as_answers() -> None:
    """The mark of a side reaches the policy inside the engines."""
    unpaced = BY_NAME[UNPACED]
    usual, low = (
        run_side(0, dataclasses.replace(unpaced, high_water_s=mark), 1, LITTLE)
        for mark in (HIGH_WATER_S, 3.0)
    )
    assert sum(call.wait_s for call in low.calls) > sum(call.wait_s for call in usual.calls)
