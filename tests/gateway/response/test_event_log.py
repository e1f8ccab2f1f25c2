"""The event log: order, late readers, the ring's edge."""

import asyncio

import msgspec
import pytest

from gateway.response.event_log import EventLog, LogTruncated


def filled(count: int, capacity: int = 100) -> EventLog:
    log = EventLog(capacity)
    for index in range(count):
        log.append("delta", {"delta": f"{index} "})
    return log


def test_events_are_numbered_from_zero_without_gaps() -> None:
    log = filled(3)
    documents = [msgspec.json.decode(entry.data) for entry in log.after(-1)]
    assert [document["sequence_number"] for document in documents] == [0, 1, 2]
    assert documents[0] == {"type": "delta", "sequence_number": 0, "delta": "0 "}


@pytest.mark.parametrize("after", range(-1, 5))
def test_a_late_reader_gets_exactly_what_follows(after: int) -> None:
    assert [entry.sequence for entry in filled(5).after(after)] == list(range(after + 1, 5))


def test_what_left_the_ring_is_an_explicit_error() -> None:
    log = filled(10, capacity=4)
    assert [entry.sequence for entry in log.after(5)] == [6, 7, 8, 9]
    with pytest.raises(LogTruncated) as caught:
        log.after(4)
    assert (caught.value.starting_after, caught.value.oldest) == (4, 6)


def test_nothing_follows_the_terminal_event() -> None:
    log = filled(1)
    log.append("end", {}, terminal=True)
    with pytest.raises(RuntimeError):
        log.append("delta", {})


async def test_readers_follow_to_the_end_each_at_its_own_place() -> None:
    log = filled(2)

    async def read(after: int) -> list[int]:
        with log.cursor(after) as cursor:
            return [entry.sequence async for entries in cursor for entry in entries]

    readers = [asyncio.create_task(read(after)) for after in (-1, 0, 1)]
    await asyncio.sleep(0)
    log.append("delta", {})
    await asyncio.sleep(0)
    log.append("end", {}, terminal=True)
    assert await asyncio.gather(*readers) == [[0, 1, 2, 3], [1, 2, 3], [2, 3]]
    assert await read(3) == []
    assert not log._cursors, "a reader that is gone is still woken"


async def test_a_reader_that_fell_behind_the_ring_is_told() -> None:
    log = filled(1, capacity=2)
    with log.cursor() as cursor:
        batches = aiter(cursor)
        await anext(batches)
        for _ in range(4):
            log.append("delta", {})
        with pytest.raises(LogTruncated):
            await anext(batches)


def test_memory_is_counted_as_events_come_and_go() -> None:
    log = EventLog(4)
    sizes = []
    for index in range(10):
        log.append("delta", {"delta": "x" * index})
        sizes.append(log.size_bytes)
    assert sizes[:4] == sorted(sizes[:4])
    newest = [len(entry.data) + len(entry.text) for entry in log.after(5)]
    assert 4 * 150 < log.size_bytes - sum(newest) < 4 * 300  # the objects themselves
    log.expire()
    assert log.size_bytes == 0
    with pytest.raises(LogTruncated):
        log.after(8)
    assert log.after(9) == []


async def test_a_log_that_keeps_nothing_tells_its_end() -> None:
    log = EventLog(0)
    log.append("delta", {"delta": "x"})
    ending = asyncio.create_task(log.ended())
    await asyncio.sleep(0)
    assert log.followed
    log.append("delta", {"delta": "y"})
    await asyncio.sleep(0)
    assert not ending.done()
    log.append("end", {}, terminal=True)
    await asyncio.wait_for(ending, 10)
    assert (log.followed, log.size_bytes, log.next_sequence) == (False, 0, 3)
    await asyncio.wait_for(log.ended(), 10)
