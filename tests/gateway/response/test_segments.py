"""Phases in any order: one output item for each segment, in the order of the tokens."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.response.lifecycle import State
from gateway.response.session import Session
from tests.gateway.support.sessions import events_of, make_session, run_to_end, types_of
from workers.messages import Finish, Piece, TokenLogprob, TokenRun, Turn

PACE_S = 0.1


class Model:
    """Writes tokens of any phase; each call is one step of its engine."""

    def __init__(self, *, reasoning: bool = True, **fields: Any) -> None:
        self.session: Session = make_session(**fields)
        self.session.accepted("worker-0", 7, reasoning)
        self._phase = "reasoning" if reasoning else "answering"
        self._place = 0

    def think(self, *texts: str, now: float) -> None:
        self._texts("reasoning", texts, now)

    def answer(self, *texts: str, now: float) -> None:
        self._texts("answering", texts, now)

    def call(self, name: str, *arguments: str, now: float) -> None:
        """Write a call: opener, name, arguments, end; then the phase is answering again."""
        count = len(arguments) + 3
        pieces = [Piece(at=1, kind="call", name=name)]
        pieces += [Piece(at=at + 2, kind="call", text=text) for at, text in enumerate(arguments)]
        turns = (*self._turn("calling"), Turn(at=count, phase="answering"))
        self._phase = "answering"
        self._run(count, now, pieces=tuple(pieces), turns=turns)

    def end(self, now: float, reason: Any = "stop") -> None:
        self._run(0, now, finish=Finish(reason=reason))

    def _texts(self, phase: str, texts: tuple[str, ...], now: float) -> None:
        turns = self._turn(phase)
        self._phase = phase
        self._run(len(texts), now, texts=texts, turns=turns)

    def _turn(self, phase: str) -> tuple[Turn, ...]:
        return () if phase == self._phase else (Turn(at=0, phase=phase),)  # type: ignore[arg-type]

    def _run(self, count: int, now: float, **fields: Any) -> None:
        run = TokenRun(
            request_id=self.session.response_id,
            position=self._place,
            token_ids=tuple(range(self._place, self._place + count)),
            **{"texts": (), **fields},
        )
        self._place += count
        self.session.tokens(run, now)


def output_of(session: Session) -> list[dict[str, Any]]:
    """The output of the response object, as a client gets it."""
    output: list[dict[str, Any]] = orjson.loads(orjson.dumps(session.response_object()["output"]))
    return output


def test_a_call_follows_the_thoughts_and_nobody_waits_for_it() -> None:
    model = Model()
    model.think("I need ", "a sum.", now=1.0)
    model.call("add", '{"a": 1, ', '"b": 2}', now=2.0)
    model.end(2.5)
    session = model.session
    assert (session.state, session.status) == (State.DONE, "completed")
    thoughts, call = session.response_object()["output"]
    assert (thoughts["type"], thoughts["status"]) == ("reasoning", "completed")
    assert (call["type"], call["name"], call["status"]) == ("function_call", "add", "completed")
    (spoken,) = session.transcript.calls()
    assert (spoken.name, spoken.arguments) == ("add", '{"a": 1, "b": 2}')
    assert call["call_id"] == spoken.call_id != ""
    assert types_of(session)[-5:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert (session.reasoning_tokens, session.calling_tokens, session.answering_tokens) == (2, 5, 0)
    assert session.delivery.measurements().qoe is None  # nobody reads


def test_text_before_a_call_goes_out_when_the_call_opens() -> None:
    model = Model(reasoning=False)
    model.answer(*"abcd", now=1.0)
    assert model.session.answer_text == "a"
    model.call("f", "{}", now=1.01)
    assert model.session.answer_text == "abcd"
    deltas = [event["delta"] for event in events_of(model.session) if "delta" in event]
    assert deltas == ["a", "b", "c", "d", "{}"]
    assert [item["type"] for item in model.session.response_object()["output"]] == [
        "message",
        "function_call",
    ]


def test_a_reopened_thought_waits_for_the_text_before_it() -> None:
    model = Model(reasoning=False)
    session = model.session
    model.answer(*"abc", now=1.0)
    model.think("hm", now=1.01)
    model.answer("d", now=1.02)
    assert session.reasoning_text == ""
    session.release(1.1001)
    assert (session.answer_text, session.reasoning_text) == ("ab", "")
    session.release(1.2001)
    assert (session.answer_text, session.reasoning_text) == ("abc", "hm")
    session.release(1.3001)
    assert session.answer_text == "abcd"
    model.end(1.4)
    output = session.response_object()["output"]
    assert [item["type"] for item in output] == ["message", "reasoning", "message"]
    assert len({item["id"] for item in output}) == 3
    assert session.delivery.underruns == 0


@pytest.mark.parametrize("thinks", [True, False])
def test_the_reader_who_waits_for_a_reopened_thought_does_not_count_as_starved(
    thinks: bool,
) -> None:
    model = Model(reasoning=False)
    session = model.session
    model.answer(*"ab", now=1.0)
    if thinks:
        model.think("hm", now=1.05)
    session.release(1.1001)
    assert session.delivery.qoe_now(8.0) == pytest.approx(1.0 if thinks else 0.1, abs=0.1)
    if thinks:
        model.think("so", now=4.0)
    model.answer(*"cdefghij", now=9.0)
    model.end(9.0)
    run_to_end(session)
    assert session.answer_text == "abcdefghij"
    qoe = session.delivery.measurements().qoe
    assert qoe is not None
    assert (session.delivery.underruns, qoe > 0.999) == ((0, True) if thinks else (1, False))


def test_a_pause_holds_text_back_but_no_call() -> None:
    model = Model(reasoning=False)
    model.answer(*"ab", now=1.0)
    model.session.set_pace(None, True, 1.01, 60.0)
    model.answer("c", now=1.02)
    assert model.session.answer_text == "a"
    model.call("f", "{}", now=1.03)
    assert (model.session.answer_text, len(model.session.transcript.calls())) == ("abc", 1)


def test_two_calls_have_ids_and_places_of_their_own() -> None:
    model = Model(reasoning=False)
    model.call("f", "1", now=1.0)
    model.call("g", "2", now=1.1)
    model.end(1.2)
    first, second = model.session.response_object()["output"]
    assert (first["name"], second["name"]) == ("f", "g")
    assert first["id"] != second["id"]
    assert first["call_id"] != second["call_id"]
    added = [e for e in events_of(model.session) if e["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == [0, 1]


def test_a_call_that_the_bound_cut_off_is_incomplete() -> None:
    model = Model()
    session = model.session
    pieces = (Piece(at=1, kind="call", name="f"), Piece(at=2, kind="call", text='{"a'))
    model._run(3, 1.0, pieces=pieces, turns=(Turn(at=0, phase="calling"),))
    model.end(1.1, "length")
    assert session.status == "incomplete"
    (call,) = output_of(session)
    assert (call["arguments"], call["status"]) == ('{"a', "incomplete")


def test_a_request_that_moves_in_the_middle_of_a_call_goes_on_with_it() -> None:
    model = Model()
    session = model.session
    pieces = (Piece(at=1, kind="call", name="f"), Piece(at=2, kind="call", text='{"a'))
    model._run(3, 1.0, pieces=pieces, turns=(Turn(at=0, phase="calling"),))
    session.left()
    session.accepted("worker-1", 7, True)
    assert session.state is State.CALLING
    model._run(2, 2.0, texts=('": 1}', ""), turns=(Turn(at=2, phase="answering"),))
    model.end(2.1)
    (spoken,) = session.transcript.calls()
    assert spoken.arguments == '{"a": 1}'


def test_log_probabilities_come_with_their_delta() -> None:
    model = Model(reasoning=False)
    likely = [TokenLogprob(token=text, logprob=-0.5, data=tuple(text.encode())) for text in "ab"]
    model._run(2, 1.0, texts=("a", "b"), logprobs=tuple(likely))
    model.end(1.0)
    run_to_end(model.session)
    deltas = [e for e in events_of(model.session) if e["type"] == "response.output_text.delta"]
    assert [d["logprobs"][0]["token"] for d in deltas] == ["a", "b"]
    (part,) = output_of(model.session)[0]["content"]
    assert [(one["token"], one["bytes"], one["top_logprobs"]) for one in part["logprobs"]] == [
        ("a", [97], []),
        ("b", [98], []),
    ]


def test_the_next_turn_gets_the_call_and_the_thoughts() -> None:
    model = Model()
    model.think("hm", now=1.0)
    model.call("f", "{}", now=1.1)
    model.end(1.2)
    last = model.session.conversation[-1]
    assert (last.reasoning, last.content, last.tool_calls[0].name) == ("hm", "", "f")


def test_a_call_that_is_cut_off_is_no_part_of_the_next_turn() -> None:
    """It could get no result, and a call without one is refused."""
    model = Model()
    model.call("f", "{}", now=1.0)
    pieces = (Piece(at=1, kind="call", name="g"), Piece(at=2, kind="call", text='{"a'))
    model._run(3, 1.1, pieces=pieces, turns=(Turn(at=0, phase="calling"),))
    model.end(1.2, "length")
    session = model.session
    assert [one["status"] for one in output_of(session)] == ["completed", "incomplete"]
    assert [call.name for call in session.conversation[-1].tool_calls] == ["f"]
    assert [call.name for call in session.transcript.calls()] == ["f", "g"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["think", "answer", "call"]),
        st.lists(st.sampled_from(["a", "", "é ", '"']), min_size=1, max_size=5),
        st.floats(0.0, 0.5),
    ),
    min_size=1,
    max_size=12,
)


@given(STEPS, st.booleans())
def test_events_are_in_the_order_of_the_tokens(
    steps: list[tuple[str, list[str], float]], released: bool
) -> None:
    model = Model()
    session, now = model.session, 1.0
    expected: list[tuple[str, str]] = []
    before = ""
    for what, texts, later in steps:
        now += later
        if released:
            session.release(now)
        text = "".join(texts)
        if what == "think":
            model.think(*texts, now=now)
        elif what == "answer":
            model.answer(*texts, now=now)
        else:
            model.call("f", *texts, now=now)
        kind = {"think": "reasoning_text", "answer": "output_text", "call": "call"}[what]
        if what != before or what == "call":
            expected.append((kind, ""))
        expected[-1] = (kind, expected[-1][1] + text)
        before = what
    model.end(now)
    run_to_end(session)
    shown: list[tuple[str, str]] = []
    item = None
    for event in events_of(session):
        kind = event["type"].removeprefix("response.").removesuffix(".delta")
        if event["type"].endswith("output_item.added") and event["item"]["type"] == "function_call":
            shown.append(("call", ""))
            item = event["item"]["id"]
        if "delta" in event:
            kind = "call" if kind == "function_call_arguments" else kind
            if event["item_id"] == item:
                shown[-1] = (kind, shown[-1][1] + event["delta"])
            else:
                shown.append((kind, event["delta"]))
                item = event["item_id"]
    assert shown == [(kind, text) for kind, text in expected if text or kind == "call"]
    events = events_of(session)
    closed = [event["item"]["id"] for event in events if event["type"].endswith("item.done")]
    assert closed == [one["id"] for one in session.response_object()["output"]]
    numbers = [event["sequence_number"] for event in events_of(session)]
    assert numbers == list(range(len(numbers)))
