from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.workloads.arrivals import Arrival, gamma, poisson, under_way
from bench.workloads.lengths import ARENA_HARD, Lengths

rates = st.floats(0.01, 1000)
shapes = st.floats(0.05, 50)
seeds = st.integers() | st.text(max_size=8)


def gaps(arrivals: Iterator[Arrival], count: int) -> list[float]:
    times = [arrival.at_s for arrival in islice(arrivals, count)]
    return [b - a for a, b in pairwise([0.0, *times])]


def sums(arrivals: list[Arrival]) -> tuple[int, int, int]:
    drawn = [arrival.lengths for arrival in arrivals]
    return (
        sum(lengths.prompt for lengths in drawn),
        sum(lengths.reasoning for lengths in drawn),
        sum(lengths.answer for lengths in drawn),
    )


def test_what_was_published_is_drawn_again() -> None:
    """Results under docs/ were measured with these arrivals."""
    found = list(islice(poisson(4.4, ARENA_HARD, 7), 2000))
    assert found[0].lengths == Lengths(165, 1352, 1693)
    # Logarithms may differ in the last bit from one machine to the next.
    assert found[0].at_s == pytest.approx(0.08893519187154642, rel=1e-14)
    assert found[-1].at_s == pytest.approx(445.20914728001196, rel=1e-14)
    assert sums(found) == (192_515, 1_966_017, 1_711_887)
    there = list(under_way(4.4, ARENA_HARD, 0.03, 7))
    assert there[0] == Arrival(0.0, Lengths(13_969, 1071, 1136))
    assert len(there) == 254
    assert sums(there) == (451_705, 145_727, 224_714)


@settings(max_examples=25)
@given(rate=rates, shape=shapes, seed=seeds)
def test_a_seed_decides_everything(rate: float, shape: float, seed: int | str) -> None:
    first, again = (list(islice(gamma(rate, shape, ARENA_HARD, seed), 20)) for _ in range(2))
    assert first == again
    times = [arrival.at_s for arrival in first]
    assert times == sorted(times)
    other = list(islice(gamma(rate, shape, ARENA_HARD, f"not {seed}"), 20))
    assert other != first


@settings(max_examples=25)
@given(rate=rates, seed=seeds)
def test_burstiness_1_is_poisson_to_the_last_bit(rate: float, seed: int | str) -> None:
    expected = list(islice(poisson(rate, ARENA_HARD, seed), 20))
    assert list(islice(gamma(rate, 1.0, ARENA_HARD, seed), 20)) == expected


@settings(max_examples=15)
@given(rate=rates, shape=shapes, seed=seeds)
def test_another_rate_stretches_time_and_asks_the_same(
    rate: float, shape: float, seed: int | str
) -> None:
    at_one, at_rate = (list(islice(gamma(r, shape, ARENA_HARD, seed), 30)) for r in (1.0, rate))
    assert [a.lengths for a in at_one] == [a.lengths for a in at_rate]
    for slow, fast in zip(at_one, at_rate, strict=True):
        assert fast.at_s * rate == pytest.approx(slow.at_s, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_rate_and_burstiness_come_out_right(burstiness: float) -> None:
    found = gaps(gamma(5.0, burstiness, ARENA_HARD, 3), 20_000)
    assert statistics.fmean(found) == pytest.approx(1 / 5.0, rel=0.03)
    spread = statistics.pstdev(found) / statistics.fmean(found)
    assert spread == pytest.approx(1 / math.sqrt(burstiness), rel=0.05)


def test_limits() -> None:
    regular = islice(gamma(2.0, math.inf, ARENA_HARD, 0), 3)
    assert [arrival.at_s for arrival in regular] == [0.5, 1.0, 1.5]
    for burstiness in (0.3, 1.0, math.inf):
        at_once = islice(gamma(math.inf, burstiness, ARENA_HARD, 0), 3)
        assert [arrival.at_s for arrival in at_once] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("rate", "burstiness"), [(0.0, 1.0), (-1.0, 2.0), (math.nan, 2.0), (1.0, 0.0), (1.0, math.nan)]
)
def test_nonsense_is_refused_before_anything_is_drawn(rate: float, burstiness: float) -> None:
    with pytest.raises(ValueError, match="rate must be above 0 and burstiness"):
        gamma(rate, burstiness, ARENA_HARD, 0)
