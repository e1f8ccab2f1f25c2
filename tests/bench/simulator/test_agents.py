"""Tasks of agents in the simulator: when their turns come, and what agents and readers get."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections import defaultdict
from typing import Any

import msgspec
import pytest

from bench.simulator.case import CaseSpec, Outcome, run_case
from bench.simulator.cluster import Cluster, ClusterRun, Window
from bench.simulator.defaults import MODEL, RULES
from bench.simulator.load import Extent, SteadyLoad
from bench.simulator.results import tasks_result
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.timeline import Timeline, call_end_s
from bench.workloads.agents import AgentTask, Round, first_turn
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths

ROUNDS = (
    Round(Lengths(300, 40, 0, 30), 0.5),
    Round(Lengths(60, 30, 20, 40), 1.5),
    Round(Lengths(90, 50, 60), 0.0),
)
SMALL = InstanceSettings(model=str(MODEL), policy="slack")


def tasks(count: int, every_s: float = 0.5, rounds: tuple[Round, ...] = ROUNDS) -> list[Arrival]:
    return [
        first_turn(AgentTask(every_s * place, rounds), f"task-{place}") for place in range(count)
    ]


def outcome_of(arrivals: list[Arrival], extent: Extent, **changes: Any) -> Outcome:
    spec = CaseSpec(policy="slack", seed=1, extent=extent, instances=2, instance=SMALL)
    return run_case(dataclasses.replace(spec, **changes), arrivals)


def by_task(timelines: Any) -> list[list[Timeline]]:
    turns: defaultdict[str, list[Timeline]] = defaultdict(list)
    for timeline in timelines:
        if timeline.conversation is not None:
            turns[timeline.conversation].append(timeline)
    return list(turns.values())


@pytest.mark.parametrize("tau_s", [None, 0.1])
def test_a_turn_comes_when_its_tool_has_the_result(tau_s: float | None) -> None:
    outcome = outcome_of(tasks(6), Extent(0.0, 100.0, 100.0), calls_tau_s=tau_s)
    assert len(outcome.tasks) == 6
    for turns, task in zip(by_task(outcome.timelines), outcome.tasks, strict=True):
        assert [turn.lengths.prompt for turn in turns] == [300, 430, 610]
        for before, after in itertools.pairwise(turns):
            called_s = call_end_s(before, tau_s)
            assert after.arrival_s == called_s + before.rounds[0].tool_s
            if tau_s is not None:  # of the first turn 30 tokens, of the second 60
                words = before.lengths.answer + before.lengths.call
                assert called_s - [*before.answer_s, *before.call_s][0] >= (words - 1.001) * tau_s
        begun_s = turns[0].arrival_s
        assert task.rounds == 3
        assert task.tools_s == 2.0
        assert task.answered_s == pytest.approx(turns[-1].answer_s[0] - begun_s)
        assert task.e2e_s == pytest.approx(task.answered_s + 59 * 0.1)
        calls_s = 0.0
        for turn in turns[:-1]:
            assert turn.boundary_s is not None
            calls_s += call_end_s(turn, tau_s) - turn.boundary_s
        assert task.calls_s == pytest.approx(calls_s)
    assert len(outcome.run.requests) == 6  # the final answers: no person reads the others
    found = tasks_result([outcome.tasks, []])
    assert found["tasks"] == 6
    assert found["task_rounds"]["mean"] == 3


def test_all_turns_of_a_measured_task_are_measured_and_no_others() -> None:
    """Also those that come after the window, while other requests still arrive."""
    arrivals = [*tasks(8), *(Arrival(4.0 + 0.25 * n, Lengths(20, 30, 40)) for n in range(400))]
    outcome = outcome_of(arrivals, Extent(1.0, 2.0, 200.0))
    found = by_task(outcome.timelines)
    assert [turns[0].conversation for turns in found] == ["task-2", "task-3"]
    assert [len(turns) for turns in found] == [3, 3]
    assert found[-1][-1].arrival_s > 2.0
    assert len(outcome.tasks) == 2
    last_s = max(turn.finished_s or math.inf for turns in found for turn in turns)
    assert last_s <= outcome.ended_s < last_s + 1.0


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("calls", ["calling", "answering"])
def test_leaps_do_not_change_when_turns_come(calls: str, offload: bool) -> None:
    """Turns find the KV of the turns before them, and lose it where memory is short."""
    load = sorted(
        [*tasks(10, 0.3), *(Arrival(0.2 * n, Lengths(60, 80, 50)) for n in range(30))],
        key=lambda arrival: arrival.at_s,
    )

    def run(**changes: Any) -> ClusterRun:
        settings = dataclasses.replace(
            SMALL,
            kv_blocks=150,
            offload=offload,
            resume="reload",
            policy_numbers={"calls": calls, "quantum_tokens": 40},
            **changes,
        )
        return Cluster(settings, 2, Window(0.0, 1e9), RULES["off"]).run(iter(load))

    quick, steps = run(), run(leaps=False)
    assert sum(timeline.preemptions for timeline in quick.timelines) > 10
    assert len(quick.timelines) == len(steps.timelines) == 60
    if not offload:
        assert quick == steps == run(exact=True)
        return
    prompts = sum(timeline.lengths.prompt for timeline in quick.timelines)
    outputs = sum(timeline.lengths.output for timeline in quick.timelines)
    computed = sum(total.computed_tokens for total in quick.totals)
    lost = sum(total.recomputed_tokens for total in quick.totals)
    assert computed - lost - outputs < 0.9 * prompts


@pytest.mark.parametrize("seed", [11, 29])
def test_a_turn_that_finds_its_kv_in_the_host_ends_leaps(seed: int) -> None:
    """Its load has begun, or waits for a store: the steps after that may admit other requests.

    Once they did not end the leap, and vLLM took another step than the leap had planned. The link
    to the host is slow here, so that turns come while their KV is still on its way.
    """
    rng = random.Random(seed)
    load = [
        first_turn(AgentTask(rng.uniform(0.0, 3.0), _random_rounds(rng)), f"task-{place}")
        for place in range(8)
    ]
    load += [Arrival(rng.uniform(0.0, 8.0), Lengths(60, 80, 50)) for _ in range(20)]
    load.sort(key=lambda arrival: arrival.at_s)
    links = msgspec.structs.replace(SMALL.profile.links, host_bytes_per_s=5e8)
    settings = dataclasses.replace(
        SMALL,
        profile=msgspec.structs.replace(SMALL.profile, links=links),
        kv_blocks=90,
        resume="reload",
        policy_numbers={"quantum_tokens": 40},
    )
    steps = dataclasses.replace(settings, leaps=False)
    quick, single = (
        Cluster(of, 1, Window(0.0, 1e9), RULES["off"]).run(iter(load)) for of in (settings, steps)
    )
    assert len(quick.timelines) == 4 * 8 + 20
    assert all(timeline.finished_s is not None for timeline in quick.timelines)
    assert quick.generated_tokens == single.generated_tokens
    assert sum(total.reloaded_tokens for total in quick.totals) > 1000
    assert quick.ended_s == pytest.approx(single.ended_s, rel=0.1)


def _random_rounds(rng: random.Random) -> tuple[Round, ...]:
    calls = [
        Round(
            Lengths(
                rng.randint(50, 200), rng.randint(5, 60), rng.choice([0, 20]), rng.randint(5, 60)
            ),
            rng.choice([0.001, 0.1, 0.5, 2.0]),
        )
        for _ in range(3)
    ]
    return (*calls, Round(Lengths(50, 20, 40), 0.0))


def test_a_steady_load_has_tasks_under_way() -> None:
    load = SteadyLoad(workload="agent", rate=0.5, extent=Extent(0.0, 5.0, 20.0), token_s=0.03)
    found = list(load.arrivals(1))
    times_s = [arrival.at_s for arrival in found]
    assert times_s == sorted(times_s)  # also of those that wait for a tool at first
    assert times_s.count(0.0) > 20
    assert found[0].longest <= 30_000
    shorter = list(dataclasses.replace(load, longest=10_000).arrivals(1))
    assert 0 < len(shorter) < len(found)
    assert max(arrival.longest for arrival in shorter) <= 10_000
