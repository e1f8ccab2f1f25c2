"""The fit of step times: it recovers known times, also with outliers."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from bench.policies.engine_clock import ProcessorClock, Share, WallClock, clock_of
from bench.validation.step_fit import FitError, fit_steps
from workers.emulation.device import BatchTable, StepTimes
from workers.step_log import LoggedStep

# No line: the second request costs more than each further one.
TRUE = StepTimes(
    base_s=4e-3,
    per_request_s=5e-5,
    per_kv_token_s=4e-7,
    prefill_base_s=1e-3,
    prefill_per_token_s=8e-5,
    prefill_per_token2_s=2e-9,
    table=BatchTable(decodes=(1, 2, 5, 20), seconds=(4e-3, 4.8e-3, 5e-3, 6e-3)),
)


def steps(count: int, held_up: Callable[[random.Random], float]) -> list[LoggedStep]:
    """Steps as an engine logs them; its thread had a processor for half of the time."""
    rng = random.Random(5)
    found = []
    for _ in range(count):
        decodes = rng.randint(0, 20)
        kv = decodes * rng.randint(20, 600)
        prefill = rng.randint(8, 800) if not decodes or rng.random() < 0.1 else 0
        computed = rng.randint(0, 500) if prefill else 0
        prefill2 = prefill * (2 * computed + prefill)
        took = TRUE.seconds(decodes, kv, prefill, prefill2) * held_up(rng)
        found.append(LoggedStep(2 * took, took, decodes, kv, prefill, prefill2, int(prefill > 0)))
    return found


def test_what_the_steps_were_made_of_is_found_again() -> None:
    fit = fit_steps(steps(3000, lambda rng: rng.gauss(1.0, 0.05)), "processor")
    for decodes, kv, prefill, prefill2 in (
        (1, 100, 0, 0),
        (2, 400, 0, 0),
        (4, 900, 0, 0),
        (12, 5000, 0, 0),
        (20, 9000, 0, 0),
        (8, 2000, 100, 10_000),
        (0, 0, 600, 360_000),
    ):
        assert fit.times.seconds(decodes, kv, prefill, prefill2) == pytest.approx(
            TRUE.seconds(decodes, kv, prefill, prefill2), rel=0.03
        )
    assert fit.median_error == pytest.approx(0.67 * 0.05, rel=0.2)
    assert fit.window_error < 0.02
    assert fit.share.had == pytest.approx(0.5)


def test_either_time_of_a_step_can_be_fitted() -> None:
    logged = steps(1000, lambda rng: 1.0)
    wall, processor = fit_steps(logged, "wall").times, fit_steps(logged, "processor").times
    assert wall.seconds(5, 0, 0, 0) == pytest.approx(2 * processor.seconds(5, 0, 0, 0))


def test_steps_that_were_held_up_do_not_bend_it_but_are_paid_for() -> None:
    def held_up(rng: random.Random) -> float:
        return 3.0 if rng.random() < 0.1 else 1.0

    logged = steps(4000, held_up)
    times = fit_steps(logged, "processor").times
    # All the same: the shape is that of the others, times the mean of 0.9 * 1 and 0.1 * 3.
    for decodes, kv in ((1, 100), (5, 2000), (20, 10_000)):
        expected = 1.2 * TRUE.seconds(decodes, kv, 0, 0)
        assert times.seconds(decodes, kv, 0, 0) == pytest.approx(expected, rel=0.04)
    whole = sum(times.seconds(s.decodes, s.decode_kv_tokens, *s[4:6]) for s in logged)
    assert whole == pytest.approx(sum(s.processor_s for s in logged), rel=0.01)


def test_a_machine_that_stood_still_for_a_second_is_not_the_engine() -> None:
    logged = steps(1000, lambda rng: 1.0)
    stood = [*logged, logged[5]._replace(processor_s=30.0)]
    expected = fit_steps(logged, "processor").times.seconds(5, 1000, 0, 0)
    assert fit_steps(stood, "processor").times.seconds(5, 1000, 0, 0) == pytest.approx(
        expected, rel=0.01
    )


def test_nothing_saves_time() -> None:
    noise = steps(400, lambda rng: rng.uniform(0.2, 3.0))
    times = fit_steps(noise, "processor").times
    table = times.table
    assert table is not None
    assert list(table.seconds) == sorted(table.seconds)
    assert times.base_s == table.seconds[0] > 0.0
    for name in StepTimes.__struct_fields__[:-1]:
        assert getattr(times, name) > 0.0


def test_too_little_is_refused() -> None:
    logged = steps(600, lambda rng: 1.0)
    with pytest.raises(FitError, match="at least 200"):
        fit_steps(logged[:100], "processor")
    with pytest.raises(FitError, match="0 steps"):
        fit_steps([], "wall")
    with pytest.raises(FitError, match="computes a prompt"):
        fit_steps([s._replace(prefill_tokens=0, prefills=0) for s in logged], "processor")


def test_a_processor_s_clock_leaps_over_waiting() -> None:
    clock = clock_of("processor")
    assert isinstance(clock, ProcessorClock)
    began_s = clock.now()
    clock.wait(began_s + 1000.0)
    assert 1000.0 <= clock.now() - began_s < 1010.0
    clock.wait(began_s)  # past already
    assert clock.now() - began_s < 1010.0
    assert isinstance(clock_of("wall"), WallClock)


def test_a_share_is_one_on_a_quiet_machine() -> None:
    assert Share(2.0, 1.0).had == 0.5
    assert Share(1.0, 1.001).had == 1.0
    assert Share(0.0, 0.0).had == 1.0
