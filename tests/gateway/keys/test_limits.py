"""The meter of a key: arithmetic in which the test is the clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys.limits import Meter, Moment, Run, Window
from gateway.store import KeyLimits, KeyUsage

NOON = 20_000 * 86400 + 43200.0  # Unix time of some day's middle


@dataclass
class Response:
    prompt_tokens: int = 0
    output_tokens: int = 0


def at(seconds: float) -> Moment:
    """So long after the monotonic 1000."""
    return Moment(1000 + seconds, NOON + seconds)


def meter(today: int = 0, **limits: int) -> Meter:
    return Meter(KeyLimits(**limits), KeyUsage(0, 0, today), at(0))


def begun(of: Meter, seconds: float, response: Response) -> Run:
    run = of.begin(at(seconds))
    run.spending = response
    return run


def used(of: Meter, seconds: float, tokens: int) -> None:
    """A response that came and went."""
    of.end(begun(of, seconds, Response(1, tokens - 1)), at(seconds))


def refused(of: Meter, seconds: float, count: int = 1) -> tuple[str, float | None] | None:
    refusal = of.refusal(at(seconds), count)
    return None if refusal is None else (refusal.limit, refusal.retry_after_s)


def test_without_limits_nothing_is_refused_and_all_is_counted() -> None:
    of = meter()
    for _ in range(100):
        used(of, 1, 1000)
    assert refused(of, 1) is None
    assert of.total == KeyUsage(100, 100, 99_900)
    assert of.standings(at(1)).requests is None
    assert of.standings(at(1)).tokens is None


def test_a_place_is_taken_until_nothing_more_is_generated() -> None:
    of = meter(concurrent=2)
    runs = [begun(of, 0, Response(1)) for _ in range(2)]
    assert refused(of, 0) == ("concurrent", None)
    of.end(runs[0], at(1))
    assert refused(of, 1) is None
    assert refused(of, 1, count=2) == ("concurrent", None)
    of.end(runs[0], at(1))  # a second time: nothing
    assert of.running == 1


def test_requests_of_the_last_minute_count() -> None:
    of = meter(requests_per_minute=2)
    used(of, 0.5, 10)
    used(of, 30.5, 10)
    limit, wait_s = refused(of, 31) or ("", None)
    assert (limit, wait_s) == ("requests_per_minute", 30.0)
    assert refused(of, 60.9)
    assert refused(of, 61) is None
    standing = of.standings(at(61)).requests
    assert standing is not None
    assert (standing.limit, standing.remaining, standing.reset_s) == (2, 1, 30.0)


def test_a_request_that_no_engine_took_does_not_count() -> None:
    of = meter(requests_per_minute=1)
    run = begun(of, 0, Response())
    assert refused(of, 0) is not None
    of.end(run, at(2))
    assert refused(of, 2) is None
    assert of.total == KeyUsage()


def test_tokens_count_as_they_are_generated() -> None:
    of = meter(tokens_per_minute=100)
    response = Response(20)
    run = begun(of, 0, response)
    standing = of.standings(at(0)).tokens
    assert standing is not None
    assert standing.remaining == 80
    response.output_tokens = 79
    assert refused(of, 1) is None  # less than the limit is used
    response.output_tokens = 95
    assert refused(of, 2) == ("tokens_per_minute", 59.0)  # until the first 20 no longer count
    response.output_tokens = 300  # it goes on, and ends as it would
    of.end(run, at(3))
    assert of.total == KeyUsage(1, 20, 300)
    assert refused(of, 4) == ("tokens_per_minute", 60.0)


def test_old_tokens_of_a_long_response_no_longer_count_while_it_runs() -> None:
    of, response = meter(tokens_per_minute=1000), Response(10)
    begun(of, 0, response)
    for second in range(300):  # ten a second
        response.output_tokens = 10 * second
        of.settle(at(second))
    assert refused(of, 300) is None
    standing = of.standings(at(300)).tokens
    assert standing is not None
    assert 380 <= standing.remaining <= 420


def test_a_prompt_of_several_choices_is_charged_once() -> None:
    of = meter(tokens_per_minute=1000)
    for with_prompt in (True, False, False):
        run = of.begin(at(0), with_prompt=with_prompt)
        run.spending = Response(50, 10)
        of.end(run, at(0))
    assert of.total == KeyUsage(3, 50, 30)


def test_a_day_ends_at_midnight_and_survives_a_restart() -> None:
    of = meter(today=900, tokens_per_day=1000)
    used(of, 0, 100)
    assert refused(of, 10) == ("tokens_per_day", 43190.0)
    standing = of.standings(at(10)).tokens
    assert standing is not None
    assert (standing.limit, standing.remaining, standing.reset_s) == (1000, 0, 43190.0)
    assert refused(of, 43199) is not None
    assert refused(of, 43200) is None
    used(of, 43201, 5)
    assert of.take_unsaved() == {20_000: KeyUsage(1, 1, 99), 20_001: KeyUsage(1, 1, 4)}
    assert of.take_unsaved() == {}


def test_a_wall_clock_that_goes_back_gives_no_second_day() -> None:
    of = meter(tokens_per_day=100)
    used(of, 0, 100)
    earlier = Moment(1001.0, NOON - 86400)
    assert of.refusal(earlier) is not None


def test_the_limit_with_the_least_left_is_the_one_that_is_told() -> None:
    of = meter(today=950, tokens_per_minute=100, tokens_per_day=1000)
    used(of, 0, 10)
    standing = of.standings(at(0)).tokens
    assert standing is not None
    assert (standing.limit, standing.remaining) == (1000, 40)
    used(of, 86400, 10)
    standing = of.standings(at(86400)).tokens
    assert standing is not None
    assert (standing.limit, standing.remaining) == (100, 90)


def test_of_several_limits_the_one_that_lasts_longest_is_told() -> None:
    of = meter(concurrent=1, requests_per_minute=1, tokens_per_day=1)
    begun(of, 0, Response(5))
    limit, _ = refused(of, 0) or ("", None)
    assert limit == "tokens_per_day"


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 50)), min_size=1, max_size=60),
    st.integers(1, 100),
)
def test_no_minute_has_more_than_the_limit_and_the_last_request(
    steps: list[tuple[float, int]], limit: int
) -> None:
    """Whoever comes when told is admitted, and no minute has more than was allowed."""
    of, now = meter(tokens_per_minute=limit), 0.0
    taken: list[tuple[float, int]] = []
    for pause_s, tokens in steps:
        now += pause_s
        told = refused(of, now)
        if told is not None:
            assert told[1] is not None
            assert 0 < told[1] <= 61
            assert refused(of, now + told[1] + 1e-6) is None
            now += told[1] + 1e-6
        used(of, now, tokens)
        taken.append((now, tokens))
    for index, (end, _) in enumerate(taken):
        before = sum(tokens for when, tokens in taken[:index] if end - 60 < when)
        assert before < limit
    standing = of.standings(at(now)).tokens
    assert standing is not None
    later = of.standings(at(now + standing.reset_s + 1e-6)).tokens
    assert later is not None
    assert later.remaining == limit


def test_a_window_stays_small() -> None:
    window = Window()
    for tick in range(10_000):
        window.expire(tick / 10)
        window.add(1, tick / 10)
    assert len(window._seconds) <= 62
    assert window.total == pytest.approx(610, abs=10)
    assert math.isclose(window.empties_s(999.9), 60.1)
