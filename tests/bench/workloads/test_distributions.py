from __future__ import annotations

import math
import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.workloads.distributions import Probabilities, Quantiles, read_quantiles
from bench.workloads.table_reader import TraceError


def test_quantiles_are_joined_by_straight_lines() -> None:
    law = Quantiles((0.0, 0.5, 1.0), (10.0, 20.0, 100.0))
    assert [law.at(share) for share in (0, 0.25, 0.5, 0.75, 1)] == [10, 15, 20, 60, 100]
    assert law.most == 100
    rng = random.Random(0)
    mean = statistics.fmean(law.draw(rng) for _ in range(20_000))
    assert mean == pytest.approx((15 + 60) / 2, rel=0.02)


@pytest.mark.parametrize(
    ("shares", "values", "message"),
    [
        ((0.0,), (1.0,), "two quantiles or more"),
        ((0.0, 1.0), (1.0, 2.0, 3.0), "a value each"),
        ((0.1, 1.0), (1.0, 2.0), "rise from 0 to 1"),
        ((0.0, 0.9), (1.0, 2.0), "rise from 0 to 1"),
        ((0.0, 0.5, 0.5, 1.0), (1.0, 2.0, 3.0, 4.0), "rise from 0 to 1"),
        ((0.0, 0.5, 1.0), (1.0, 3.0, 2.0), "must not fall"),
    ],
)
def test_what_are_no_quantiles(
    shares: tuple[float, ...], values: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Quantiles(shares, values)


@given(st.dictionaries(st.integers(0, 1000), st.floats(1e-6, 1), min_size=1, max_size=20))
def test_probabilities_come_back_as_they_were(law: dict[float, float]) -> None:
    found = Probabilities.of(law)
    total = sum(law.values())
    assert found.probabilities() == pytest.approx({v: p / total for v, p in law.items()}, rel=1e-6)
    assert found.at(0) == min(law)
    assert found.at(1) == found.most == max(law)


def test_values_are_drawn_by_their_probability() -> None:
    law = Probabilities.of({5: 1.0, 7: 3.0, 9: 0.0})
    rng = random.Random(1)
    found = [law.draw(rng) for _ in range(8000)]
    assert set(found) == {5, 7}
    assert found.count(7) == pytest.approx(6000, rel=0.02)


@pytest.mark.parametrize("law", [{}, {1: 0.0}, {1: -0.5, 2: 1.5}, {1: math.nan}, {1: math.inf}])
def test_what_are_no_probabilities(law: dict[float, float]) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        Probabilities.of(law)


def test_a_table_of_quantiles(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("q,a,b\n0,1,5\n1,3,4\n")
    assert read_quantiles(path, "a") == [Quantiles((0, 1), (1, 3))]
    with pytest.raises(TraceError, match=r"table\.csv:3: b: values of rising quantiles"):
        read_quantiles(path, "a", "b")
    path.write_text("q,a\n")
    with pytest.raises(TraceError, match=r"table\.csv: a: needs two quantiles"):
        read_quantiles(path, "a")
