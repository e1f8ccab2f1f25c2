"""Finished responses: how long they are kept, and which are dropped first."""

from __future__ import annotations

import random

import pytest

from gateway.response.event_log import LogTruncated
from gateway.response.kept import KeptResponses
from gateway.response.session import Session
from tests.gateway.support.sessions import ScriptedWorker, make_session


def finished(name: str, tokens: int = 50) -> Session:
    session = make_session(pacing=False)
    session.response_id = name
    worker = ScriptedWorker(session, reasoning=False)
    worker.say(*("x" * 10,) * tokens, now=1.0)
    worker.finish(now=2.0)
    assert session.finished
    return session


def has_events(session: Session) -> bool:
    try:
        return bool(session.log.after(-1))
    except LogTruncated:
        return False


def expiry_of(kept: KeptResponses) -> float | None:
    return kept.next_expiry_s


SIZE = finished("one").size_bytes + finished("one").log.size_bytes


def test_each_is_dropped_when_its_time_is_over() -> None:
    kept = KeptResponses(10.0, 100 * SIZE)
    a, b = finished("a"), finished("b")
    assert kept.add(a, 100.0) == []
    assert kept.add(b, 103.0) == []
    assert expiry_of(kept) == 110.0
    assert kept.expire(109.9) == []
    assert kept.expire(110.0) == [a]
    assert expiry_of(kept) == 113.0
    assert kept.expire(200.0) == [b]
    assert (len(kept), kept.size_bytes, expiry_of(kept)) == (0, 0, None)


def test_the_oldest_are_dropped_when_memory_is_short() -> None:
    sessions = [finished(f"r{number}") for number in range(12)]
    kept = KeptResponses(10.0, 3 * SIZE + 100)
    dropped = [old for session in sessions for old in kept.add(session, 0.0)]
    assert dropped == sessions[:-3]
    assert [session for session in sessions if has_events(session)] == sessions[-3:]
    assert len(kept) == 3
    # Only a client that comes back to one of them gets this answer.
    assert kept.was_dropped("r0", sessions[0].owner)
    assert not kept.was_dropped("r0", "somebody else")
    assert not kept.was_dropped("r11", sessions[11].owner)
    assert expiry_of(kept) == 10.0
    kept.expire(10.0)
    assert (expiry_of(kept), len(kept), kept._dropped) == (None, 0, {})


def test_a_name_is_known_for_as_long_as_its_response_would_have_been_kept() -> None:
    kept = KeptResponses(10.0, 0)
    for name, now in (("a", 0.0), ("b", 4.0), ("c", 8.0)):
        kept.add(finished(name), now)
    assert expiry_of(kept) == 10.0  # of a name; the only one that is kept has time until 18
    kept.expire(10.0)
    assert [name for name in "abc" if kept.was_dropped(name, "")] == ["b"]


def test_the_newest_is_kept_whatever_the_budget() -> None:
    kept = KeptResponses(10.0, 0)
    a, b = finished("a"), finished("b")
    assert kept.add(a, 0.0) == []
    assert has_events(a)
    assert kept.add(b, 0.0) == [a]
    assert (has_events(a), has_events(b)) == (False, True)


def test_the_names_of_the_dropped_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.response.kept._MOST_NAMES", 2)
    kept = KeptResponses(10.0, 0)
    for name in "abcde":
        kept.add(finished(name, tokens=1), 0.0)
    assert [name for name in "abcde" if kept.was_dropped(name, "")] == ["c", "d"]


def test_what_is_counted_is_what_is_kept() -> None:
    rng = random.Random(5)
    kept = KeptResponses(50.0, 10 * SIZE)
    held: dict[str, Session] = {}
    for now in range(300):
        session = finished(f"r{now}", tokens=rng.randrange(100))
        held[session.response_id] = session
        gone = kept.add(session, float(now)) + kept.expire(float(now))
        if rng.random() < 0.2:
            chosen = rng.choice(list(held.values()))
            kept.discard(chosen.response_id)
            gone.append(chosen)
        for old in gone:
            held.pop(old.response_id, None)
        sizes = [s.size_bytes + s.log.size_bytes for s in held.values()]
        assert kept.size_bytes == sum(sizes)
        assert len(kept) == len(held)
        assert sum(sizes[:-1]) <= 10 * SIZE
