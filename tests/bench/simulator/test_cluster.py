"""The simulator: its arithmetic, its determinism, and the equality of runs with short cuts."""

from __future__ import annotations

import dataclasses
import random
import statistics
from typing import Any

import pytest
from vllm.v1.core.sched.output import SchedulerOutput

from bench.simulator.cluster import ClusterRun, Window, simulate
from bench.simulator.defaults import MODEL
from bench.simulator.scheduler import Clock, SimulatedScheduler
from bench.simulator.scheduler_factory import InstanceSettings, SchedulerFactory
from bench.simulator.timeline import TAU_S, metrics_of
from bench.workloads.arrivals import Arrival, poisson, under_way
from bench.workloads.lengths import ARENA_HARD, Lengths
from workers.emulation.profile import load_profile
from workers.policy.settings import POLICIES, PolicySettings
from workers.scheduler.queues import Queues

PROFILE = load_profile("h100-qwen32b")
SETTINGS = InstanceSettings(profile=PROFILE, model=str(MODEL))
EVERYTHING = Window(0.0, 1e9)
SHORT = dataclasses.replace(ARENA_HARD, reasoning_most=120, answer_most=120)


def pressed(policy: str, **changes: Any) -> ClusterRun:
    """Two instances whose memory holds a handful of requests."""
    rng = random.Random(7)
    arrivals = [
        Arrival(index * 0.4, Lengths(20 + index, rng.randint(30, 400), rng.randint(20, 300)))
        for index in range(40)
    ]
    numbers = {"quantum_tokens": 60, "demotion_tokens": 200}
    settings = dataclasses.replace(
        SETTINGS, policy=policy, policy_numbers=numbers, kv_blocks=120, **changes
    )
    return simulate(settings, 2, arrivals, EVERYTHING)


def test_each_decision_plans_the_next_one() -> None:
    factory = SchedulerFactory(dataclasses.replace(SETTINGS, policy="slack", kv_blocks=60))
    scheduler = factory.scheduler(Clock())
    for name in "abcd":  # of whom three fit in
        scheduler.add_request(factory.request(name, Lengths(500, 50, 50), 0.0))
    scheduler.schedule()
    assert scheduler._dispatcher is not None
    assert scheduler._dispatcher.review_at == PolicySettings().review_s


def test_a_request_that_no_instance_can_take_is_refused_by_its_length() -> None:
    settings = dataclasses.replace(SETTINGS, kv_blocks=11)  # ten of them, without vLLM's own
    fits = [Arrival(1.0, Lengths(prompt=100, reasoning=30, answer=30))]
    assert len(simulate(settings, 1, fits, EVERYTHING).timelines) == 1
    with pytest.raises(ValueError, match="161 tokens arrives at 1 s; an instance takes 160"):
        simulate(settings, 1, [Arrival(1.0, Lengths(100, 30, 31))], EVERYTHING)


def test_a_request_alone_takes_what_the_profile_says() -> None:
    lengths = Lengths(prompt=100, reasoning=10, answer=5)
    run = simulate(SETTINGS, 1, [Arrival(3.0, lengths)], EVERYTHING)
    step = PROFILE.step
    now = 3.0 + step.seconds(0, 0, 100, 100 * 100)  # prefill, which generates the first token
    times = [now]
    for tokens in range(101, 115):
        now += step.seconds(1, tokens, 0, 0)
        times.append(now)
    timeline = run.timelines[0]
    assert timeline.boundary_s == pytest.approx(times[9])
    assert timeline.answer_s == pytest.approx(times[10:])
    assert timeline.finished_s == pytest.approx(times[14])
    assert run.totals[0].busy_s == pytest.approx(times[14] - 3.0)
    assert run.generated_tokens == 15
    assert run.totals[0].computed_tokens == 114  # the last token is generated, never computed


@pytest.mark.parametrize("policy", POLICIES)
def test_short_cuts_change_nothing(policy: str) -> None:
    quick, exact = pressed(policy, leaps=False), pressed(policy, exact=True)
    assert quick == exact
    assert sum(timeline.preemptions for timeline in quick.timelines) > 0
    assert sum(total.reloaded_tokens for total in quick.totals) > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_leaps_change_nothing(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = pressed(policy, offload=False, exact=True)
    taken: list[int] = []
    schedule = SimulatedScheduler.schedule

    def counted(scheduler: SimulatedScheduler) -> SchedulerOutput:
        taken.append(len(scheduler.step_ends) or 1)
        return schedule(scheduler)

    monkeypatch.setattr(SimulatedScheduler, "schedule", counted)
    assert pressed(policy, offload=False) == exact
    assert sum(total.steps for total in exact.totals) > 1.5 * len(taken)
    assert sum(timeline.preemptions for timeline in exact.timelines) > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_leaps_shift_nothing_but_stores(policy: str) -> None:
    """KV is stored a few steps later, which may change decisions, but not results."""
    quick, exact = pressed(policy), pressed(policy, exact=True)
    ttft_s = [
        statistics.mean(metrics_of(timeline).ttft_s for timeline in run.timelines)
        for run in (quick, exact)
    ]
    assert ttft_s[0] == pytest.approx(ttft_s[1], rel=0.1)
    assert quick.generated_tokens == exact.generated_tokens


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_gets_its_tokens_once(policy: str) -> None:
    run = pressed(policy, offload=False)
    assert len(run.timelines) == 40
    for timeline in run.timelines:
        assert len(timeline.answer_s) == timeline.lengths.answer
        assert timeline.answer_s == sorted(timeline.answer_s)
        assert timeline.finished_s == timeline.answer_s[-1]
    wanted = sum(t.lengths.reasoning + t.lengths.answer for t in run.timelines)
    assert run.generated_tokens == wanted
    prompts = sum(t.lengths.prompt for t in run.timelines)
    computed = sum(total.computed_tokens for total in run.totals)
    # What was computed beyond once is what preemptions had lost (some of it twice).
    recomputed = sum(total.recomputed_tokens for total in run.totals)
    assert recomputed > 0
    assert computed >= prompts + wanted - 40 + recomputed


def test_twice_the_same_is_the_same_and_another_seed_is_not() -> None:
    def run(seed: int) -> ClusterRun:
        return simulate(SETTINGS, 2, poisson(3.0, SHORT, seed), Window(1.0, 4.0))

    assert run(1) == run(1)
    assert run(1).timelines != run(2).timelines


def test_load_goes_on_until_the_measured_requests_are_done() -> None:
    run = simulate(SETTINGS, 1, poisson(1.0, SHORT, 3), Window(2.0, 6.0))
    assert all(2.0 <= timeline.arrival_s < 6.0 for timeline in run.timelines)
    assert all(timeline.finished_s is not None for timeline in run.timelines)
    # More was generated than the measured ones asked for.
    asked = sum(t.lengths.reasoning + t.lengths.answer for t in run.timelines)
    assert sum(total.generated_tokens for total in run.totals) > asked


def test_readers_of_slack_are_fed_where_others_starve() -> None:
    def underruns(policy: str) -> int:
        found = [metrics_of(timeline) for timeline in pressed(policy).timelines]
        return sum(request.underruns_by_preemption for request in found)

    assert underruns("pascal") > 0
    assert underruns("slack") < underruns("pascal")


def test_lengths_have_the_paper_s_means() -> None:
    rng = random.Random(1)
    drawn = [ARENA_HARD.draw(rng) for _ in range(20_000)]
    assert sum(d.reasoning for d in drawn) / len(drawn) == pytest.approx(950, rel=0.05)
    assert sum(d.answer for d in drawn) / len(drawn) == pytest.approx(824, rel=0.05)
    assert TAU_S == 0.1


def test_a_steady_state_holds_what_little_s_law_says() -> None:
    token_s, rate = 0.03, 40.0
    found = list(under_way(rate, ARENA_HARD, token_s, 1))
    tokens = 950 + 824
    assert len(found) == pytest.approx(rate * tokens * token_s, rel=0.1)
    # Long requests are more frequent among running ones, which are half done on average.
    rng = random.Random(2)
    drawn = [ARENA_HARD.draw(rng) for _ in range(20_000)]
    outputs = [d.reasoning + d.answer for d in drawn]
    left = statistics.fmean(output * output for output in outputs) / tokens / 2
    assert statistics.fmean(
        arrival.lengths.reasoning + arrival.lengths.answer for arrival in found
    ) == pytest.approx(left, rel=0.15)


@pytest.mark.parametrize("policy", ["rr", "pascal", "slack"])
def test_tokens_that_are_counted_late_are_counted_right(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = pressed(policy, offload=False, leaps=False)
    monkeypatch.setattr(Queues, "_quiet_tokens", lambda *_: 0)
    assert pressed(policy, offload=False, leaps=False) == late


def test_the_oldest_of_a_steady_state_come_first() -> None:
    found = list(under_way(40.0, ARENA_HARD, 0.03, 1))
    done = [arrival.lengths.prompt for arrival in found]  # prompts are short, at most 4000
    assert statistics.fmean(done[: len(done) // 4]) > 2 * statistics.fmean(done[-len(done) // 4 :])
