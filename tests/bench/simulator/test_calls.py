"""Turns of agents in the simulator: thoughts, a call, and the next turn with its result."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from bench.simulator.cluster import ClusterRun, Window, simulate
from bench.simulator.defaults import MODEL
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.timeline import Timeline, call_end_s, metrics_of
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths
from workers.emulation.profile import load_profile

SETTINGS = InstanceSettings(profile=load_profile("h100-qwen32b"), model=str(MODEL), policy="slack")
CALL = Lengths(prompt=200, reasoning=60, answer=0, call=40)
BOTH = Lengths(prompt=200, reasoning=60, answer=30, call=40)
PROSE = Lengths(prompt=200, reasoning=60, answer=90)
ALL = Window(0.0, 10_000.0)


def run(arrivals: list[Arrival], follow: Any = None, **changes: Any) -> ClusterRun:
    settings = dataclasses.replace(SETTINGS, **changes)
    if follow is None:
        return simulate(settings, 1, arrivals, ALL)
    return simulate(settings, 1, arrivals, ALL, follow=follow)


def times(found: ClusterRun) -> list[tuple[Any, ...]]:
    return [
        (t.arrival_s, t.boundary_s, tuple(t.answer_s), tuple(t.call_s), t.finished_s, t.preemptions)
        for t in found.timelines
    ]


def test_every_token_of_a_turn_is_counted_in_its_phase() -> None:
    found = run([Arrival(0.0, lengths) for lengths in (CALL, BOTH, PROSE)])
    for timeline, (answers, calls) in zip(
        found.timelines, ((0, 40), (30, 40), (90, 0)), strict=True
    ):
        assert (len(timeline.answer_s), len(timeline.call_s)) == (answers, calls)
        assert timeline.finished_s == [*timeline.answer_s, *timeline.call_s][-1]
        assert timeline.boundary_s is not None
        assert timeline.boundary_s < [*timeline.answer_s, *timeline.call_s][0]
    assert found.generated_tokens == CALL.output + BOTH.output + PROSE.output
    assert metrics_of(found.timelines[1]).underruns == 0


@pytest.mark.parametrize("calls", ["calling", "answering"])
@pytest.mark.parametrize("policy", ["slack", "pascal", "rr", "fcfs"])
def test_leaps_change_nothing(policy: str, calls: str) -> None:
    """Phases turn at the same tokens whether steps are taken one by one or together."""
    mix = [CALL, PROSE, BOTH, dataclasses.replace(CALL, call=1), dataclasses.replace(BOTH, call=2)]
    arrivals = [Arrival(0.05 * place, mix[place % len(mix)]) for place in range(20)]
    changes: dict[str, Any] = {
        "policy": policy,
        "policy_numbers": {"calls": calls, "quantum_tokens": 50, "after_call_tokens": 4},
        "kv_blocks": 80,
        "offload": False,
    }
    whole, steps = run(arrivals, **changes), run(arrivals, **changes, leaps=False)
    assert times(whole) == times(steps)
    assert sum(t.preemptions for t in whole.timelines) > 0


def test_calls_go_before_answers_where_memory_is_short() -> None:
    """As answers, calls wait behind the thoughts of others; as calls, they do not."""
    arrivals = [Arrival(0.0, dataclasses.replace(CALL, call=200)) for _ in range(4)]
    arrivals += [Arrival(0.5 + 0.2 * n, Lengths(200, 600, 50)) for n in range(12)]

    def ended_s(calls: str) -> float:
        numbers = {"calls": calls, "quantum_tokens": 2000}
        found = run(arrivals, policy="pascal", policy_numbers=numbers, kv_blocks=130)
        ends = [t.finished_s for t in found.timelines if t.lengths.call]
        assert None not in ends
        return sum(end for end in ends if end is not None) / len(ends)

    assert ended_s("calling") < 0.8 * ended_s("answering")


def test_the_next_turn_follows_the_call_and_finds_the_kv_of_its_prompt() -> None:
    rounds: list[Timeline] = []

    def follow(timeline: Timeline) -> Arrival | None:
        if timeline.conversation != "agent":
            return None
        rounds.append(timeline)
        if len(rounds) == 4:
            return None
        done = timeline.finished_s
        assert done is not None
        lengths = PROSE if len(rounds) == 3 else CALL
        longer = dataclasses.replace(lengths, prompt=timeline.lengths.prompt + 2000)
        return Arrival(done + 1.5, longer, conversation="agent")

    first = Arrival(0.0, dataclasses.replace(CALL, prompt=2000), conversation="agent")
    found = run([first, Arrival(60.0, PROSE)], follow)
    assert len(found.timelines) == 5
    for before, after in itertools.pairwise(rounds):
        assert before.finished_s is not None
        assert after.arrival_s == before.finished_s + 1.5
    # Each prompt is computed from where the one before it ended, up to a block.
    prompts = 2000 + 3 * 2000 + PROSE.prompt
    outputs = 3 * CALL.output + 2 * PROSE.output
    computed = found.totals[0].computed_tokens
    assert prompts <= computed - outputs + len(found.timelines) <= prompts + 5 * 16


def test_a_paced_call_reaches_its_agent_at_the_readers_pace() -> None:
    timeline = Timeline(0.0, BOTH)
    timeline.produced_all(0, [0.01 * n for n in range(1, BOTH.output + 1)], 0)
    assert call_end_s(timeline) == pytest.approx(1.3)
    first_s = timeline.answer_s[0]
    assert call_end_s(timeline, 0.1) == pytest.approx(first_s + 69 * 0.1)
