"""A reader must notice the faults of a broken gateway."""

from __future__ import annotations

from typing import Any

import pytest

from tests.soak.clients.stream import Stream, Tally, Violation


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
