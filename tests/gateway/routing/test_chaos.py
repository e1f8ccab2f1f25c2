"""Faults at every place of a request's life: the table of them, and a short run with real engines.

The long run: ``python -m tests.chaos``, 130 faults.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.response.lifecycle import FINAL, State
from gateway.response.session import Session
from gateway.routing.route import TRANSITIONS, Move, Stage
from tests.chaos.faults import Injector
from tests.chaos.table import (
    ALONE,
    EXCLUDED,
    TOGETHER,
    Cell,
    Fault,
    Party,
    Place,
    cells,
    combinations,
    places,
    quick_schedule,
    schedule,
)
from tests.chaos.world import World
from tests.gateway.support.scene import play
from tests.gateway.support.scripted_engine import LENGTH
from tests.gateway.support.scripted_service import ended, until
from tests.support.server import ROOT


def test_the_places_of_both_tables_are_all_there_and_no_others() -> None:
    assert [str(place) for place in places()] == [
        "queued/waiting",
        "queued/submitted",
        "reasoning/pulling",
        "reasoning/running",
        "reasoning/handing_over",
        "between_instances/waiting",
        "between_instances/submitted",
        "answering/pulling",
        "answering/running",
        "answering/handing_over",
        "calling/pulling",
        "calling/running",
        "calling/handing_over",
        "delivering/over",
    ]


def test_every_state_and_every_stage_has_a_place() -> None:
    assert {place.state for place in places()} == set(State) - FINAL
    assert {place.stage for place in places()} == set(Stage)
    assert set(TOGETHER) == set(Move) == {move for _, move in TRANSITIONS}
    assert {stage for stages in ALONE.values() for stage in stages} <= set(Stage)


def test_every_combination_is_a_cell_or_is_excluded_for_one_reason() -> None:
    table = cells()
    assert len(set(table)) == len(table)
    for cell in combinations():
        reasons = [exclusion.why for exclusion in EXCLUDED if exclusion.holds(cell)]
        assert len(reasons) == (cell not in table), cell
    for exclusion in EXCLUDED:
        assert any(exclusion.holds(cell) for cell in combinations()), exclusion.why


def test_every_place_is_hit_at_its_source_and_its_link() -> None:
    for place in places():
        at_source = {c.fault for c in cells() if (c.place, c.party) == (place, Party.SOURCE)}
        at_link = {c.fault for c in cells() if (c.place, c.party) == (place, Party.LINK)}
        assert at_source >= {Fault.KILL, Fault.STOP, Fault.SLOW}
        assert at_link == {Fault.STOP, Fault.SLOW, Fault.CUT}


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_has_every_cell_and_no_more_kills_than_it_may(seed: int) -> None:
    planned = schedule(seed, 130, 30)
    assert len(planned) == 130
    assert set(planned[: len(cells())]) == set(cells())
    assert sum(cell.fault is Fault.KILL for cell in planned) <= 30


def test_the_same_seed_gives_the_same_schedule_in_another_process_too() -> None:
    assert schedule(7, 130, 30) == schedule(7, 130, 30) != schedule(8, 130, 30)
    assert Counter(quick_schedule(1)) == Counter(quick_schedule(2))
    command = [sys.executable, "-m", "tests.chaos", "--list", "--seed=7"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines() == [str(cell) for cell in schedule(7, 130, 30)]


def test_a_schedule_too_short_for_the_table_is_a_sample_of_it() -> None:
    planned = schedule(1, 40, 5)
    assert len(planned) == len(set(planned)) == 40
    assert sum(cell.fault is Fault.KILL for cell in planned) == 5
    assert {cell.place.state for cell in planned} > {State.CALLING, State.REASONING}


def test_the_short_run_has_a_kill_and_no_stop() -> None:
    kinds = Counter(cell.fault for cell in quick_schedule(1))
    assert kinds == {Fault.CUT: 5, Fault.SLOW: 2, Fault.KILL: 1}
    first = Cell(Place(State.QUEUED, Stage.SUBMITTED), Party.LINK, Fault.CUT)
    assert first in quick_schedule(1)


async def test_the_injector_sees_a_request_enter_each_place_of_its_way(tmp_path: Path) -> None:
    async with play(tmp_path, "a", "b") as playing:
        playing.actors["a"].until_place = LENGTH - 2
        playing.actors["a"].holding |= {"generate"}
        injector = Injector(cast(World, SimpleNamespace(cluster=playing.cluster)))
        seen: list[Place] = []
        injector.on_entry = lambda route, place: seen.append(place)
        before = Session._advance
        with injector.watching():
            session = await playing.start()
            await until(lambda: playing.actors["a"].asked_for)
            playing.release()
            await ended(session)
        assert Session._advance is before
        at_rest = set(places())
        assert [str(place) for place in seen if place in at_rest] == [
            "queued/submitted",
            "reasoning/running",
            "answering/running",
            "answering/handing_over",
            "between_instances/submitted",
            "answering/pulling",
            "answering/running",
        ]
        assert injector.wrong == []


@pytest.mark.engine
@pytest.mark.slow
def test_every_reader_gets_the_undisturbed_text_and_nothing_is_left_behind(
    tmp_path: Path,
) -> None:
    found_path = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--quick", "--questions=4", f"--json={found_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found_path.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(found_path.read_text(encoding="utf-8"))
    assert found["wrong"] == []
    assert found["faults"] == [str(cell) for cell in quick_schedule(1)]
    assert (found["leaked_blocks"], found["orphans"]) == (0, 0)
    assert found["readers"]["failovers"] > 0  # otherwise the faults hit no request
    assert done.returncode == 0
