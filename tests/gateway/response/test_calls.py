"""Calls in a response: when text goes out, what counts for what, custom tools, many segments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.response.output_item import OutputItem
from tests.gateway.response.test_segments import Model, output_of
from tests.gateway.support.sessions import events_of, run_to_end
from workers.messages import Piece, TokenLogprob, Turn

CUSTOM: dict[str, Any] = {"tools": [{"type": "custom", "name": "f"}]}
CALLING = (Turn(at=0, phase="calling"),)


def test_text_goes_out_with_the_token_that_opens_the_call() -> None:
    """The name of the tool may come many tokens later."""
    model = Model(reasoning=False)
    model.answer(*"abcd", now=1.0)
    model._run(1, 1.01, pieces=(), turns=CALLING)
    assert model.session.answer_text == "abcd"


def test_text_between_two_calls_goes_out_with_the_second() -> None:
    """vLLM's parsers may find text of the answer inside of the markers of calls."""
    model = Model(reasoning=False)
    text = tuple(Piece(at=at + 2, kind="answer", text=text) for at, text in enumerate("xyz"))
    model._run(5, 1.0, pieces=(Piece(at=1, kind="call", name="f"), *text), turns=CALLING)
    assert model.session.answer_text == "x"
    model._run(1, 1.01, pieces=(Piece(at=0, kind="call", name="g"),))
    assert model.session.answer_text == "xyz"


def test_nothing_goes_out_after_a_cancel() -> None:
    model = Model(reasoning=False)
    model.answer(*"abcd", now=1.0)
    assert model.session.cancel(1.01)
    model.call("f", "{}", now=1.02)
    assert model.session.answer_text == "a"


def test_arguments_without_pieces_count_as_a_call() -> None:
    model = Model()
    model._run(2, 1.0, pieces=(Piece(at=1, kind="call", name="f"),), turns=CALLING)
    model._run(3, 1.1, texts=("{", "", "}"))
    session = model.session
    counts = (session.reasoning_tokens, session.calling_tokens, session.answering_tokens)
    assert (counts, session.output_tokens) == ((0, 5, 0), 5)


def test_what_comes_before_the_name_is_no_call() -> None:
    model = Model()
    model._run(1, 1.0, pieces=(), turns=CALLING)
    model._run(2, 1.1, texts=("<", "function"))
    assert model.session.transcript.items == []
    model._run(2, 1.2, pieces=tuple(Piece(at=at, kind="call", text="{") for at in (0, 1)))
    assert model.session.transcript.items == []


def test_the_time_of_each_stretch_of_thoughts() -> None:
    model = Model()
    model.think("a", now=1.0)
    model.answer("b", now=2.0)
    model.think("c", now=5.0)
    model.call("f", "{}", now=7.5)
    model.end(8.0)
    done = [e for e in events_of(model.session) if e["type"].endswith("item.done")]
    assert [event.get("reasoning_s") for event in done] == [1.0, None, 2.5, None]


def test_thoughts_at_the_end_are_not_complete() -> None:
    model = Model(reasoning=False)
    model.answer("a", now=1.0)
    model.think("hm", now=2.0)
    model.end(3.0)
    run_to_end(model.session)
    assert model.session.status == "completed"
    assert [item["status"] for item in output_of(model.session)] == ["completed", "incomplete"]


def test_log_probabilities_are_not_put_off() -> None:
    model = Model(reasoning=False)
    model.answer(*"ab", now=1.0)
    model.session.wheel_slot = 0  # as of a session whose next token waits
    likely = TokenLogprob(token="c", logprob=-0.5, data=(99,))
    assert model.session.token_ids.tolist() == [0, 1]
    model._run(1, 1.01, texts=("c",), logprobs=(likely,))
    model.end(1.02)
    run_to_end(model.session)
    (part,) = output_of(model.session)[0]["content"]
    assert [one["token"] for one in part["logprobs"]] == ["c"]


def test_the_first_text_of_the_answer_is_the_one_that_is_timed() -> None:
    model = Model()
    model.think("a", now=1.0)
    model.answer("b", now=2.0)
    model.think("c", now=3.0)
    model.answer("d", now=9.0)
    model.end(9.0)
    run_to_end(model.session)
    assert model.session.delivery.measurements().raw.ttfat_s == 0.0
    assert model.session.delivery.boundary_s == 2.0


def test_tokens_before_the_first_text_do_not_count() -> None:
    item = OutputItem("answer", "msg_1")
    assert [item.add(text) for text in ("", "", "a", "", "b")] == [0, 0, 1, 0, 2]


def test_the_id_of_a_call_is_the_models_if_it_has_one() -> None:
    model = Model()
    pieces = (
        Piece(at=1, kind="call", name="f", call_id="functions.f:0"),
        Piece(at=2, kind="call", name="f"),
    )
    model._run(3, 1.0, pieces=pieces, turns=CALLING)
    first, second = model.session.transcript.calls()
    assert first.call_id == "functions.f:0"
    assert second.call_id.startswith("call_")


@pytest.mark.parametrize("plain", [True, False])
def test_the_input_of_a_custom_tool_comes_in_one_delta(plain: bool) -> None:
    model = Model(**CUSTOM)
    arguments = ('{"input": ', '"a \\"b\\"', '"}')
    if plain:
        model._run(2, 1.0, pieces=(Piece(at=1, kind="call", name="f"),), turns=CALLING)
        for text in arguments:
            model._run(1, 1.1, texts=(text,))
        model._run(1, 1.2, texts=("",), turns=(Turn(at=1, phase="answering"),))
    else:
        model.call("f", *arguments, now=1.0)
    model.end(1.3)
    deltas = [event["delta"] for event in events_of(model.session) if "delta" in event]
    assert deltas == ['a "b"']
    # The model gets the call back as it wrote it.
    (call,) = model.session.conversation[-1].tool_calls
    assert call.arguments == '{"input":"a \\"b\\""}'


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ('{"input": "ls -', "ls -"),
        ('{"input":"a \\"b', 'a "b'),
        ('{"input": "a\\', "a"),
        ('{"input": "\\u00e9\\u00', "é"),
        ('{"input": "x\\ud83d', "x"),
        ('{"input": "', ""),
        ('{"input": "a"', "a"),
        ('{"inp', '{"inp'),
        ('{"other": "a', '{"other": "a'),
    ],
)
def test_the_input_of_a_custom_tool_that_is_cut_off(written: str, shown: str) -> None:
    model = Model(**CUSTOM)
    pieces = (Piece(at=1, kind="call", name="f"), Piece(at=2, kind="call", text=written))
    model._run(3, 1.0, pieces=pieces, turns=CALLING)
    model.end(1.1, "length")
    (call,) = output_of(model.session)
    assert (call["input"], call["status"]) == (shown, "incomplete")
    assert "".join(e["delta"] for e in events_of(model.session) if "delta" in e) == shown


class Visited(list[Any]):
    """Counts the elements that are looked at one after another."""

    looked_at = 0

    def __iter__(self) -> Iterator[Any]:
        for one in super().__iter__():
            self.looked_at += 1
            yield one


def test_a_segment_costs_the_same_however_many_came_before() -> None:
    model = Model()
    items = model.session.transcript.items = Visited()
    for round_ in range(200):
        model.think("a", now=float(round_))
        model.answer("b", now=float(round_))
        model.call("f", "{}", now=float(round_))
    assert (len(items), items.looked_at) == (600, 0)
    last = [one["id"] for one in output_of(model.session)[-3:]]
    assert last == ["rs_1_200", "msg_1_200", "fc_1_200"]
