"""Answering tokens behind others that wait are taken in later, and nothing can tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.response import session as session_module
from gateway.response.output_item import OutputItem
from gateway.response.session import Session
from gateway.schemas.errors import Unavailable
from tests.gateway.support.sessions import ScriptedWorker, make_session, run_to_end


def waiting() -> tuple[Session, ScriptedWorker]:
    """A session with a place on the wheel, one waiting token, and four that are put off."""
    session = make_session()
    worker = ScriptedWorker(session, reasoning=False)
    worker.say("a", "b", now=1.0)
    session.wheel_slot = 220
    worker.say("c", now=1.02)
    worker.say("d", "", "é", now=1.04)
    assert len(session._put_off) == 4 * 3
    return session, worker


LOOKS: tuple[Callable[[Session], object], ...] = (
    lambda session: session.release(1.1),
    lambda session: session.left(),
    lambda session: session.set_pace(0.2, None, 1.05, 60.0),
    lambda session: session.cancel(1.05),
    lambda session: session.token_ids,
)


@pytest.mark.parametrize("look", LOOKS)
def test_every_call_that_needs_them_takes_them_in(look: Callable[[Session], object]) -> None:
    session, _ = waiting()
    assert session.output_tokens == 6
    look(session)
    assert (len(session.token_ids), session._put_off) == (6, [])
    assert session.transcript.items[0].text == "abcdé".encode()


def test_a_failure_sends_them() -> None:
    session, _ = waiting()
    session.fail(Unavailable("gone", code="instance_lost"), 1.05)
    assert session.answer_text == "abcdé"


def test_the_plan_and_the_figures_are_those_of_the_time_when_they_came() -> None:
    session, worker = waiting()
    worker.finish(now=1.05)
    session.wheel_slot = None
    last_s = run_to_end(session)
    plain = make_session()
    other = ScriptedWorker(plain, reasoning=False)
    other.say("a", "b", now=1.0)
    other.say("c", now=1.02)
    other.say("d", "", "é", now=1.04)
    other.finish(now=1.05)
    assert run_to_end(plain) == last_s
    assert session.measurements() == plain.measurements()
    assert list(session.token_ids) == list(plain.token_ids)


@pytest.mark.parametrize("texts", [["a", " b"], ["a", "é"], ['"', ",", "\n"], ["\U0001d11e", "x"]])
def test_texts_that_are_taken_in_together_are_the_deltas_that_they_are_one_by_one(
    texts: list[str],
) -> None:
    together, one_by_one = OutputItem("answer", "msg_1"), OutputItem("answer", "msg_1")
    for item in (together, one_by_one):
        item.announce(0)
        item.add("first")
    assert together.add_all(texts)
    for text in texts:
        one_by_one.add(text)
    assert together.waiting == one_by_one.waiting == 1 + len(texts)
    events = [
        [item.next_live(number, 0, None) for number in range(1 + len(texts))]
        for item in (together, one_by_one)
    ]
    assert events[0] == events[1]
    assert together.decoded() == "first" + "".join(texts)


def test_only_so_many_are_put_off() -> None:
    session, worker = waiting()
    for place in range(3 * session_module._MOST_PUT_OFF):
        worker.say("x", now=1.05 + place / 1000)
        assert len(session._put_off) <= session_module._MOST_PUT_OFF
