"""Judgements of series whose slope is known."""

from __future__ import annotations

import math
import random

import pytest

from tests.soak.growth.slopes import Judgement, judge

WINDOW_S = 2700.0
SAMPLES = 540  # one in 5 s


def judged(values: list[float], window_s: float = WINDOW_S) -> Judgement:
    times_s = [window_s * i / len(values) for i in range(len(values))]
    return judge(times_s, values, rise=4.0, share=0.02)


def noise(seed: int, sigma: float, memory: float = 0.0, count: int = SAMPLES) -> list[float]:
    """Values around 100; each keeps ``memory`` of the one before. ``sigma`` is that of the sum."""
    rng = random.Random(seed)
    values, value = [], 0.0
    for _ in range(count):
        value = memory * value + rng.gauss(0, sigma * math.sqrt(1 - memory**2))
        values.append(100 + value)
    return values


@pytest.mark.parametrize("memory", [0.0, 0.9, 0.98])
def test_noise_is_steady_whatever_its_correlation(memory: float) -> None:
    verdicts = [judged(noise(seed, 3.0, memory)).verdict for seed in range(40)]
    assert verdicts.count("grows") <= 2  # 1 in 40 is due by its interval


def test_the_interval_holds_the_truth_as_often_as_it_says_although_neighbours_agree() -> None:
    judgements = [judged(noise(seed, 3.0, 0.95)) for seed in range(80)]
    missed = sum(not one.low <= 0 <= one.high for one in judgements)
    assert missed <= 10  # 4 are due


@pytest.mark.parametrize(("memory", "least_of_25"), [(0.0, 25), (0.9, 15)])
def test_a_leak_of_two_sigma_over_the_window_is_found(memory: float, least_of_25: int) -> None:
    rises = 2 * 4.0  # sigma is 4
    leaks = 0
    for seed in range(25):
        values = noise(seed, 4.0, memory)
        leaking = [value + rises * i / SAMPLES for i, value in enumerate(values)]
        leaks += judged(leaking).failed
    assert leaks >= least_of_25  # samples that agree with their neighbours say less


def test_a_leak_is_found_in_two_minutes_and_its_slope_is_right() -> None:
    values = [value + 20 * i / 40 for i, value in enumerate(noise(1, 2.0, count=40))]
    judgement = judged(values, window_s=90.0)
    assert judgement.verdict == "grows"
    assert judgement.low < 20 / 90 * 3600 < judgement.high
    assert judgement.slope == pytest.approx(20 / 90 * 3600, rel=0.15)


def test_growth_below_what_is_allowed_is_no_leak() -> None:
    judgement = judged([100 + 3 * i / SAMPLES for i in range(SAMPLES)])
    assert judgement.low > 0
    assert judgement.verdict == "steady"


def test_a_fall_is_no_leak() -> None:
    assert judged([200 - i / 10 for i in range(SAMPLES)]).verdict == "steady"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_one_step_is_no_leak(share: float) -> None:
    values = [v + (30 if i > share * SAMPLES else 0) for i, v in enumerate(noise(2, 1.0))]
    assert judged(values).verdict in ("step", "steady")


def test_what_fills_up_and_stays_full_is_no_leak() -> None:
    values = [v + 40 * (1 - math.exp(-i / 80)) for i, v in enumerate(noise(6, 0.5))]
    assert judged(values).verdict == "steady"  # no line describes it: the interval is wide


def test_a_leak_under_slow_waves_is_found() -> None:
    waves = [100 + 2 * math.sin(i / 40) + 40 * i / SAMPLES for i in range(SAMPLES)]
    assert judged(waves).verdict == "grows"


def test_a_staircase_is_a_leak() -> None:
    values = [value + 10 * (i // 90) for i, value in enumerate(noise(3, 1.0))]
    assert judged(values).verdict == "grows"


@pytest.mark.parametrize("period", [7, 60, 130])
def test_the_sawtooth_of_a_garbage_collector_is_steady(period: int) -> None:
    values = [value + 20 * (i % period) / period for i, value in enumerate(noise(4, 1.0))]
    assert judged(values).verdict == "steady"


def test_a_leak_under_a_sawtooth_is_found() -> None:
    saw = [value + 20 * (i % 60) / 60 for i, value in enumerate(noise(5, 1.0))]
    assert judged([v + 30 * i / SAMPLES for i, v in enumerate(saw)]).verdict == "grows"


def test_a_constant_and_a_handful_of_samples_are_no_leak() -> None:
    assert judged([7.0] * SAMPLES).verdict == "steady"
    assert judged([1.0, 2.0, 3.0]).verdict == "too short"
