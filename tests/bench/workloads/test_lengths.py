from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.workloads.distributions import Quantiles
from bench.workloads.lengths import (
    ALPACA_EVAL,
    ARENA_HARD,
    GPQA,
    MATH_500,
    REASONING_HEAVY,
    Lengths,
    LengthSource,
    Mixed,
    SharedLengths,
    divided,
)

tokens = st.integers(0, 10_000_000)


def drawn(source: LengthSource, count: int = 20_000) -> list[Lengths]:
    rng = random.Random(5)
    return [source.draw(rng) for _ in range(count)]


@pytest.mark.parametrize("source", [ALPACA_EVAL, ARENA_HARD, MATH_500, GPQA, REASONING_HEAVY])
def test_no_request_is_longer_than_the_longest(source: LengthSource) -> None:
    for lengths in drawn(source, 3000):
        assert lengths.prompt >= 8
        assert lengths.reasoning >= 32
        assert lengths.answer >= 16
        assert lengths.reasoning + lengths.answer <= source.longest_output


@pytest.mark.parametrize("source", [MATH_500, GPQA])
def test_hard_problems_think_four_to_eight_times_as_long_as_they_answer(
    source: LengthSource,
) -> None:
    long = [found for found in drawn(source, 3000) if found.answer > 100]
    ratios = [found.reasoning / found.answer for found in long]
    assert 3.97 <= min(ratios) < 4.1  # answers are whole tokens
    assert 7.9 < max(ratios) <= 8.04
    assert statistics.fmean(ratios) == pytest.approx(6, abs=0.1)


def test_a_mixture_draws_each_part_by_its_weight() -> None:
    short, long = (Quantiles((0, 1), (length, length)) for length in (10, 1000))
    half = Quantiles((0, 1), (0.5, 0.5))
    mixed = Mixed((1, SharedLengths(short, short, half)), (3, SharedLengths(long, long, half)))
    found = drawn(mixed, 8000)
    assert set(found) == {Lengths(10, 5, 5), Lengths(1000, 500, 500)}
    assert sum(lengths.prompt == 1000 for lengths in found) == pytest.approx(6000, rel=0.02)
    assert mixed.longest_output == 1000


@given(prompt=tokens, output=tokens, reasoning=st.floats(-1, 2e7))
def test_a_division_keeps_the_output_and_gives_each_phase_a_token(
    prompt: int, output: int, reasoning: float
) -> None:
    found = divided(prompt, output, reasoning)
    assert found.prompt == max(1, prompt)
    assert found.reasoning + found.answer == max(2, output)
    assert found.reasoning >= 1
    assert found.answer >= 1
    if 1 <= reasoning <= output - 1:
        assert found.reasoning == round(reasoning)
