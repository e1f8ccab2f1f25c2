"""Capacity: what requests need, what is booked, and how long steps and requests take."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.policy.capacity import (
    SLOT_S,
    SLOTS,
    Bookings,
    Engine,
    Lengths,
    StepTimer,
    Supply,
    Work,
    keeps_pace,
    supply_of,
)

SUPPLY = Supply(kv_tokens=1000.0, places=8.0, step_s=0.02)
ENGINE = Engine(kv_tokens=1000, places=10, longest=4096)

works = st.builds(
    Work,
    kv_tokens=st.integers(0, 300),
    reasoning_tokens=st.integers(0, 400),
    answer_tokens=st.integers(0, 400),
    tau_s=st.none() | st.floats(0.01, 0.5),
    buffered_tokens=st.integers(0, 100),
)
starts = st.floats(0.0, 60.0)


def fresh(supply: Supply = SUPPLY, origin_s: float = 0.0) -> Bookings:
    return Bookings(supply, origin_s)


def levels(bookings: Bookings) -> list[float]:
    return [*bookings._booked()[0], *bookings._booked()[1]]


# ---- what a request needs


def test_a_reader_leaves_the_engine_to_others_for_most_of_the_time() -> None:
    work = Work(100, 50, 200, tau_s=0.1)
    thinking, answering = work.spans(0.02)
    assert thinking == pytest.approx((1.0, 125.0, 1.0))
    assert answering == pytest.approx((20.0, 250 * 0.2, 0.2))
    assert work.seconds(0.02) == pytest.approx(21.0)


def test_an_answer_without_a_pace_and_one_faster_than_the_engine_take_all_of_a_place() -> None:
    for tau_s in (None, 0.01):
        (span,) = Work(100, 0, 200, tau_s).spans(0.02)
        assert span == pytest.approx((4.0, 200.0, 1.0))


def test_what_is_generated_ahead_leaves_more_time_for_the_rest() -> None:
    (seconds, _, places), *_ = Work(100, 0, 100, 0.1, buffered_tokens=100).spans(0.02)
    assert (seconds, places) == pytest.approx((20.0, 0.1))


def test_what_is_generated_needs_nothing() -> None:
    assert list(Work(100, 0, 0, 0.1, buffered_tokens=50).spans(0.02)) == []


# ---- what is booked


@given(st.lists(st.tuples(works, starts), max_size=8), works, starts)
def test_bookings_add_up_and_can_be_taken_back(
    booked: list[tuple[Work, float]], work: Work, at_s: float
) -> None:
    bookings = fresh()
    for other, start_s in booked:
        bookings.book(other, start_s, 0.02)
    before = levels(bookings)
    bookings.book(work, at_s, 0.02, 0.7)
    bookings.book(work, at_s, 0.02, -0.7)
    assert levels(bookings) == pytest.approx(before, abs=1e-6)


@given(works, starts)
def test_a_request_is_booked_for_exactly_what_it_needs(work: Work, at_s: float) -> None:
    bookings = fresh()
    bookings.book(work, at_s, 0.02)
    places = bookings._booked()[1]
    needed = sum(seconds * places for seconds, _, places in work.spans(0.02))
    assert sum(places[:SLOTS]) * SLOT_S == pytest.approx(needed, abs=1e-6)
    assert min(places) >= -1e-9


@given(st.lists(works, max_size=30), works)
@example(  # the answer of the last one begins and ends in the slot in which its reasoning ends
    [Work(169, 108, 56, None), Work(137, 229, 24, None), Work(133, 100, 52, None)],
    Work(80, 101, 48, None),
)
def test_nothing_is_admitted_above_the_supply(requests: list[Work], last: Work) -> None:
    bookings = fresh()
    for work in [*requests, last]:
        if bookings.fits(work, 0.0):
            bookings.book(work, 0.0, SUPPLY.step_s)
    kv_levels, place_levels = bookings._booked()
    largest = max((kv for w in [*requests, last] for _, kv, _ in w.spans(0.02)), default=0.0)
    assert max(kv_levels) <= max(SUPPLY.kv_tokens, largest) + 1e-3
    assert max(place_levels) <= SUPPLY.places + 1e-3


@given(st.lists(st.tuples(works, starts), max_size=20), works, works, starts)
def test_more_bookings_never_make_room(
    booked: list[tuple[Work, float]], more: Work, work: Work, at_s: float
) -> None:
    bookings = fresh()
    for other, start_s in booked:
        bookings.book(other, start_s, 0.02)
    fitted = bookings.fits(work, at_s)
    first_s = bookings.first_fit(work, at_s)
    bookings.book(more, 0.0, 0.02)
    assert fitted or not bookings.fits(work, at_s)
    later_s = bookings.first_fit(work, at_s)
    assert later_s is None or (first_s is not None and first_s <= later_s)


@given(st.lists(st.tuples(works, starts), max_size=20), works)
def test_the_first_fit_is_the_first_one(booked: list[tuple[Work, float]], work: Work) -> None:
    bookings = fresh(replace(SUPPLY, kv_tokens=300.0, places=3.0))
    for other, start_s in booked:
        bookings.book(other, start_s, 0.02)
    found = (at_s for at_s in range(SLOTS) if bookings.fits(work, float(at_s)))
    assert bookings.first_fit(work, 0.0) == next(found, None)


def test_a_request_larger_than_the_supply_fits_where_nothing_is_booked() -> None:
    large = Work(5000, 100, 0, None)
    bookings = fresh()
    assert bookings.fits(large, 0.0)
    bookings.book(Work(10, 500, 0, None), 0.0, 0.02)
    assert not bookings.fits(large, 0.0)
    assert bookings.first_fit(large, 0.0) == 10.0


def test_bookings_can_be_beyond_the_supply() -> None:
    bookings = fresh()
    bookings.book(Work(900, 200, 0, None), 0.0, 0.02)
    work = Work(100, 200, 0, None)
    assert not bookings.fits(work, 0.0)
    assert bookings.fits(work, 0.0, beyond=1.25)


@given(st.lists(st.tuples(works, starts), max_size=8), st.integers(0, 100))
def test_time_passes_by_whole_slots(booked: list[tuple[Work, float]], slots: int) -> None:
    bookings = fresh()
    for work, at_s in booked:
        bookings.book(work, at_s, 0.02)
    later = bookings.with_all_of()
    later.advance(SUPPLY, slots * SLOT_S)
    for before, after in zip(bookings._booked(), later._booked(), strict=True):
        assert after[: SLOTS - slots] == pytest.approx(before[slots:SLOTS], abs=1e-6)


def test_load_is_the_fuller_one_of_memory_and_places() -> None:
    bookings = fresh()
    bookings.book(Work(100, 200, 0, None), 0.0, 0.02)
    assert bookings.load == pytest.approx(0.2)
    bookings.book(Work(0, 200, 0, None, 0.0), 0.0, 0.02)
    assert bookings.load == pytest.approx(0.3)
    for _ in range(3):
        bookings.book(Work(0, 200, 0, None, 0.0), 0.0, 0.02)
    assert bookings.load == pytest.approx(5 / 8)
    assert fresh(Supply(0.0, 0.0, 0.02)).load == 0.0


# ---- what there is


def test_supply_is_that_of_all_instances_times_the_load() -> None:
    slow = replace(ENGINE, step_s=0.03, least_step_s=0.03)
    quick = replace(ENGINE, step_s=0.01, least_step_s=0.01)
    supply = supply_of([slow, quick, ENGINE], 0.5)
    assert (supply.kv_tokens, supply.places) == (1500, 15)
    assert supply.step_s == pytest.approx(0.02)


def test_an_engine_has_no_more_places_than_let_its_steps_keep_pace() -> None:
    # A step takes 20 ms, and 1 ms for each request.
    engine = replace(ENGINE, places=100, running=50, step_s=0.07, least_step_s=0.02)
    assert supply_of([engine], 1.0, tau_s=0.1).places == pytest.approx(70)
    assert supply_of([engine], 1.0, tau_s=0.05).places == pytest.approx(25)
    assert supply_of([engine], 1.0, tau_s=0.2).places == 100  # far from being too slow
    few = replace(engine, running=2)  # something else slows it down
    assert supply_of([few], 1.0, tau_s=0.1).places == 4
    assert supply_of([engine], 1.0).places == 100
    assert supply_of([engine], 1.0, tau_s=0.01).places == 100  # it never keeps that pace
    assert keeps_pace([engine], 0.1)
    assert not keeps_pace([engine], 0.01)


def test_steps_are_timed_while_an_engine_is_busy() -> None:
    timer = StepTimer()
    timer.note(100, 0, False, 0.0)
    timer.note(100, 0, True, 10.0)
    for count in range(1, 101):
        timer.note(100 + count, 5, True, 10.0 + 0.03 * count)
    assert timer.step_s == pytest.approx(0.03)
    assert timer.running == 5
    timer.note(201, 0, False, 13.03)
    timer.note(201, 0, True, 100.0)  # it was idle
    assert timer.running > 3  # as in the steps that were timed
    for count in range(1, 101):
        timer.note(201 + count, 9, True, 100.0 + 0.05 * count)
    assert timer.running == pytest.approx(9, rel=0.05)
    assert timer.step_s == pytest.approx(0.05, rel=0.02)
    assert timer.least_step_s == pytest.approx(0.03)


# ---- how long requests become


def test_expected_lengths_are_those_of_finished_requests_that_were_longer() -> None:
    lengths = Lengths()
    for tokens in (10, 20, 30, 40):
        lengths.note(tokens, 10 * tokens)
    assert [lengths.reasoning_tokens(u, 0) for u in (0.0, 0.3, 0.6, 0.9)] == [10, 20, 30, 40]
    assert [lengths.answer_tokens(u, 250) for u in (0.0, 0.9)] == [300, 400]
    assert lengths.reasoning_tokens(0.0, 40) > 40


@given(st.floats(0.0, 0.999), st.integers(0, 5000))
def test_a_request_is_always_expected_to_go_on(u: float, so_far: int) -> None:
    assert Lengths().reasoning_tokens(u, so_far) > so_far
