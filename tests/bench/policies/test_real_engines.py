"""Policies on real engines: arrivals, readers, and one small run of all policies."""

from __future__ import annotations

import itertools
import os
import random
import statistics

import pytest

from bench.policies.engine_process import ProcessFailed
from bench.policies.real_engines import (
    LEAST_TOKENS,
    MOST,
    SCALE,
    SETTINGS,
    Extent,
    Load,
    ScaledLengths,
    arrivals,
    least_blocks,
    load_for,
    measure_apart,
    numbers,
    policy_order,
    scaled,
)
from bench.simulator.results import ORACLE, policy_result
from bench.simulator.timeline import Timeline
from bench.simulator.watermark import NAME, expanded
from bench.workloads.lengths import ARENA_HARD, Lengths
from workers.policy.settings import POLICIES, PolicySettings

WATERMARKS = expanded((NAME,))


def test_requests_are_a_fifth_as_long_and_none_is_out_of_bounds() -> None:
    assert scaled(Lengths(100, 1000, 500)) == Lengths(20, 200, 100)
    assert scaled(Lengths(1, 1, 1)) == Lengths(LEAST_TOKENS, LEAST_TOKENS, LEAST_TOKENS)
    assert scaled(Lengths(10**6, 10**6, 10**6)) == MOST
    rng = random.Random(1)
    drawn = [ARENA_HARD.draw(rng) for _ in range(2000)]
    full = statistics.fmean(one.reasoning for one in drawn)
    assert statistics.fmean(scaled(one).reasoning for one in drawn) == pytest.approx(
        full / SCALE, rel=0.08
    )


def test_arrivals_begin_with_a_steady_state_and_are_the_same_for_a_seed() -> None:
    load = Load(step_s=0.01, rate=20.0)
    found = arrivals(load, seed=3, until_s=200.0)
    times = [one.arrival_s for one in found]
    assert times == sorted(times)
    later = [at_s for at_s in times if at_s > 0.0]
    assert len(later) == pytest.approx(4000, rel=0.05)
    gaps = [b - a for a, b in itertools.pairwise(later)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.1)
    again = arrivals(load, seed=3, until_s=100.0)
    assert [(one.arrival_s, one.lengths) for one in again] == [
        (one.arrival_s, one.lengths) for one in found if one.arrival_s < 100.0
    ]
    assert arrivals(load, seed=4, until_s=100.0)[-1].lengths != again[-1].lengths
    assert 40 < len(times) - len(later) < 100  # 20 a second, of some 350 tokens each


def test_the_load_keeps_the_oracle_as_busy_as_planned() -> None:
    sizes = [8 * group + 4 for group in range(1, 12)]
    steps = [(size, (0.004 + 0.0001 * size) * held_up) for size in sizes for held_up in (1, 1, 9)]
    load = load_for(40, steps)
    assert load.step_s == pytest.approx(0.008)
    rng = random.Random(9)
    drawn = [ScaledLengths().draw(rng) for _ in range(20_000)]
    output = statistics.fmean(one.reasoning + one.answer for one in drawn)
    # Little's law: requests in the engine = arrivals during the stay of one.
    assert load.rate * output * load.step_s == pytest.approx(40, rel=0.03)


def test_memory_that_is_cut_still_holds_the_longest_request() -> None:
    requests = [Timeline(0.0, Lengths(prompt=9, reasoning=500, answer=n)) for n in (30, 300, 200)]
    blocks, size = least_blocks(requests), SETTINGS.block_size or 0
    assert (blocks - 2) * size < 809 <= (blocks - 1) * size


@pytest.mark.parametrize("policy", [ORACLE, *POLICIES, *WATERMARKS])
def test_times_follow_the_step(policy: str) -> None:
    found = numbers(policy, Load(step_s=0.01, rate=1.0))
    default = PolicySettings()
    assert found.policy == ("fcfs" if policy in (ORACLE, *WATERMARKS) else policy)
    assert found.tau_s == pytest.approx(0.03)
    assert found.low_water_s / found.tau_s == pytest.approx(default.low_water_s / default.tau_s)
    assert found.quantum_tokens * SCALE == default.quantum_tokens


def test_the_oracle_goes_first_and_the_others_take_policy_order() -> None:
    orders = [policy_order(number, seed) for number in range(4) for seed in (100, 200)]
    assert all(order[0] == ORACLE for order in orders)
    everyone = sorted((*POLICIES, *WATERMARKS))
    assert all(sorted(order[1:]) == everyone for order in orders)
    assert len({order[1] for order in orders}) > 2


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.long
def test_every_policy_serves_the_same_requests_with_exact_lengths() -> None:
    """The process of the engine itself fails if it misses a forced length."""
    lines: list[str] = []
    core = min(os.sched_getaffinity(0))
    extent = Extent(
        seed=100, rounds=1, running=8, warm_steps=0, window_steps=200, cool_steps=0, burst=24
    )
    runs = measure_apart(core, extent, lines.append)
    assert [run.policy for run in runs] == policy_order(0, 100)
    assert len({tuple(r.reasoning_tokens for r in run.requests) for run in runs}) == 1
    oracle = runs[0]
    assert len(oracle.requests) >= 3
    assert sum(request.preemptions for request in oracle.requests) == 0
    for run in runs[1:]:
        assert run.kv_peak_blocks < oracle.kv_peak_blocks
        assert run.generated_tokens == oracle.generated_tokens
        assert policy_result([run], [oracle])["completed"] == len(oracle.requests)
    assert any(request.preemptions for run in runs[1:] for request in run.requests)
    assert len(lines) == len(runs) + 1


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(ProcessFailed, match=r"core 32768: .*Invalid argument"):
        measure_apart(2**15, Extent(seed=1, rounds=1), print)  # there is no such core
