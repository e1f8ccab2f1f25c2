"""Properties of the QoE, compared with direct evaluations of the paper's formula."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacer import ReadingClock, RunningQoE, qoe

taus = st.sampled_from([0.05, 0.1, 0.5, 1.0, 3.0])
firsts = st.sampled_from([0.0, 0.25, 1.0, 20.0])
origins = st.sampled_from([0.0, -7.5, 1000.0])
deliveries = st.lists(
    st.one_of(st.just(0.0), st.floats(0, 0.2), st.floats(0, 6)), min_size=1, max_size=50
).map(lambda gaps: [sum(gaps[: i + 1]) for i in range(len(gaps))])


def uses(times: list[float], tau: float, first: float, origin: float) -> list[float]:
    """u_i of the paper, from the origin."""
    used: list[float] = []
    for time in times:
        used.append(max(time - origin, used[-1] + tau if used else first))
    return used


def formula(times: list[float], tau: float, first: float, origin: float) -> float:
    """The paper's formula, read literally."""
    n = len(times)
    u = uses(times, tau, first, origin)
    e = [first + i * tau for i in range(n)]
    horizon = u[-1] + tau
    delay = sum(used - expected for used, expected in zip(u, e, strict=True))
    return 1 - delay / (n * (horizon - first) - n * n * tau / 2)


def cut_areas(
    times: list[float], tau: float, first: float, origin: float, now: float
) -> tuple[float, float]:
    """Areas under the consumed and the expected curve up to ``now``, integrated numerically.

    Both curves are piecewise linear, so the trapezoid rule over their corners is exact.
    """
    end = now - origin
    u = uses(times, tau, first, origin)
    corners = sorted({first, end, *u, *(start + tau for start in u)})

    def consumed(t: float) -> float:
        return sum(min(1.0, max(0.0, (t - start) / tau)) for start in u)

    def expected(t: float) -> float:
        return max(0.0, (t - first) / tau)

    read = due = 0.0
    inside = [corner for corner in corners if corner <= end]
    for left, right in pairwise(inside):
        read += (consumed(left) + consumed(right)) / 2 * (right - left)
        due += (expected(left) + expected(right)) / 2 * (right - left)
    return read, due


@given(times=deliveries, tau=taus, first=firsts, origin=origins)
def test_final_is_the_formula(times: list[float], tau: float, first: float, origin: float) -> None:
    times = [origin + time for time in times]
    running = RunningQoE(tau_s=tau, first_s=first, origin_s=origin)
    for count, time in enumerate(times, start=1):
        running.deliver(time)
        assert running.count == count
        expected = formula(times[:count], tau, first, origin)
        assert running.final() == pytest.approx(expected, abs=1e-9)
        assert 0.0 <= running.final() <= 1.0
    assert qoe(times, tau_s=tau, first_s=first, origin_s=origin) == running.final()


@given(times=deliveries, tau=taus, first=firsts, origin=origins, later=st.floats(0, 30))
def test_at_is_the_ratio_of_the_areas_cut_at_now(
    times: list[float], tau: float, first: float, origin: float, later: float
) -> None:
    times = [origin + time for time in times]
    running = RunningQoE(tau_s=tau, first_s=first, origin_s=origin)
    for index, time in enumerate(times):
        running.deliver(time)
        following = times[index + 1] if index + 1 < len(times) else time + later
        for now in (time, (time + following) / 2, following):
            read, due = cut_areas(times[: index + 1], tau, first, origin, now)
            score = running.at(now)
            assert 0.0 <= score <= 1.0
            if due > 1e-6:
                assert score == pytest.approx(min(1.0, read / due), abs=1e-6)
            elif now - origin <= first:
                assert score == 1.0


@given(times=deliveries, tau=taus, first=firsts)
def test_at_the_horizon_a_reader_who_never_waited_has_both_the_same(
    times: list[float], tau: float, first: float
) -> None:
    """`at` expects more tokens and `final` does not, so `at` is never the higher one there."""
    running = RunningQoE(tau_s=tau, first_s=first)
    for time in times:
        running.deliver(time)
    horizon = uses(times, tau, first, 0.0)[-1] + tau
    assert running.at(max(horizon, times[-1])) <= running.final() + 1e-9
    if running.final() == 1.0:
        assert running.at(horizon) == pytest.approx(1.0)


@given(times=deliveries, tau=taus, first=firsts, later=st.floats(0, 30))
def test_any_unit_of_time_serves(
    times: list[float], tau: float, first: float, later: float
) -> None:
    """Reading time with tau 1 scores as seconds with tau do."""
    clock = ReadingClock(tau, 0.0)
    seconds = RunningQoE(tau_s=tau, first_s=first)
    reading = RunningQoE(tau_s=1.0, first_s=first / tau)
    for time in times:
        seconds.deliver(time)
        reading.deliver(clock.reading(time))
    assert reading.final() == pytest.approx(seconds.final(), abs=1e-9)
    now = times[-1] + later
    _, due = cut_areas(times, tau, first, 0.0, now)
    if due > 1e-6:  # else both are quotients of rounding errors
        assert reading.at(clock.reading(now)) == pytest.approx(seconds.at(now), abs=1e-6)


@given(times=deliveries, tau=taus, first=firsts, delay=st.floats(0, 10))
def test_later_is_never_better(times: list[float], tau: float, first: float, delay: float) -> None:
    late = [time + delay for time in times]
    assert qoe(late, tau_s=tau, first_s=first) <= qoe(times, tau_s=tau, first_s=first) + 1e-9


def test_nothing_delivered() -> None:
    assert qoe([], tau_s=0.1) == 1.0
    running = RunningQoE(tau_s=0.1, first_s=0.25, origin_s=10.0)
    assert running.count == 0
    assert running.at(10.25) == 1.0
    assert running.at(10.3) == 0.0


def test_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="tau_s"):
        RunningQoE(tau_s=0.0)
    with pytest.raises(ValueError, match="before the one before it"):
        qoe([1.0, 0.5], tau_s=0.1)
    running = RunningQoE(tau_s=0.1)
    running.deliver(1.0)
    with pytest.raises(ValueError, match="before the one before it"):
        running.deliver(0.9)
    assert running.count == 1
