"""Tokens that are sent ahead: earlier on the wire, and nothing else changes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.response.session import Session
from gateway.schemas.errors import Unavailable
from tests.gateway.support.sessions import ScriptedWorker, events_of, make_session

TAU_S = 0.1
BEGAN_S = 1.0


class Reader:
    """Notes when each delta of the answer is sent, on a clock that a test moves."""

    wants_events = True

    def __init__(self, session: Session) -> None:
        self.sent: list[float] = []
        self.now = 0.0
        self._session = session
        session.log.attach(self)

    def take(self, sequence: int, type_: str, data: bytes) -> None:
        if type_ == "response.output_text.delta":
            self.sent.append(self.now)

    def text_grew(self) -> None:
        raise AssertionError

    def log_ended(self) -> None:
        """Nothing is to be done."""

    def fail(self, error: Exception) -> None:
        raise error

    def run(self, until_s: float = math.inf) -> None:
        """Release what is due until then, each at its time."""
        while (due_s := self._session.next_release_s()) is not None and due_s <= until_s:
            self.now = max(self.now, due_s)
            self._session.release(self.now)
        if until_s < math.inf:
            self.now = until_s


def begin(lead_s: float, **fields: Any) -> tuple[Session, ScriptedWorker, Reader]:
    session = make_session(pacing={"tpot_s": TAU_S, "lead_s": lead_s}, **fields)
    worker = ScriptedWorker(session, reasoning=False)
    return session, worker, Reader(session)


def play(lead_s: float, script: list[tuple[str, float]]) -> tuple[Session, list[float], float]:
    """:return: the session, when each delta was sent, and when the response ended."""
    session, worker, reader = begin(lead_s)
    now = BEGAN_S
    worker.say("t", now=now)
    for what, later_s in script:
        now += later_s
        reader.run(now)
        match what:
            case "pause":
                session.set_pace(None, True, now, 60.0)
            case "resume":
                session.set_pace(None, False, now, 60.0)
            case "slower":
                session.set_pace(0.2, None, now, 60.0)
            case "faster":
                session.set_pace(0.05, None, now, 60.0)
            case "part":
                worker.say("", now=now)
            case _:
                worker.say("t", now=now)
    session.set_pace(None, False, now, 60.0)
    reader.now = now
    worker.finish(now=now)
    reader.run()
    assert session.finished
    return session, reader.sent, reader.now


STEPS = st.tuples(
    st.sampled_from(["token"] * 8 + ["part", "pause", "resume", "slower", "faster"]),
    st.sampled_from([0.0, 0.01, 0.03, 0.1, 0.35]),
)


@given(script=st.lists(STEPS, max_size=60), lead_s=st.sampled_from([0.25, 1.0, 2.5]))
@example(script=[("token", 0.01)] * 300, lead_s=2.5)
def test_the_plan_and_the_figures_are_those_without_a_lead(
    script: list[tuple[str, float]], lead_s: float
) -> None:
    plain, planned, ended_s = play(0.0, script)
    ahead, sent, ahead_ended_s = play(lead_s, script)
    assert ahead.answer_text == plain.answer_text
    assert ahead_ended_s == pytest.approx(ended_s, abs=1e-6)
    assert ahead.delivery.underruns == plain.delivery.underruns
    one, other = plain.measurements(), ahead.measurements()
    assert other["qoe"] == pytest.approx(one["qoe"], abs=1e-5)
    for span in ("raw", "paced"):
        assert other["timing"][span] == pytest.approx(one["timing"][span], abs=1e-5)
    assert len(sent) == len(planned)
    assert all(at <= due + 1e-6 for at, due in zip(sent, planned, strict=True))


def test_a_token_is_sent_its_lead_before_its_time_and_never_before_it_exists() -> None:
    _session, worker, reader = begin(0.25)
    reader.now = BEGAN_S
    worker.say(*"abcdef", now=BEGAN_S)  # planned at 1.0, 1.1 ... 1.5
    reader.run(1.32)
    assert reader.sent == pytest.approx([1.0, 1.0, 1.0, 1.05, 1.15, 1.25])
    worker.say("g", now=1.32)  # planned at 1.6
    reader.run(1.4)
    assert reader.sent[-1] == pytest.approx(1.35)
    worker.say("h", now=1.4)
    worker.finish(now=1.4)
    reader.run()
    assert reader.sent[-1] == pytest.approx(1.45)
    assert reader.now == pytest.approx(1.7)  # the end comes when the last one is to be shown


def test_slack_is_that_of_the_plan_and_the_buffer_what_is_not_sent() -> None:
    session, worker, _ = begin(0.25)
    worker.say(*"abcdef", now=BEGAN_S)
    deltas = [event for event in events_of(session) if "delta" in event["type"]]
    assert len(deltas) == 3
    assert session.delivery.buffered_tokens == 3
    assert session.delivery.slack_s(BEGAN_S) == pytest.approx(0.6)
    assert session.delivery.unread_s(BEGAN_S) == pytest.approx(0.5)
    assert session.delivery.unread_s(BEGAN_S + 9.0) == pytest.approx(0.3)


def test_a_pause_stops_what_is_ahead_too() -> None:
    session, worker, reader = begin(1.0)
    worker.say(*"abcdefghijklmnop", now=BEGAN_S)
    assert session.delivery.buffered_tokens == 5
    session.set_pace(None, True, 1.2, 60.0)
    assert session.next_release_s() is None
    worker.finish(now=1.3)
    assert session.next_release_s() is None
    session.set_pace(None, False, 5.2, 60.0)
    reader.run()
    assert reader.now == pytest.approx(6.5)


def test_an_end_that_waits_for_the_reader_waits_through_a_pause() -> None:
    session, worker, reader = begin(5.0)
    worker.say(*"abcdef", now=BEGAN_S)
    worker.finish(now=1.1)
    assert session.delivery.buffered_tokens == 0
    session.set_pace(None, True, 1.2, 60.0)
    assert session.next_release_s() is None
    session.release(3.0)
    assert session.status == "in_progress"
    session.set_pace(None, False, 4.2, 60.0)
    reader.run()
    assert session.finished
    assert reader.now == pytest.approx(4.5)


def test_what_a_stop_leaves_unseen_is_not_in_the_qoe() -> None:
    session, worker, _ = begin(5.0)
    worker.say(*"abcdefghij", now=BEGAN_S)
    session.cancel(1.35)
    worker.finish(now=1.35, reason="cancelled")
    assert session.measurements()["qoe"]["qoe"] == 1.0
    assert session.delivery._qoe is not None
    assert session.delivery._qoe.count == 4


@pytest.mark.parametrize(
    ("read_tokens", "kept"),
    [(None, "abcé"), (4, "ab"), (2, "ab"), (5, "abcé"), (99, "abcé"), (0, "")],
)
def test_a_stopped_answer_is_kept_as_far_as_it_was_read(read_tokens: int | None, kept: str) -> None:
    session, worker, _ = begin(5.0)
    worker.say("a", "b", "", "", "cé", now=BEGAN_S)
    session.cancel(1.05, read_tokens)
    worker.finish(now=1.06, reason="cancelled")
    last = events_of(session)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["output"][0]["content"][0]["text"] == kept
    assert session.answer_text == kept
    deltas = [event for event in events_of(session) if "delta" in event["type"]]
    assert [event["delta"] for event in deltas] == ["a", "b", "cé"]  # a resume has no hole
    numbers = [event["sequence_number"] for event in events_of(session)]
    assert numbers == list(range(len(numbers)))


def test_a_failure_shows_all_at_once() -> None:
    session, worker, _ = begin(0.25)
    worker.say(*"abcdef", now=BEGAN_S)
    session.fail(Unavailable("gone", code="instance_lost"), 1.05)
    assert session.answer_text == "abcdef"


def test_the_qoe_of_a_running_stream_counts_what_the_reader_has_by_then() -> None:
    sessions = []
    for lead_s in (0.0, 2.5):
        session, worker, reader = begin(lead_s)
        reader.now = BEGAN_S
        worker.say(*"abc", now=BEGAN_S)
        sessions.append((session, reader))
    for now in (1.0, 1.1, 1.2, 1.35, 1.9, 4.0):
        found = []
        for session, reader in sessions:
            reader.run(now)
            found.append(session.delivery.qoe_now(now))
        assert found[1] == pytest.approx(found[0], abs=1e-6)
        assert (now < 2.0) == (found[1] > 0.5)
