"""The event log: order, late readers, the bound in bytes, compact deltas."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.response import event_log
from gateway.response.event_log import DeltaForm, EventLog, LogTruncated, json_inside
from gateway.schemas import events
from tests.gateway.support.readers import Reader


def answer_form() -> DeltaForm:
    return DeltaForm(events.ANSWER_DELTA, "msg_1", 1, bytearray(), paced=True)


def thought_form() -> DeltaForm:
    return DeltaForm(events.REASONING_DELTA, "rs_1", 0, bytearray(), paced=False)


def add(log: EventLog, form: DeltaForm, text: bytes, *fields: Any) -> None:
    """Add a delta, as a transcript does."""
    form.text += text
    log.add_delta(form, text, *fields)


def filled(count: int, capacity: int = 100_000) -> EventLog:
    log = EventLog(capacity)
    for index in range(count):
        log.append("delta", {"delta": f"{index} "})
    return log


def documents(log: EventLog, after: int = -1) -> list[dict[str, Any]]:
    return [msgspec.json.decode(entry.data) for entry in log.after(after)]


def test_events_are_numbered_from_zero_without_gaps() -> None:
    found = documents(filled(3))
    assert [document["sequence_number"] for document in found] == [0, 1, 2]
    assert found[0] == {"type": "delta", "sequence_number": 0, "delta": "0 "}


@pytest.mark.parametrize("after", range(-1, 5))
def test_a_late_reader_gets_exactly_what_follows(after: int) -> None:
    assert [entry.sequence for entry in filled(5).after(after)] == list(range(after + 1, 5))


deltas = st.lists(
    st.tuples(
        st.text(min_size=1, max_size=5),
        st.integers(1, 300),
        st.integers(0, 5000),
        st.none() | st.floats(-1000, 1000),
    ),
    max_size=60,
)


@given(thoughts=deltas, answers=deltas, after=st.integers(-1, 40))
def test_deltas_are_encoded_as_documents_of_the_protocol_every_time_to_the_same_bytes(
    thoughts: Any, answers: Any, after: int
) -> None:
    log, reader = EventLog(1_000_000), Reader()
    log.attach(reader)
    thought, answer = thought_form(), answer_form()
    expected = []
    for text, tokens, _, _ in thoughts:
        add(log, thought, json_inside(text), tokens)
        expected.append(events.delta_event("rs_1", 0, text, tokens))
    log.append("between", {})
    expected.append({})
    for text, tokens, buffered, slack_s in answers:
        add(log, answer, json_inside(text), tokens, buffered, slack_s)
        slack = None if slack_s is None else round(slack_s * 1000) / 1000
        expected.append(
            events.delta_event(
                "msg_1", 1, text, tokens, logprobs=[], buffered_tokens=buffered, slack_s=slack
            )
        )
    kinds = [events.REASONING_DELTA] * len(thoughts) + ["between"]
    kinds += [events.ANSWER_DELTA] * len(answers)
    plain = msgspec.json.Encoder().encode
    assert reader.data == [
        plain({"type": kind, "sequence_number": number, **fields})
        for number, (kind, fields) in enumerate(zip(kinds, expected, strict=True))
    ]
    after = min(after, log.next_sequence - 1)
    again = list(log.after(after))
    assert [entry.data for entry in again] == reader.data[after + 1 :]
    assert [entry.type for entry in again] == kinds[after + 1 :]


def test_what_the_bound_dropped_is_an_explicit_error() -> None:
    longest = filled(40)._parts[-1].size_bytes
    log = filled(40, capacity=3 * longest)
    kept = [entry.sequence for entry in log.after(36)]
    assert kept == [37, 38, 39]
    with pytest.raises(LogTruncated) as caught:
        log.after(35)
    assert (caught.value.starting_after, caught.value.oldest) == (35, 37)


def test_deltas_are_dropped_a_run_at_a_time_and_the_newest_run_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_log, "_RUN_ROWS", 4 * 8)
    log, form = EventLog(1500), answer_form()
    most = 0
    for _ in range(200):
        add(log, form, b"word ", 1)
        most = max(most, log.size_bytes)
    assert most <= 1500
    assert log.size_bytes == sum(part.size_bytes for part in log._parts)
    oldest = log._parts[0].sequence
    assert oldest % 8 == 0
    assert [entry.sequence for entry in log.after(oldest - 1)] == list(range(oldest, 200))
    with pytest.raises(LogTruncated):
        log.after(oldest - 2)
    small = EventLog(1)
    for _ in range(3):
        small.add_delta(answer_form(), b"", 1)
    assert len(list(small.after(-1))) == 3


def test_a_token_takes_few_bytes_and_no_object() -> None:
    log, form = EventLog(10_000_000), answer_form()
    for _ in range(10):
        add(log, form, b"word ", 1)
    gc.collect()
    objects, size = len(gc.get_objects()), log.size_bytes
    for _ in range(5000):
        add(log, form, b"word ", 1)
    gc.collect()
    runs = 5000 / event_log._RUN_DELTAS
    assert len(gc.get_objects()) - objects < 5 * runs
    assert (log.size_bytes - size + len(form.text)) / 5000 < 30


def test_nothing_follows_the_terminal_event() -> None:
    log = filled(1)
    log.append("end", {}, terminal=True)
    with pytest.raises(RuntimeError):
        log.append("delta", {})
    with pytest.raises(RuntimeError):
        add(log, answer_form(), b"x", 1)


def test_readers_get_each_event_and_the_end_while_they_are_attached() -> None:
    log, early, late, texts = filled(2), Reader(), Reader(), Reader(wants_events=False)
    log.attach(early)
    log.attach(texts)
    log.append("delta", {})
    log.attach(late)
    add(log, answer_form(), b"x", 1)
    log.detach(early)
    log.append("end", {}, terminal=True)
    assert (early.taken, late.taken, texts.taken) == ([2, 3], [3, 4], [])
    assert (early.ended, late.ended, texts.ended) == (False, True, True)
    assert (early.grew, late.grew, texts.grew) == (0, 0, 1)
    log.detach(late)
    log.detach(texts)
    assert not log.followed


def test_a_reader_with_a_bug_gets_nothing_more_and_harms_no_other() -> None:
    log, bad, good = EventLog(1000), Reader(), Reader()

    def broken(*_: object) -> None:
        raise ValueError("a bug")

    bad.take = broken  # type: ignore[method-assign]
    log.attach(bad)
    log.attach(good)
    log.append("a", {})
    add(log, answer_form(), b"x", 1)
    assert good.taken == [0, 1]
    assert log._readers == (good,)
    assert isinstance(bad.error, ValueError)


def test_memory_is_counted_as_events_come_and_go() -> None:
    log = EventLog(4000)
    sizes = []
    for index in range(100):
        log.append("delta", {"delta": "x" * index})
        sizes.append(log.size_bytes)
    assert sizes[:10] == sorted(sizes[:10])
    assert max(sizes) <= 4000
    assert log.size_bytes == sum(part.size_bytes for part in log._parts)
    log.expire()
    assert log.size_bytes == 0
    with pytest.raises(LogTruncated):
        log.after(98)
    assert list(log.after(99)) == []


async def test_a_log_that_keeps_nothing_tells_its_end() -> None:
    log = EventLog(0)
    log.append("item", {"delta": "x"})
    add(log, answer_form(), b"x", 1)
    ending = asyncio.create_task(log.ended())
    await asyncio.sleep(0)
    assert log.followed
    add(log, answer_form(), b"y", 1)
    await asyncio.sleep(0)
    assert not ending.done()
    log.append("end", {}, terminal=True)
    await asyncio.wait_for(ending, 10)
    assert (log.followed, log.size_bytes, log.next_sequence) == (False, 0, 4)
    await asyncio.wait_for(log.ended(), 10)
