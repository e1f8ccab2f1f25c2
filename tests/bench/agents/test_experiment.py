"""The sides of ``pascal bench agents`` under one small load, and its load."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from bench.agents import experiment
from bench.agents.experiment import (
    CALLING,
    FULL,
    PACED,
    QUICK,
    SIDES,
    UNPACED,
    Case,
    Mix,
    SideRun,
    cases_of,
    run_cases,
    run_side,
    runs_of,
)
from bench.simulator.load import Extent
from bench.simulator.watermark import SHARES

BY_NAME = {side.name: side for side in SIDES}
LITTLE = Mix(
    chat_rate=0.25,
    task_rate=0.08,
    extent=Extent(0.0, 80.0, 400.0),
    instances=1,
    kv_share=0.25,
    token_s=0.03,
    seeds=(1,),
    way_seeds=1,
    chats="alpacaeval",
    longest=8000,
)


def test_a_seed_names_its_load() -> None:
    first, again = (list(itertools.islice(QUICK.arrivals(2), 300)) for _ in range(2))
    assert first == again
    times = [arrival.at_s for arrival in first]
    assert times == sorted(times)
    assert times.count(0.0) > 5
    coming = [arrival for arrival in first if arrival.at_s > 0 and not arrival.conversation]
    assert coming
    tasks = [arrival for arrival in first if arrival.rounds]
    assert len({task.conversation for task in tasks}) == len(tasks) > 3
    assert first != list(itertools.islice(QUICK.arrivals(3), 300))


def test_every_share_of_the_watermark_runs() -> None:
    policies = [side.policy for side in runs_of(SIDES)]
    assert len(policies) == len(SIDES) - 1 + len(SHARES)
    assert {f"fcfs+watermark:{share:g}" for share in SHARES} < set(policies)
    assert len({side.name for side in runs_of(SIDES)}) == len(policies)
    assert len(FULL.seeds) >= 3
    assert len(cases_of(FULL)) == len(policies) * len(FULL.seeds) == len(set(cases_of(FULL)))


def test_calls_cost_agents_most_as_paced_answers_and_least_as_calls() -> None:
    paced, unpaced, calling = (
        run_side(0, BY_NAME[name], 1, LITTLE) for name in (PACED, UNPACED, CALLING)
    )
    assert len(paced.tasks) == len(calling.tasks) > 1

    def mean_s(run: SideRun) -> float:
        return sum(task.e2e_s for task in run.tasks) / len(run.tasks)

    assert mean_s(calling) < 0.95 * mean_s(paced)
    assert mean_s(unpaced) < 0.95 * mean_s(paced)
    for run in (paced, unpaced, calling):
        assert len(run.finals) == len(run.tasks)
        assert len(run.chats) == len(paced.chats) > 20
        assert run.kv_peak_share > 0.95
    # Paced, the last token of a call comes a tenth of a second for each token after the first.
    assert sum(task.calls_s for task in paced.tasks) > 2 * sum(
        task.calls_s for task in calling.tasks
    )


def test_the_same_case_gives_the_same_result() -> None:
    short = dataclasses.replace(LITTLE, extent=Extent(0.0, 2.0, 100.0))
    side = BY_NAME[CALLING]
    assert run_side(0, side, 1, short) == run_side(0, side, 1, short)


def test_runs_come_in_the_order_of_their_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever ends first."""

    def in_parallel(
        function: Callable[..., Any], cases: Sequence[tuple[Any, ...]], progress: object
    ) -> Iterator[Any]:
        for case in reversed(cases):
            yield function(*case)

    monkeypatch.setattr(experiment, "in_parallel", in_parallel)
    short = dataclasses.replace(LITTLE, extent=Extent(0.0, 2.0, 100.0))
    cases = [(BY_NAME[name], 1, short) for name in (PACED, CALLING)]
    told: list[tuple[Case, int, int]] = []
    runs = run_cases(cases, lambda share, total: None, lambda *done: told.append(done))
    assert [run.side.name for run in runs] == [PACED, CALLING]
    assert told == [(cases[1], 1, 2), (cases[0], 2, 2)]
