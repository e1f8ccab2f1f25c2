"""Latency, split into executed, blocked and preempted: the parts add up, in simulations as well."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulator.cluster import NO_MIGRATION, ClusterRun, Window, simulate
from bench.simulator.defaults import MODEL
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.span_watch import SpanWatch
from bench.simulator.spans import Split, phases, split
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths
from workers.emulation.profile import load_profile

EVERYTHING = Window(0.0, 1e9)
SETTINGS = InstanceSettings(profile=load_profile("h100-qwen32b"), model=str(MODEL))


def test_a_phase_is_split_at_its_first_span() -> None:
    spans = [(2.0, 4.0), (7.0, 11.0)]
    assert split(spans, 1.0, 8.0) == Split(3.0, 1.0, 3.0)
    assert split(spans, 3.0, 7.5) == Split(1.5, 0.0, 3.0)
    assert split(spans, 8.0, 10.0) == Split(2.0, 0.0, 0.0)
    assert split(spans, 8.0, 12.0) == Split(3.0, 0.0, 1.0)
    assert split(spans, 4.0, 7.0) == Split(0.0, 3.0, 0.0)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=12), st.floats(0, 100), st.floats(0, 100))
def test_the_parts_are_the_whole(moments: list[float], one: float, two: float) -> None:
    moments = sorted(moments[: len(moments) // 2 * 2])
    spans = list(zip(moments[::2], moments[1::2], strict=True))
    from_s, to_s = sorted((one, two))
    found = split(spans, from_s, to_s)
    assert found.whole_s == pytest.approx(to_s - from_s)
    assert min(found.executed_s, found.blocked_s, found.preempted_s) >= -1e-9


def pressed(policy: str, boundary: str = "off") -> tuple[ClusterRun, SpanWatch]:
    """Two instances with memory for a few requests each."""
    rng = random.Random(7)
    arrivals = [
        Arrival(index * 0.4, Lengths(20 + index, rng.randint(30, 400), rng.randint(20, 300)))
        for index in range(40)
    ]
    settings = dataclasses.replace(
        SETTINGS,
        policy=policy,
        policy_numbers={"quantum_tokens": 60},
        kv_blocks=120,
        migration=boundary != "off",
    )
    watch = SpanWatch()
    rules = dataclasses.replace(NO_MIGRATION, boundary=boundary)
    return simulate(settings, 2, arrivals, EVERYTHING, rules=rules, watch=watch), watch


@pytest.mark.parametrize(("policy", "boundary"), [("fcfs", "off"), ("pascal", "always")])
def test_phases_add_up_and_only_preempted_requests_have_preempted_time(
    policy: str, boundary: str
) -> None:
    run, watch = pressed(policy, boundary)
    assert sum(timeline.preemptions for timeline in run.timelines) > 0
    for timeline, spans in zip(run.timelines, watch.spans(run.timelines), strict=True):
        reasoning, answering = phases(spans)
        assert timeline.boundary_s is not None
        assert timeline.finished_s is not None
        assert reasoning.whole_s == pytest.approx(timeline.boundary_s - timeline.arrival_s)
        assert answering.whole_s == pytest.approx(timeline.finished_s - timeline.boundary_s)
        tokens = timeline.lengths.reasoning + timeline.lengths.answer
        base_s = SETTINGS.profile.step.base_s
        # Every token takes a step. The first answering one comes in the step after the boundary.
        assert reasoning.executed_s + answering.executed_s >= tokens * base_s * 0.999
        if not timeline.preemptions and boundary == "off":
            assert reasoning.preempted_s == answering.preempted_s == 0
        if timeline.preemptions:
            waited_s = reasoning.preempted_s + answering.preempted_s + answering.blocked_s
            assert waited_s > 0


def test_moved_requests_are_blocked_until_their_kv_arrives() -> None:
    run, watch = pressed("pascal", "always")
    assert run.migrations > 3
    blocked = [phases(spans)[1].blocked_s for spans in watch.spans(run.timelines)]
    assert sum(seconds > 0 for seconds in blocked) >= run.migrations / 2


def test_recording_changes_nothing() -> None:
    watched, _ = pressed("slack")
    rng = random.Random(7)
    arrivals = [
        Arrival(index * 0.4, Lengths(20 + index, rng.randint(30, 400), rng.randint(20, 300)))
        for index in range(40)
    ]
    settings = dataclasses.replace(
        SETTINGS, policy="slack", policy_numbers={"quantum_tokens": 60}, kv_blocks=120
    )
    assert simulate(settings, 2, arrivals, EVERYTHING) == watched
