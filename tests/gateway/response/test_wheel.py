"""The release wheel: who is served when, for any times and changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.response.session import Session
from gateway.response.wheel import SLOT_S, ReleaseWheel
from tests.gateway.support.sessions import make_session

times = st.floats(0, 3)
scripts = st.lists(
    st.tuples(st.sampled_from(["set", "set", "clear", "turn"]), st.integers(0, 5), times),
    max_size=60,
)


def served_by(wheel: ReleaseWheel, now: float) -> Iterator[Session]:
    """The sessions that are due, as `gateway.releases` serves them."""
    for slot, sessions in wheel.due(now):
        for session in sessions:
            if session.wheel_slot == slot:
                session.wheel_slot = None
                yield session


@given(script=scripts)
def test_each_is_served_once_at_most_a_slot_early_and_never_after_a_clear(script: Any) -> None:
    wheel, sessions = ReleaseWheel(), [make_session() for _ in range(6)]
    due: dict[int, float] = {}  # what was set last and not served
    now = 0.0
    for action, number, value in script:
        session = sessions[number]
        if action == "set":
            wheel.set(session, now + value)
            due[number] = now + value
        elif action == "clear":
            wheel.clear(session)
            due.pop(number, None)
        else:
            now += value / 10
            for served in served_by(wheel, now):
                assert now >= due.pop(sessions.index(served)) - SLOT_S - 1e-9
            # Whoever was due in a slot that has begun is served, or was set within this slot.
            assert all(at > now - SLOT_S - 1e-9 for at in due.values())
        assert [s.wheel_slot is not None for s in sessions] == [n in due for n in range(6)]
        next_s = wheel.next_s()
        assert (next_s is None) == (not due)
        if next_s is not None:
            assert next_s <= max(min(due.values()), now + SLOT_S) + 1e-9
    now += 10
    assert {sessions.index(served) for served in served_by(wheel, now)} == set(due)
    assert wheel.next_s() is None


def test_one_that_is_set_again_while_it_is_served_waits_for_a_later_slot() -> None:
    wheel, session = ReleaseWheel(), make_session()
    wheel.set(session, 1.0)
    rounds = 0
    for served in served_by(wheel, 1.0):
        rounds += 1
        wheel.put(served, 0.5)  # overdue
    assert rounds == 1
    assert list(served_by(wheel, 1.0 + 1.5 * SLOT_S)) == [session]


def test_one_that_was_cleared_or_set_again_while_its_slot_is_served_is_not_served_in_it() -> None:
    wheel, sessions = ReleaseWheel(), [make_session() for _ in range(3)]
    for session in sessions:
        wheel.set(session, 1.0)
    served = served_by(wheel, 1.0)
    assert next(served) is sessions[0]
    wheel.clear(sessions[1])
    wheel.set(sessions[2], 1.0)
    assert list(served) == []
    assert list(served_by(wheel, 1.0 + 1.5 * SLOT_S)) == [sessions[2]]


def test_changes_leave_nothing_behind() -> None:
    wheel, session = ReleaseWheel(), make_session()
    for number in range(1000):
        wheel.set(session, 1.0 + number % 7)
        wheel.clear(session)
    assert wheel._slots == {}
