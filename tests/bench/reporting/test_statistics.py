from __future__ import annotations

import pytest

from bench.reporting.statistics import interval, percentile, summarize


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (25, 1.75), (50, 2.5), (95, 3.85), (99, 3.97), (100, 4.0)]
)
def test_percentile(percent: float, expected: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == pytest.approx(expected)


def test_percentile_of_one_value() -> None:
    assert percentile([7.0], 99) == 7.0


def test_summary() -> None:
    assert summarize([4.0, None, 1.0, 3.0, 2.0], [99.9]) == pytest.approx(
        {"mean": 2.5, "p50": 2.5, "p95": 3.85, "p99": 3.97, "p99.9": 3.997, "min": 1.0, "max": 4.0}
    )
    assert set(summarize([None]).values()) == {None}
    assert list(summarize([])) == ["mean", "p50", "p95", "p99", "min", "max"]


def test_interval_of_student_s_t() -> None:
    low, high = interval([1.0, 2.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2.0)
    assert high - 2.0 == pytest.approx(4.30 / 3**0.5, rel=1e-3)
    assert interval([5.0]) == (5.0, 5.0)
