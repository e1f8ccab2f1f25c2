"""Promises: who has a place, until when, and how many come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.capacity import Work
from gateway.policy.promises import Promise, Promises

WORK = Work(10, 10, 10, 0.1)


def made(promises: Promises, name: str, wait_s: float, now: float = 0.0) -> Promise:
    promise = promises.make(name.encode(), "", WORK, wait_s, now)
    assert promise is not None
    return promise


def test_a_place_is_due_when_it_was_told_and_is_lost_after_a_window() -> None:
    promises = Promises()
    promise = made(promises, "a", 20.0)
    assert promises.find(b"a") is promise
    assert promises.find(b"b") is None
    assert not promises.is_due(promise, 19.0)
    assert promises.is_due(promise, 20.0)
    promises.expire(25.0)
    assert promises.find(b"a") is promise
    promises.expire(25.1)
    assert promises.find(b"a") is None


def test_room_is_kept_for_a_moment_only() -> None:
    promises = Promises()
    promise = made(promises, "a", 20.0)
    promise.booking = 20.0, 0.02, 1.0
    assert (list(promises.held(22.0)), promises.late(22.0)) == ([promise], [])
    assert (list(promises.held(22.1)), promises.late(22.1)) == ([], [promise])


def test_whoever_comes_and_finds_no_room_keeps_the_place_in_the_line() -> None:
    promises = Promises()
    first, second = made(promises, "a", 5.0), made(promises, "b", 6.0)
    assert made(promises, "a", 3.0, now=5.0) is first
    assert not promises.is_due(first, 7.0)
    assert promises.is_due(first, 8.0)
    assert list(promises.held(6.0, before=second)) == [first]
    assert list(promises.held(6.0, before=first)) == []


@given(st.lists(st.floats(1.0, 100.0), min_size=2, max_size=20))
def test_the_line_is_in_the_order_of_what_was_told(waits: list[float]) -> None:
    promises = Promises()
    line = [made(promises, str(number), wait_s) for number, wait_s in enumerate(waits)]
    for promise in line:
        before = list(promises.held(0.0, before=promise))
        assert all(other.due_s < promise.due_s for other in before)
        assert len(before) == sum(other.due_s < promise.due_s for other in line)


def test_there_is_a_bound_on_places() -> None:
    promises = Promises(most=2)
    made(promises, "a", 5.0)
    made(promises, "b", 5.0)
    assert promises.make(b"c", "", WORK, 5.0, 0.0) is None
    assert len(promises) == 2
    promises.take(b"a")
    made(promises, "c", 5.0)


def test_those_count_less_whose_like_did_not_come() -> None:
    promises = Promises()
    for number in range(40):
        made(promises, f"short {number}", 3.0)
        made(promises, f"long {number}", 40.0)
    for number in range(40):
        promises.take(f"short {number}".encode())
    promises.expire(100.0)
    assert promises.share(made(promises, "a", 3.0)) == 1.0
    assert promises.share(made(promises, "b", 40.0)) == pytest.approx(0.05)
    assert promises.share(made(promises, "c", 80.0)) == pytest.approx(0.05)  # nor will they wait
    assert promises.ahead() == pytest.approx(1.1)
    made(promises, "b", 1.0, now=40.0)  # it came, and there was no room
    assert promises.ahead() == pytest.approx(2.05)
    assert promises.due(3.0) == 1.0
    assert promises.due(3.0, "ann") == 0.0


def test_those_count_more_whose_like_came_although_there_was_no_room() -> None:
    promises = Promises()
    for number in range(40):
        promise = made(promises, str(number), 90.0)
        promise.booking = 90.0, 0.02, promises.share(promise)
        made(promises, str(number), 1.0, now=90.0)
    assert promises.share(made(promises, "a", 90.0)) > 0.99
    assert len(promises.misjudged(5)) == 5  # they were booked for less


@given(st.lists(st.tuples(st.floats(1.0, 300.0), st.booleans()), max_size=60))
def test_the_share_that_comes_falls_with_the_wait(told: list[tuple[float, bool]]) -> None:
    promises = Promises()
    for number, (wait_s, comes) in enumerate(told):
        made(promises, str(number), wait_s)
        if comes:
            promises.take(str(number).encode())
        else:
            promises.expire(1000.0)
    shares = [promises.share(Promise("", WORK, float(s), 0.0, 0.0)) for s in range(1, 300)]
    assert shares == sorted(shares, reverse=True)
    assert all(0.0 < share <= 1.0 for share in shares)
