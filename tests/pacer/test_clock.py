"""Reading time: pace changes and pauses, and the way back to seconds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacer import ReadingClock

taus = st.floats(0.01, 10)
gaps = st.floats(0, 5)
changes = st.one_of(
    st.tuples(st.just("tau"), taus), st.tuples(st.sampled_from(["pause", "resume"]))
)


def test_counts_tokens_at_the_pace() -> None:
    clock = ReadingClock(0.25, 10.0)
    assert clock.tau_s == 0.25
    assert [clock.reading(now) for now in (9.0, 10.0, 10.25, 11.0)] == [0.0, 0.0, 1.0, 4.0]
    assert [clock.seconds(reading) for reading in (0.0, 1.0, 4.0)] == [10.0, 10.25, 11.0]


def test_stands_still_while_paused() -> None:
    clock = ReadingClock(0.5, 0.0)
    clock.pause(1.0)
    assert clock.reading(100.0) == 2.0
    assert clock.seconds(2.0) == 1.0
    assert clock.seconds(2.5) is None
    clock.resume(100.0)
    assert clock.reading(100.5) == 3.0
    assert clock.seconds(2.5) == 100.25


def test_a_reading_before_the_last_change_is_dated_at_the_change() -> None:
    clock = ReadingClock(1.0, 0.0)
    clock.set_tau(10.0, 4.0)
    assert clock.seconds(1.0) == 4.0
    assert clock.seconds(4.0) == 4.0
    assert clock.seconds(5.0) == 14.0


@pytest.mark.parametrize("tau_s", [0.0, -1.0, math.inf, math.nan])
def test_refuses_a_pace_that_is_none(tau_s: float) -> None:
    with pytest.raises(ValueError, match="tau_s"):
        ReadingClock(tau_s, 0.0)
    clock = ReadingClock(1.0, 0.0)
    with pytest.raises(ValueError, match="tau_s"):
        clock.set_tau(tau_s, 1.0)
    assert clock.tau_s == 1.0


@given(tau_s=taus, script=st.lists(st.tuples(gaps, changes), max_size=20), last=gaps)
def test_is_the_integral_of_the_pace(
    tau_s: float, script: list[tuple[float, tuple[str] | tuple[str, float]]], last: float
) -> None:
    """Equals a plain sum over the intervals between changes; `seconds` is the inverse."""
    clock = ReadingClock(tau_s, 3.0)
    now, expected, pace, paused = 3.0, 0.0, tau_s, False
    for gap, change in script:
        now += gap
        expected += 0.0 if paused else gap / pace
        match change:
            case ("tau", float(pace)):
                clock.set_tau(pace, now)
            case ("pause",):
                clock.pause(now)
                paused = True
            case ("resume",):
                clock.resume(now)
                paused = False
        assert clock.reading(now) == pytest.approx(expected, abs=1e-6)
    now += last
    expected += 0.0 if paused else last / pace
    assert clock.reading(now) == pytest.approx(expected, abs=1e-6)
    if not paused:
        assert clock.seconds(clock.reading(now)) == pytest.approx(now, abs=1e-6)
        assert clock.seconds(clock.reading(now) + 2) == pytest.approx(now + 2 * pace, abs=1e-6)
