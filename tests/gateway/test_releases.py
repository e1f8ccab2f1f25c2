"""The timer of the release wheel, on a real event loop."""

from __future__ import annotations

import asyncio
import time

from gateway.lateness import ReleaseLateness
from gateway.releases import Releases
from gateway.response.session import Session
from gateway.response.wheel import SLOT_S
from tests.gateway.support.override import override
from tests.gateway.support.scripted_service import until
from tests.gateway.support.sessions import ScriptedWorker, make_session


def waiting_session(tpot_s: float, tokens: int = 2) -> Session:
    """A session whose first token was released, and whose others wait."""
    now = time.monotonic()
    session = make_session(now=now, pacing={"tpot_s": tpot_s})
    ScriptedWorker(session, reasoning=False).say(*"abcdefgh"[:tokens], now=now)
    return session


def releases(done: list[Session], bugs: list[Session]) -> Releases:
    return Releases(ReleaseLateness(), on_none=done.append, on_bug=bugs.append)


def wait_for_next(waiting: Releases, session: Session) -> None:
    due_s = session.next_release_s()
    assert due_s is not None
    waiting.set(session, due_s)


async def test_an_earlier_release_does_not_wait_for_a_later_one_that_was_set_first() -> None:
    done: list[Session] = []
    waiting = releases(done, [])
    slow, fast = waiting_session(30.0), waiting_session(0.05)
    wait_for_next(waiting, slow)
    wait_for_next(waiting, fast)
    assert 0.0 < waiting.gap_s() <= 0.05
    await until(lambda: done)
    assert done == [fast]
    assert (fast.answer_text, slow.answer_text) == ("ab", "a")
    waiting.clear(slow)
    assert waiting.gap_s() == float("inf")
    waiting.close()


async def test_each_token_goes_at_its_time_and_at_most_a_slot_before() -> None:
    done: list[Session] = []
    waiting = releases(done, [])
    session = waiting_session(0.03, tokens=5)
    first_s = time.monotonic()
    times: list[float] = []

    def note() -> None:
        if len(session.answer_text) > 1 + len(times):
            times.append(time.monotonic())

    waiting.after = note
    wait_for_next(waiting, session)
    await until(lambda: done)
    assert (session.answer_text, len(times)) == ("abcde", 4)
    for place, at in enumerate(times, 1):
        assert at >= first_s + 0.03 * place - SLOT_S - 0.002
    waiting.close()


async def test_what_is_overdue_is_released_without_the_timer() -> None:
    done: list[Session] = []
    waiting = releases(done, [])
    session = waiting_session(0.02)
    wait_for_next(waiting, session)
    waiting.catch_up()
    assert session.answer_text == "a"  # not yet due
    time.sleep(0.03)  # noqa: ASYNC251 (as a step of another engine that takes long)
    waiting.catch_up()
    assert (session.answer_text, done) == ("ab", [session])
    await asyncio.sleep(0.03)
    assert done == [session]
    waiting.close()


async def test_a_release_that_raises_is_reported_and_the_others_go_on() -> None:
    done: list[Session] = []
    bugs: list[Session] = []
    waiting = releases(done, bugs)
    bad, good = waiting_session(0.01), waiting_session(0.01)

    def broken(*_: object) -> None:
        raise ValueError("a bug")

    override(bad, release=broken)
    for session in (bad, good):
        wait_for_next(waiting, session)
    await until(lambda: done and bugs)
    assert (done, bugs) == ([good], [bad])
    waiting.close()
