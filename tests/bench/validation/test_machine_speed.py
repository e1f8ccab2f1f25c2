"""A machine of changing speed: measured from steps, removed from a fit, put into a simulation."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from bench.policies.engine_clock import CLOCKS, ClockName
from bench.policies.real_engines import SETTINGS
from bench.validation.machine_speed import (
    WINDOW_S,
    SlowedTimes,
    agreement,
    during,
    fit_slowed,
    slowdowns,
)
from bench.validation.replay_engine import Trace
from bench.validation.runs import simulated
from bench.validation.step_fit import fit_steps
from workers.emulation.device import BatchTable, StepTimes
from workers.emulation.profile import load_profile
from workers.step_log import LoggedStep

TIMES = StepTimes(
    base_s=0.004,
    per_request_s=2e-4,
    per_kv_token_s=1e-7,
    prefill_base_s=1e-3,
    prefill_per_token_s=5e-5,
    prefill_per_token2_s=1e-9,
    table=BatchTable(decodes=(1, 8, 16), seconds=(0.004, 0.005, 0.006)),
)


def step(decodes: int, factor: float, prefill: int = 0) -> LoggedStep:
    kv = 100 * decodes
    took_s = factor * TIMES.seconds(decodes, kv, prefill, prefill**2)
    prefills = 1 if prefill else 0
    return LoggedStep(2 * took_s, took_s, decodes, kv, prefill, prefill**2, prefills)


def spell(factors: Iterator[float], rng: random.Random) -> list[LoggedStep]:
    """Steps on a machine that changes its speed with every window."""
    found: list[LoggedStep] = []
    spent_s, window, factor = 0.0, 0, next(factors)
    for _ in range(1000):
        if spent_s >= (window + 1) * WINDOW_S:
            window, factor = window + 1, next(factors)
        found.append(step(rng.randint(1, 16), factor, rng.choice([0] * 20 + [50, 100])))
        spent_s += found[-1].processor_s
    return found


def test_slowdowns_are_those_of_the_machine() -> None:
    wanted = [1.0, 1.5, 0.8, 1.2]
    steps = spell(itertools.cycle(wanted), random.Random(1))
    found = slowdowns(TIMES, steps, "processor")
    assert found[:4] == pytest.approx(wanted, rel=0.02)
    assert slowdowns(TIMES, steps[:10], "wall") == pytest.approx([2.0])


def test_windows_do_not_drift_however_long_it_lasts() -> None:
    """If steps follow the model, the slowdowns of a device can be measured from its steps."""
    rng = random.Random(3)
    wanted = [rng.uniform(0.5, 2.0) for _ in range(200)]
    slowed = SlowedTimes.of(TIMES, wanted)
    steps, spent_s = [], 0.0
    while spent_s < 200 * WINDOW_S:
        decodes = rng.randint(1, 16)
        took_s = slowed.seconds(decodes, 100 * decodes, 0, 0)
        steps.append(LoggedStep(took_s, took_s, decodes, 100 * decodes, 0, 0, 0))
        spent_s += took_s
    found = slowdowns(TIMES, steps, "processor")
    assert found == pytest.approx(wanted[: len(found)])
    assert len(found) >= 199


def test_what_has_not_been_seen_is_as_before() -> None:
    long = step(1, 3.0 * WINDOW_S / TIMES.seconds(1, 100, 0, 0))
    assert slowdowns(TIMES, [long, step(1, 1.0)], "processor") == pytest.approx(
        [3.0 * WINDOW_S / TIMES.seconds(1, 100, 0, 0)] * 3
    )
    begun = [step(1, 2.0) for _ in range(60)]  # 0.48 s: of the second window too little is seen
    assert slowdowns(TIMES, begun, "processor") == pytest.approx([2.0])
    assert slowdowns(TIMES, [], "processor") == [1.0]


def test_agreement_is_of_slowdowns_at_the_same_time() -> None:
    factors = [1.0, 2.0, 0.5, 1.5, 3.0, 0.7, 1.2, 2.5, 1.1, 0.6] * 8
    one, other = (spell(iter(factors), random.Random(seed)) for seed in (1, 2))
    late = spell(iter(factors[1:] + factors[:1]), random.Random(3))
    alike, unlike = agreement(TIMES, [(one, other)]), agreement(TIMES, [(one, late)])
    assert alike is not None
    assert unlike is not None
    assert alike > 0.98 > 0.5 > unlike
    assert agreement(TIMES, [(one[:9], other)]) is None
    assert agreement(TIMES, []) is None


@pytest.mark.parametrize("clock", CLOCKS)
def test_slowdowns_are_divided_out_on_either_clock(clock: ClockName) -> None:
    rng = random.Random(4)
    spells = [spell(iter([2.0] * 80), rng), spell(iter([0.5] * 80), rng)]
    found = fit_slowed(spells, clock)
    assert found.median_error < 0.01


def test_a_fit_without_the_wandering_finds_the_device() -> None:
    rng = random.Random(2)
    spells = [spell(iter([rng.uniform(0.7, 1.4) for _ in range(40)]), rng) for _ in range(4)]
    naive = fit_steps([one for steps in spells for one in steps], "processor")
    found = fit_slowed([*spells, []], "processor")

    def shape(times: StepTimes) -> float:
        """The ratio of two step times, which a common factor does not change."""
        return times.seconds(16, 1600, 0, 0) / times.seconds(1, 100, 0, 0)

    assert shape(found.times) == pytest.approx(shape(TIMES), rel=0.02)
    assert abs(shape(found.times) - shape(TIMES)) < abs(shape(naive.times) - shape(TIMES))
    assert found.median_error < 0.3 * naive.median_error


def test_slowed_times_go_through_the_windows_and_stay_in_the_last() -> None:
    slowed = SlowedTimes.of(TIMES, [2.0, 3.0])
    usual_s = TIMES.seconds(8, 0, 0, 0)
    took = [slowed.seconds(8, 0, 0, 0) for _ in range(200)]
    first = next(i for i, s in enumerate(took) if s > 2.5 * usual_s)
    assert took[:first] == pytest.approx([2.0 * usual_s] * first)
    assert sum(took[: first - 1]) < WINDOW_S <= sum(took[:first])
    assert took[first:] == pytest.approx([3.0 * usual_s] * (200 - first))
    assert SlowedTimes.of(TIMES, [2.0]).seconds(8, 0, 0, 0) == took[0], "of a run of its own"


def test_only_what_happened_beside_the_other_counts() -> None:
    steps = [step(1, 1.0) for _ in range(10)]
    assert during(steps, steps[:4]) == steps[:4]
    assert during(steps, [*steps, *steps]) == steps
    assert during(steps, []) == []


def test_a_simulation_on_a_slowed_machine_takes_as_long_as_its_steps() -> None:
    profile = load_profile("h100-qwen32b")
    trace = Trace(
        name="one", requests=((0.0, 50, 40, 60),), policy="slack", numbers={}, kv_blocks=500
    )

    def e2e_s(factors: list[float] | None) -> float:
        (one,) = simulated(trace, profile, SETTINGS, factors)
        return one.e2e_s

    def expected_s(factors: list[float]) -> float:
        times = SlowedTimes.of(profile.step, factors)
        prefill_s = times.seconds(0, 0, 50, 50**2)
        return prefill_s + sum(times.seconds(1, 50 + index, 0, 0) for index in range(1, 100))

    assert e2e_s(None) == pytest.approx(expected_s([1.0]), rel=1e-6)
    for factors in ([1.0], [2.0], [1.0, 4.0, 0.5, 2.0, 1.0, 3.0]):
        assert e2e_s(factors) == pytest.approx(expected_s(factors), rel=1e-6)
    assert e2e_s([2.0]) == pytest.approx(2 * e2e_s(None))
