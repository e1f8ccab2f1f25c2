from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bench.load.record import Event, ForcedLengths, ResponseRecord, decode


def event(kind: str, sequence: int | None, **fields: Any) -> Event:
    return msgspec.convert({"type": kind, "sequence_number": sequence, **fields}, Event)


def final(
    status: str = "completed", reasoning: str = "Hm.", answer: str = "Four.", **fields: Any
) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "status": status,
        "output": [
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": reasoning}]},
            {"type": "message", "content": [{"type": "output_text", "text": answer}]},
        ],
        "usage": {"output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 4}},
    } | fields


def played(*events: Event, forced: ForcedLengths | None = None) -> ResponseRecord:
    record = ResponseRecord(forced)
    record.sent_s = 0.0
    for at, one in enumerate(events):
        record.receive(one, float(at))
    return record


def story(last: str = "completed", **fields: Any) -> list[Event]:
    """A completed response: 0 created, 1 reasoning, 2 its end, 3 and 4 answer, 5 its end, 6 end."""
    return [
        event("response.created", 0, response={"id": "resp_1", "status": "in_progress"}),
        event("response.reasoning_text.delta", 1, delta="Hm."),
        event("response.output_item.done", 2, item={"type": "reasoning"}),
        event("response.output_text.delta", 3, delta="Fo"),
        event("response.output_text.delta", 4, delta="ur.", tokens=2),
        event("response.output_item.done", 5, item={"type": "message"}),
        event(f"response.{last}", 6, response=final(last, **fields)),
    ]


def test_a_sound_response_is_completed() -> None:
    record = played(*story())
    assert (record.outcome, record.failure) == ("completed", None)
    assert record.response_id == "resp_1"
    assert record.reasoning_end_s == 2.0
    assert [(delta.received_s, delta.tokens) for delta in record.answer] == [(3.0, 1), (4.0, 2)]
    assert record.ended_s == 6.0
    assert record.answer_text == "Four."


@pytest.mark.parametrize("missing", range(6))
def test_a_missing_event_fails_it(missing: int) -> None:
    events = story()
    del events[missing]
    record = played(*events)
    assert record.outcome == "failed"
    assert record.failure is not None
    assert f"sequence_number {missing + 1} where {missing} was due" in record.failure


def test_a_repeated_event_fails_it() -> None:
    events = story()
    record = played(*events[:4], events[3], *events[4:])
    assert record.failure == ("response.output_text.delta has sequence_number 3 where 4 was due")


def test_an_event_without_number_fails_it() -> None:
    record = played(*story()[:1], event("response.in_progress", None), *story()[1:])
    assert record.failure == "response.in_progress has sequence_number None where 1 was due"


@pytest.mark.parametrize("late", ["response.completed", "response.output_text.delta"])
def test_nothing_may_follow_the_end(late: str) -> None:
    record = played(*story(), event(late, 7, response=final()))
    assert record.outcome == "failed"
    assert record.failure == f"{late} came after the terminal event response.completed"


def test_a_final_text_that_differs_fails_it() -> None:
    assert played(*story(answer="Five.")).failure == (
        "the deltas of the answer (5 characters) differ from the final text (5 characters) "
        "at character 1"
    )
    assert played(*story(answer="Four. ")).failure == (
        "the deltas of the answer (5 characters) differ from the final text (6 characters) "
        "at character 5"
    )
    assert played(*story(reasoning="")).failure == (
        "the deltas of the reasoning (3 characters) differ from the final text (0 characters) "
        "at character 0"
    )


def test_thoughts_within_an_answer_do_not_change_when_it_began() -> None:
    events = story(reasoning="Hm.So.", answer="Fo")
    events[4] = event("response.reasoning_text.delta", 4, delta="So.")
    events[5] = event("response.output_item.done", 5, item={"type": "reasoning"})
    record = played(*events)
    assert (record.failure, record.reasoning_end_s, record.reasoning_text) == (None, 2.0, "Hm.So.")


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add"}
ARGUMENTS = ('{"a": 348', ', "b": 275}')


def calling(**fields: Any) -> list[Event]:
    """Thoughts, and a call whose item is `CALL` with these fields in the final response."""
    thoughts, rest = story()[:3], "response.function_call_arguments."
    done = CALL | {"arguments": "".join(ARGUMENTS)} | fields
    output = [*final()["output"][:1], done]
    return [
        *thoughts,
        event("response.output_item.added", 3, item=CALL | {"arguments": ""}),
        event(rest + "delta", 4, item_id="fc_1", delta=ARGUMENTS[0]),
        event(rest + "delta", 5, item_id="fc_1", delta=ARGUMENTS[1], tokens=3),
        event(rest + "done", 6, item_id="fc_1", arguments="".join(ARGUMENTS)),
        event("response.output_item.done", 7, item=done),
        event("response.completed", 8, response=final() | {"output": output}),
    ]


def test_a_call_is_joined_from_its_deltas() -> None:
    record = played(*calling())
    assert (record.outcome, record.failure) == ("completed", None)
    (call,) = record.calls
    assert (call.call_id, call.name, call.ended_s) == ("call_1", "add", 7.0)
    assert call.arguments == '{"a": 348, "b": 275}'
    assert (record.answer, record.answer_text, record.reasoning_end_s) == ([], "", 2.0)


def test_a_call_without_thoughts_is_the_first_token() -> None:
    begin, *_ = story()
    call = event("response.output_item.added", 1, item=CALL)
    assert played(begin, call).first_token_s == 1.0


@pytest.mark.parametrize(
    "fields", [{"arguments": "{}"}, {"name": "sum"}, {"call_id": "call_2"}, {"type": "x"}]
)
def test_a_call_that_differs_from_the_final_one_fails_it(fields: dict[str, str]) -> None:
    assert played(*calling(**fields)).failure == (
        "the calls of tools differ from those of the final response"
    )


def test_arguments_of_no_call_fail_it() -> None:
    stray = event("response.function_call_arguments.delta", 1, item_id="fc_9", delta="{")
    assert played(story()[0], stray).failure == "arguments arrived for 'fc_9', which is no call"


@pytest.mark.parametrize("reason", ["max_output_tokens", "no_answer"])
def test_incomplete_for_a_good_reason_is_no_failure(reason: str) -> None:
    record = played(*story("incomplete", incomplete_details={"reason": reason}))
    assert (record.outcome, record.failure) == ("incomplete", None)


@pytest.mark.parametrize("details", [{"reason": "cancelled"}, {}, None])
def test_incomplete_for_another_reason_is_one(details: dict[str, str] | None) -> None:
    record = played(*story("incomplete", incomplete_details=details))
    assert record.outcome == "failed"
    assert record.failure is not None
    assert record.failure.startswith("incomplete for an unexpected reason")


def test_a_failed_response_says_why() -> None:
    error = {"code": "instance_lost", "message": "the instance died"}
    record = played(*story("failed", error=error))
    assert record.outcome == "failed"
    assert record.failure == "response failed: instance_lost: the instance died"


def test_an_end_without_a_response_or_with_another_status_fails_it() -> None:
    bare = played(*story()[:6], event("response.completed", 6))
    assert bare.failure == "response.completed carries no response object"
    other = played(*story()[:6], event("response.completed", 6, response=final("incomplete")))
    assert other.failure == "response.completed carries a response with status 'incomplete'"


def test_a_refusal_ends_it() -> None:
    error = {"type": "rate_limit_error", "code": "overloaded", "message": "no room"}
    record = played(event("error", None, status=429, error=error))
    assert record.ended
    assert (record.outcome, record.failure) == ("failed", "error 429: overloaded: no room")


def test_without_an_end_it_has_failed() -> None:
    record = played(*story()[:6])
    assert not record.ended
    assert record.outcome == "failed"


def test_abandoning_ends_it_once_and_forgives_what_follows() -> None:
    record = played(*story()[:3])
    record.abandon("timed out", 9.0)
    record.abandon("connection lost", 10.0)
    record.receive(story()[6], 11.0)
    assert (record.outcome, record.failure, record.ended_s) == ("failed", "timed out", 9.0)


def test_interrupting_is_not_failing() -> None:
    record = played(*story()[:3])
    record.interrupt(9.0)
    assert (record.outcome, record.failure, record.ended_s) == ("interrupted", None, 9.0)
    ended = played(*story())
    ended.interrupt(9.0)
    assert ended.outcome == "completed"


def test_forced_lengths_are_checked() -> None:
    right = ForcedLengths(reasoning_tokens=4, answer_tokens=3)
    assert played(*story(), forced=right).failure is None
    wrong = ForcedLengths(reasoning_tokens=5, answer_tokens=2)
    assert played(*story(), forced=wrong).failure == (
        "lengths 4 + 3 tokens where 5 + 2 were forced"
    )
    call = ForcedLengths(reasoning_tokens=4, answer_tokens=0, call_tokens=3)
    assert played(*calling(), forced=call).failure is None
    assert played(*story(usage=None), forced=right).failure == (
        "no usage to check the forced lengths against"
    )


@pytest.mark.parametrize("message", ["", "[]", "{}", '{"type": 1}', '{"type":"x","tokens":0}'])
def test_what_is_not_an_event_is_refused(message: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(message)
