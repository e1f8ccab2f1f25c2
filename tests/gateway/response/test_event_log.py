"""The event log: order, late readers, the bound in bytes, compact deltas."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.response import event_log
from gateway.response.event_log import EventLog, LogTruncated
from gateway.response.output_item import OutputItem
from gateway.schemas import events
from tests.gateway.support.override import override
from tests.gateway.support.readers import Reader


def answer() -> OutputItem:
    item = OutputItem("answer", "msg_1")
    item.announce(1)
    return item


def thoughts() -> OutputItem:
    item = OutputItem("reasoning", "rs_1")
    item.announce(0)
    return item


def add(log: EventLog, item: OutputItem, text: str, tokens: int = 1, *fields: Any) -> None:
    """Add a delta, as a transcript does."""
    assert item.add_step(text, tokens)
    log.add_delta(item, *fields)


def filled(count: int, capacity: int = 100_000) -> EventLog:
    log = EventLog(capacity)
    for index in range(count):
        log.append("delta", {"delta": f"{index} "})
    return log


def delta_event(item_id: str, index: int, delta: str, tokens: int, **extra: Any) -> dict[str, Any]:
    """Fields of a text delta of ``tokens`` tokens."""
    fields = {
        "item_id": item_id,
        "output_index": index,
        "content_index": 0,
        "delta": delta,
        **extra,
    }
    if tokens != 1:
        fields["tokens"] = tokens
    return fields


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


@given(thinking=deltas, answering=deltas, after=st.integers(-1, 40))
def test_deltas_are_the_documents_of_the_protocol_and_without_the_moment_when_sent_again(
    thinking: Any, answering: Any, after: int
) -> None:
    log, reader = EventLog(1_000_000), Reader()
    log.attach(reader)
    first, second = thoughts(), answer()
    live, again = [], []
    for text, tokens, _, _ in thinking:
        add(log, first, text, tokens)
        live.append(delta_event("rs_1", 0, text, tokens))
        again.append(live[-1])
    log.append("between", {})
    live.append({})
    again.append({})
    for text, tokens, buffered, slack_s in answering:
        add(log, second, text, tokens, buffered, slack_s)
        slack = None if slack_s is None else round(slack_s * 1000) / 1000
        moment = {"buffered_tokens": buffered, "slack_s": slack}
        live.append(delta_event("msg_1", 1, text, tokens, logprobs=[], **moment))
        again.append(delta_event("msg_1", 1, text, tokens, logprobs=[]))
    kinds = [events.REASONING_DELTA] * len(thinking) + ["between"]
    kinds += [events.ANSWER_DELTA] * len(answering)

    def encoded(documents: list[Any]) -> list[bytes]:
        return [
            msgspec.json.encode({"type": kind, "sequence_number": number, **fields})
            for number, (kind, fields) in enumerate(zip(kinds, documents, strict=True))
        ]

    assert reader.data == encoded(live)
    after = min(after, log.next_sequence - 1)
    entries = list(log.after(after))
    assert [entry.data for entry in entries] == encoded(again)[after + 1 :]
    assert [entry.type for entry in entries] == kinds[after + 1 :]
    assert [entry.sequence for entry in entries] == list(range(after + 1, len(kinds)))


def test_what_the_bound_dropped_is_an_explicit_error() -> None:
    longest = filled(40)._parts[-1].size_bytes
    log = filled(40, capacity=3 * longest)
    kept = [entry.sequence for entry in log.after(36)]
    assert kept == [37, 38, 39]
    with pytest.raises(LogTruncated) as caught:
        log.after(35)
    assert (caught.value.starting_after, caught.value.oldest) == (35, 37)


def test_old_deltas_are_dropped_some_at_a_time_and_their_text_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_log, "_DROPPED_DELTAS", 8)
    log, item = EventLog(500), answer()
    log.append("before", {})
    most = 0
    for number in range(400):
        add(log, item, f"{number} ", 1 + number % 3)
        log.append("x", {}) if number == 200 else None
        most = max(most, log.size_bytes)
    assert most <= 500
    assert log.size_bytes == sum(part.size_bytes for part in log._parts)
    oldest = log._parts[0].sequence
    assert 202 < oldest < 400
    found = documents(log, oldest - 1)
    assert [event["sequence_number"] for event in found] == list(range(oldest, 402))
    assert [event["delta"] for event in found] == [f"{n} " for n in range(oldest - 2, 400)]
    assert [event.get("tokens", 1) for event in found] == [
        1 + n % 3 for n in range(oldest - 2, 400)
    ]
    with pytest.raises(LogTruncated):
        log.after(oldest - 2)
    assert item.decoded() == "".join(f"{n} " for n in range(400))


def test_a_token_takes_few_bytes_and_no_object() -> None:
    log, item = EventLog(10_000_000), answer()
    add(log, item, "word ")
    gc.collect()
    objects, size = len(gc.get_objects()), log.size_bytes + len(item.text)
    for _ in range(5000):
        add(log, item, "word ")
    gc.collect()
    assert len(gc.get_objects()) - objects < 20
    assert (log.size_bytes + len(item.text) - size) / 5000 < 10


def test_nothing_follows_the_terminal_event() -> None:
    log = filled(1)
    log.append("end", {}, terminal=True)
    with pytest.raises(RuntimeError):
        log.append("delta", {})
    with pytest.raises(RuntimeError):
        add(log, answer(), "x")


def test_readers_get_each_event_and_the_end_while_they_are_attached() -> None:
    log, early, late, texts = filled(2), Reader(), Reader(), Reader(wants_events=False)
    log.attach(early)
    log.attach(texts)
    log.append("delta", {})
    log.attach(late)
    add(log, answer(), "x")
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

    override(bad, take=broken)
    log.attach(bad)
    log.attach(good)
    log.append("a", {})
    add(log, answer(), "x")
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
    add(log, answer(), "x")
    ending = asyncio.create_task(log.ended())
    await asyncio.sleep(0)
    assert log.followed
    add(log, answer(), "y")
    await asyncio.sleep(0)
    assert not ending.done()
    log.append("end", {}, terminal=True)
    await asyncio.wait_for(ending, 10)
    assert (log.followed, log.size_bytes, log.next_sequence) == (False, 0, 4)
    await asyncio.wait_for(log.ended(), 10)


def test_a_kept_event_takes_no_more_memory_than_is_counted() -> None:
    log = EventLog(10_000_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(100):
            log.append("response.created", {"response": {"text": "x" * 900}})
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1.2 * log.size_bytes
