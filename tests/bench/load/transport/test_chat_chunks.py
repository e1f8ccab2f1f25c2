from __future__ import annotations

import json

import msgspec
import pytest

from bench.load.record import ForcedLengths, ResponseRecord
from bench.load.transport.chat_chunks import ChatReader
from tests.bench.support.scripted_http import ANSWER, DONE, THOUGHTS, chunk, data, usage

BEGIN = chunk({"role": "assistant", "content": ""})
THINKING = [chunk({"reasoning": text, "reasoning_content": text}) for text in THOUGHTS]
ANSWERING = [chunk({"content": text}) for text in ANSWER]
FINISH = chunk({}, "stop")
USAGE = usage(completion_tokens_details={"reasoning_tokens": 4})


def played(*frames: bytes, forced: ForcedLengths | None = None) -> ResponseRecord:
    """The record of chunks that arrive a second apart."""
    record = ResponseRecord(forced)
    record.sent_s = 0.0
    reader = ChatReader(record)
    for at, frame in enumerate(frames):
        reader.receive(frame.removeprefix(b"data: ").strip(), float(at))
    return record


def test_a_sound_completion() -> None:
    record = played(BEGIN, *THINKING, *ANSWERING, FINISH, USAGE, DONE)
    assert (record.outcome, record.failure) == ("completed", None)
    assert record.response_id == "chatcmpl-1"
    assert record.first_token_s == 1.0
    assert record.reasoning_end_s == 3.0  # the last thought: the marker after it shows nothing
    assert [delta.received_s for delta in record.answer] == [4.0, 5.0, 6.0]
    assert record.answer_text == "It is four."
    assert record.ended_s == 9.0
    assert record.final is not None
    assert record.final.text("reasoning") == "Two and two."
    assert record.final.usage is not None
    assert record.final.usage.output_tokens_details.reasoning_tokens == 4


def test_without_a_count_of_thoughts_their_deltas_are_counted() -> None:
    record = played(BEGIN, *THINKING, *ANSWERING, FINISH, usage(), DONE)
    assert record.final is not None
    assert record.final.usage is not None
    assert record.final.usage.output_tokens_details.reasoning_tokens == 3


def test_one_name_of_a_thought_is_enough_and_two_must_agree() -> None:
    old = played(BEGIN, chunk({"reasoning_content": "Hm."}), *ANSWERING, FINISH, DONE)
    assert (old.outcome, old.reasoning_end_s) == ("completed", 1.0)
    both = chunk({"reasoning": "Hm.", "reasoning_content": "Ha."})
    assert played(BEGIN, both, *ANSWERING, FINISH, DONE).failure == (
        "delta.reasoning and delta.reasoning_content differ"
    )


def piece(index: int, text: str = "", **first: str) -> bytes:
    """A piece of a call; the first one has an id and a name."""
    function = {"arguments": text} | ({"name": first["name"]} if first else {})
    call = {"index": index, "function": function} | ({"id": first["id"]} if first else {})
    return chunk({"tool_calls": [call]})


def test_calls_are_joined_from_their_pieces() -> None:
    begun = [piece(number, id=f"call_{number}", name=name) for number, name in enumerate("ab")]
    record = played(
        BEGIN, THINKING[0], begun[0], piece(0, '{"x"'), piece(0, ": 1}"), begun[1], piece(1, "{}"),
        chunk({}, "tool_calls"), DONE,
    )  # fmt: skip
    assert (record.outcome, record.failure) == ("completed", None)
    assert record.reasoning_end_s == 1.0
    calls = [(call.call_id, call.name, call.arguments, call.ended_s) for call in record.calls]
    # A call ends with its last piece.
    assert calls == [("call_0", "a", '{"x": 1}', 4.0), ("call_1", "b", "{}", 6.0)]


def test_text_before_a_call_is_kept() -> None:
    frames = (BEGIN, *ANSWERING, piece(0, "{}", id="c", name="a"), chunk({}, "tool_calls"), DONE)
    record = played(*frames)
    assert (record.failure, record.answer_text, len(record.calls)) == (None, "It is four.", 1)


def test_a_completion_cut_by_its_length_is_incomplete() -> None:
    record = played(BEGIN, *ANSWERING, chunk({}, "length"), DONE)
    assert (record.outcome, record.incomplete_reason) == ("incomplete", "max_output_tokens")
    odd = played(BEGIN, *ANSWERING, chunk({}, "content_filter"), DONE)
    assert odd.outcome == "failed"
    assert odd.failure is not None
    assert "finish_reason content_filter" in odd.failure


@pytest.mark.parametrize(
    ("frames", "failure"),
    [
        ([BEGIN, *ANSWERING, DONE], "[DONE] came before a finish_reason"),
        ([BEGIN, FINISH, FINISH, DONE], "the choice was finished twice"),
        (
            [BEGIN, FINISH, DONE, DONE],
            "response.completed came after the terminal event response.completed",
        ),
        (
            [BEGIN, FINISH, DONE, ANSWERING[0]],
            "response.output_text.delta came after the terminal event response.completed",
        ),
        (
            [BEGIN, data({"error": {"code": "gone", "message": "sorry"}}), DONE],
            "error in the stream: gone: sorry",
        ),
    ],
)
def test_broken_promises(frames: list[bytes], failure: str) -> None:
    record = played(*frames)
    assert (record.outcome, record.failure) == ("failed", failure)


def test_forced_lengths_are_checked() -> None:
    frames = (BEGIN, *THINKING, *ANSWERING, FINISH, USAGE, DONE)
    assert (
        played(*frames, forced=ForcedLengths(reasoning_tokens=4, answer_tokens=3)).failure is None
    )
    assert played(*frames, forced=ForcedLengths(reasoning_tokens=3, answer_tokens=4)).failure == (
        "lengths 4 + 3 tokens where 3 + 4 were forced"
    )


def test_what_is_no_chunk_is_refused() -> None:
    for frame in (b"hello", json.dumps({"choices": 5}).encode()):
        with pytest.raises(msgspec.DecodeError):
            played(frame)
