"""A reader must notice the faults of a broken gateway."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.soak.clients.stream import ChatStream, Refused, Stream, Tally, Violation


def events(**final: Any) -> list[dict[str, Any]]:
    """A complete response: two reasoning deltas and one word."""
    response = {
        "id": "resp_1",
        "status": "completed",
        "error": None,
        "output": [
            {"type": "reasoning", "content": [{"text": "ab"}]},
            {"type": "message", "content": [{"text": "yes"}]},
        ],
    }
    sequence: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "resp_1"}},
        {"type": "response.reasoning_text.delta", "delta": "a"},
        {"type": "response.reasoning_text.delta", "delta": "b"},
        {"type": "response.output_text.delta", "delta": "yes"},
        {"type": "response.completed", "response": response | final},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(sequence)]


def read(sent: list[dict[str, Any]]) -> Stream:
    stream = Stream(Tally())
    for event in sent:
        stream.feed(event)
    return stream


def test_a_whole_stream_is_right() -> None:
    stream = read(events())
    assert stream.ended
    assert stream.response_id == "resp_1"


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_a_hole_is_a_violation(lost: int) -> None:
    with pytest.raises(Violation, match="follows"):
        read([event for event in events() if event["sequence_number"] != lost])


def test_an_event_that_comes_twice_is_a_violation() -> None:
    sent = events()
    with pytest.raises(Violation, match="event 1 follows 1"):
        read([sent[0], sent[1], sent[1]])


def test_something_after_the_end_is_a_violation() -> None:
    sent = events()
    with pytest.raises(Violation, match="after the terminal event"):
        read([*sent, sent[-1]])


def test_a_delta_that_is_not_in_the_final_text_is_a_violation() -> None:
    sent = events()
    sent[2]["delta"] = "c"
    with pytest.raises(Violation, match="do not join"):
        read(sent)


def test_an_end_that_calls_itself_otherwise_is_a_violation() -> None:
    with pytest.raises(Violation, match="says incomplete"):
        read(events(status="incomplete"))


def test_after_expired_events_only_the_order_can_be_checked() -> None:
    sent = events()
    stream = read(sent[:2])
    stream.expired()
    stream.last = 2
    for event in sent[3:]:
        stream.feed(event)
    assert stream.ended


THOUGHTS, ANSWER = ("hm", ""), ("a", "", "\N{SNOWMAN}b", "")


def chunks() -> list[Any]:
    """A complete chat completion of these tokens."""
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"reasoning": "hm", "reasoning_content": "hm"},
        {"content": "a"},
        {"content": "\N{SNOWMAN}b"},
    ]
    sent: list[Any] = [
        {"id": "chatcmpl-1", "choices": [{"delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}], "qoe": {"qoe": 1.0}}
    usage = {"choices": [], "usage": {"completion_tokens": 6}}
    return [*sent, {"id": "chatcmpl-1", **end}, {"id": "chatcmpl-1", **usage}, "[DONE]"]


def chat(sent: list[Any]) -> tuple[ChatStream, list[dict[str, Any]]]:
    stream = ChatStream(Tally(), THOUGHTS, ANSWER)
    events = [stream.take((x if isinstance(x, str) else json.dumps(x)).encode()) for x in sent]
    return stream, events


def test_a_whole_chat_completion_is_right_and_its_tokens_are_counted() -> None:
    stream, events = chat(chunks())
    assert stream.final is not None
    assert stream.final["status"] == "completed"
    assert stream.final["usage"]["output_tokens"] == 6
    tokens = [event["tokens"] for event in events if event["type"].endswith("output_text.delta")]
    assert tokens == [1, 2]


@pytest.mark.parametrize(("lost", "message"), [(1, "join"), (3, "join"), (4, "finish_reason")])
def test_a_lost_chunk_is_a_violation(lost: int, message: str) -> None:
    sent = chunks()
    del sent[lost]
    with pytest.raises(Violation, match=message):
        chat(sent)


def test_a_chunk_after_the_end_is_a_violation() -> None:
    with pytest.raises(Violation, match="after"):
        chat([*chunks(), chunks()[1]])


def test_an_error_in_a_chat_stream_is_a_refusal() -> None:
    with pytest.raises(Refused, match="events_expired"):
        chat([*chunks()[:2], {"error": {"code": "events_expired", "message": "Too slow."}}])
