"""Tasks of agents: lengths and times against their source, and what a turn takes over."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from itertools import islice, pairwise

import pytest

from bench.reporting.statistics import percentile
from bench.workloads import agents
from bench.workloads.agents import CONTEXT, AgentTask, Round, agent_tasks, first_turn, next_turn
from bench.workloads.arrivals import Arrival
from bench.workloads.describe import describe
from bench.workloads.lengths import Lengths
from bench.workloads.named import WorkloadError, named

TASKS = list(islice(agent_tasks(0.5, 3), 2000))
CALLS = [of for task in TASKS for of in task.rounds[:-1]]


def test_a_seed_names_its_tasks_and_a_rate_moves_their_times() -> None:
    assert list(islice(agent_tasks(0.5, 3), 100)) == TASKS[:100]
    faster = list(islice(agent_tasks(5.0, 3), 100))
    assert [task.rounds for task in faster] == [task.rounds for task in TASKS[:100]]
    for slow, fast in zip(TASKS, faster, strict=False):
        assert slow.at_s == pytest.approx(10 * fast.at_s)
    assert next(agent_tasks(0.5, 4)) != TASKS[0]
    assert TASKS[-1].at_s == pytest.approx(2000 / 0.5, rel=0.07)


def test_every_turn_but_the_last_calls_a_tool() -> None:
    for task in TASKS:
        *calls, last = task.rounds
        assert 2 <= len(calls) <= 19
        assert task.context <= CONTEXT
        for of in calls:
            assert of.lengths.call > 0
            assert 0.02 <= of.tool_s <= 120.001
        assert last.lengths.call == 0 == last.tool_s
        assert last.lengths.answer > 0
        for of in task.rounds:
            assert of.lengths.prompt > 0
            assert of.lengths.reasoning > 0
    counts = Counter(len(task.rounds) for task in TASKS)
    assert set(counts) == set(range(3, 21))


def test_outputs_lie_between_those_of_the_two_agents_of_the_source() -> None:
    """Tokens per turn of Codex and of Claude Code in TraceLab: mean, p90 and p99.

    The p50 is above both: models that write their thoughts out have fewer turns of some words.
    """
    found = sorted(of.lengths.output for of in CALLS)
    assert 415 < statistics.fmean(found) < 690
    assert 252 < percentile(found, 50) < 320
    assert 939 < percentile(found, 90) < 1671
    assert 3508 < percentile(found, 99) < 6571


def test_tools_take_as_long_as_those_of_the_source() -> None:
    found = [of.tool_s for of in CALLS]
    for limit_s, share in ((1.0, 0.61), (10.0, 0.88), (60.0, 0.96)):
        assert sum(s < limit_s for s in found) / len(found) == pytest.approx(share, abs=0.01)
    assert 0.129 < percentile(sorted(found), 50) < 0.626  # of the two agents


def test_a_turn_takes_over_the_whole_context() -> None:
    task = AgentTask(
        5.0,
        (
            Round(Lengths(1000, 100, 10, 30), 2.5),
            Round(Lengths(200, 40, 0, 20), 0.5),
            Round(Lengths(50, 60, 70), 0.0),
        ),
    )
    first = first_turn(task, "one")
    assert (first.at_s, first.lengths) == (5.0, task.rounds[0].lengths)
    second = next_turn(first, 9.0)
    assert second is not None
    assert (second.at_s, second.lengths) == (11.5, Lengths(1340, 40, 0, 20))
    third = next_turn(second, 12.0)
    assert third is not None
    assert (third.at_s, third.lengths) == (12.5, Lengths(1450, 60, 70))
    assert third.longest == second.longest == first.longest == task.context == 1580
    assert next_turn(third, 20.0) is None
    assert {turn.conversation for turn in (first, second, third)} == {"one"}


def test_tasks_under_way_are_those_of_a_steady_state() -> None:
    """As many as Little's law has it, in the middle of their work."""
    rate, token_s = 2.0, 0.03
    found = list(agents.under_way(rate, token_s, 1))
    lasts = [sum(of.lengths.output * token_s + of.tool_s for of in task.rounds) for task in TASKS]
    assert len(found) == pytest.approx(rate * statistics.fmean(lasts), rel=0.15)
    assert all(a.at_s <= b.at_s for a, b in pairwise(found))
    waiting = sum(turn.at_s > 0 for turn in found)
    tools_s = statistics.fmean(sum(of.tool_s for of in task.rounds) for task in TASKS)
    assert waiting / len(found) == pytest.approx(tools_s / statistics.fmean(lasts), abs=0.05)
    assert len({turn.conversation for turn in found}) == len(found)
    assert all(turn.longest <= CONTEXT for turn in found)
    prompts = statistics.fmean(turn.lengths.prompt for turn in found)
    assert 8000 < prompts < 15_000  # the first turns have 4500


def test_the_named_workload_has_the_same_tasks() -> None:
    workload = named("agent")
    found = list(islice(workload.arrivals(0.5, 3), 200))
    assert [turn.rounds for turn in found] == [task.rounds for task in TASKS[:200]]
    assert [turn.at_s for turn in found] == [task.at_s for task in TASKS[:200]]
    assert len({turn.conversation for turn in found}) == 200
    with pytest.raises(WorkloadError, match="no rate of its own"):
        workload.arrivals(None, 3)
    bursty = list(islice(workload.arrivals(0.5, 3, burstiness=0.2), 500))
    assert describe(bursty).gap_cv == pytest.approx(0.2**-0.5, rel=0.2)


def test_a_description_counts_turns_and_tasks() -> None:
    rounds = (Round(Lengths(100, 10, 0, 5), 1.5), Round(Lengths(20, 30, 40), 0.0))
    one = Arrival(0.0, rounds[0].lengths, conversation="a", rounds=rounds)
    found = describe([one, dataclasses.replace(one, at_s=2.0, conversation="b")])
    assert found.requests == 2
    assert found.lengths["prompt"].mean == 60
    assert found.lengths["output"].mean == 42.5
    assert found.lengths["call"].mean == 5
    assert found.lengths["context"].mean == 205
    assert found.rounds is not None
    assert found.rounds.mean == 2
    assert found.tool_ms is not None
    assert found.tool_ms.mean == 1500
