"""The log of one response: its events in order, kept for clients that come late or come back.

Writing never waits for a reader. Each event goes at once to the readers that are attached
(`LogReader`). A reader that could not take an event asks for it later with `EventLog.after`.

The log keeps few objects, however long the response is, so that it costs the garbage collector
nothing: deltas are kept by their items (`gateway.response.output_item`), and encoded when they are
sent. The log is bounded in bytes: the oldest events go first. A reader that asks for one of them
gets `LogTruncated` instead of a stream with a hole.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import orjson
import structlog

from gateway.response.output_item import OutputItem

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event. ``data`` is its JSON object."""

    sequence: int
    type: str
    data: bytes


class LogTruncated(Exception):
    """Some of the events after ``starting_after`` are no longer kept."""

    def __init__(self, starting_after: int, oldest: int) -> None:
        super().__init__(
            f"events up to {oldest - 1} are gone, asked for those after {starting_after}"
        )
        self.starting_after = starting_after
        self.oldest = oldest


class LogReader(Protocol):
    """Is called for each event when it is appended. It must not wait."""

    @property
    def wants_events(self) -> bool:
        """Whether `take` is to be called; else only the texts matter to this reader."""

    def take(self, sequence: int, type_: str, data: bytes) -> None:
        """Take an event; ``data`` is its JSON object."""

    def text_grew(self) -> None:
        """The text of an output item is longer. Called instead of `take`."""

    def log_ended(self) -> None:
        """The event before was the last one."""

    def fail(self, error: Exception) -> None:
        """A call to this reader raised ``error``; it is not called again. Must not raise."""


class _Whole:
    """A kept event that is not a delta."""

    __slots__ = ("data", "sequence", "type")

    def __init__(self, sequence: int, type_: str, data: bytes) -> None:
        self.sequence = sequence
        self.type = type_
        self.data = data

    @property
    def size_bytes(self) -> int:
        return _WHOLE_BYTES + len(self.data)

    def entries(self, start: int) -> Iterator[LogEntry]:
        if start <= self.sequence:
            yield LogEntry(self.sequence, self.type, self.data)


class _Deltas:
    """The kept deltas of one output item."""

    __slots__ = ("_item", "count", "first", "sequence")

    def __init__(self, sequence: int, item: OutputItem) -> None:
        self.sequence = sequence  # of the first that is kept
        self.first = item.shown  # its place among the item's deltas
        self.count = 0  # of the newest part only when somebody asks; see `EventLog._count`
        self._item = item

    @property
    def size_bytes(self) -> int:
        return _DELTAS_BYTES + _DELTA_BYTES * self.count

    def entries(self, start: int) -> Iterator[LogEntry]:
        """The deltas from the sequence number ``start`` on, encoded."""
        skip = max(0, start - self.sequence)
        events = self._item.encoded(self.first + skip, self.sequence + skip)
        for sequence, data in enumerate(islice(events, self.count - skip), self.sequence + skip):
            yield LogEntry(sequence, self._item.kind, data)

    def drop(self, deltas: int) -> None:
        """Keep the oldest deltas no longer."""
        self._item.drop(self.first + deltas - self._item.dropped)
        self.sequence += deltas
        self.first += deltas
        self.count -= deltas


_WHOLE_BYTES = sys.getsizeof(_Whole(0, "", b"")) + sys.getsizeof(b"") + 16
_DELTAS_BYTES = sys.getsizeof(_Deltas.__new__(_Deltas)) + 16
_DELTA_BYTES = 4  # of one delta, without its text, which belongs to the response
_DROPPED_DELTAS = 256  # that are dropped at once
_NEVER = 2**62  # no log has so many events


class _EventLogHot:
    """What is read for each token, next to each other in memory."""

    __slots__ = (
        "_due",
        "_next",
        "_only",
        "_wanted",
    )


class EventLog(_EventLogHot):
    """Append-only, with sequence numbers from 0.

    :param capacity_bytes: the log keeps at most about this much. With 0 it only counts events, for
        a response whose events no client can ask for.
    """

    __slots__ = (
        "_capacity",
        "_closed",
        "_deltas",
        "_parts",
        "_readers",
        "_size_bytes",
        "_waiters",
    )

    def __init__(self, capacity_bytes: int) -> None:
        self._size_bytes = 0  # of the events that are kept, but for the newest deltas
        self._due = 0  # the delta with this number needs `_prepare`
        self._capacity = capacity_bytes
        self._parts: list[_Whole | _Deltas] = []
        self._deltas: _Deltas | None = None  # the newest part, while deltas of its item come
        self._next = 0
        self._closed = False
        self._readers: tuple[LogReader, ...] = ()  # replaced, never changed
        self._wanted = False  # whether any of them wants events
        self._only: LogReader | None = None  # the one that there is, if it wants events
        self._waiters: tuple[asyncio.Future[None], ...] = ()  # for the end

    @property
    def next_sequence(self) -> int:
        """The number that the next event will get."""
        return self._next

    @property
    def size_bytes(self) -> int:
        """Memory of the events that are kept."""
        self._count()
        return self._size_bytes

    @property
    def closed(self) -> bool:
        """True after the terminal event."""
        return self._closed

    @property
    def followed(self) -> bool:
        """Whether any client follows it, or waits for its end, now."""
        return bool(self._readers or self._waiters)

    def append(self, type_: str, fields: dict[str, Any], *, terminal: bool = False) -> None:
        """Number, encode and keep one event, and hand it to the readers.

        :raises RuntimeError: after the terminal event.
        """
        if self._closed:
            raise RuntimeError(f"{type_} after the terminal event")
        sequence = self._next
        data = b""
        if self._capacity:
            data = orjson.dumps({"type": type_, "sequence_number": sequence, **fields})
            data = bytes(memoryview(data))  # what orjson returns takes up to ten times its length
            self._count()
            self._deltas, self._due = None, 0
            self._keep(_Whole(sequence, type_, data))
        self._next += 1
        if terminal:
            self._closed, self._due = True, 0
        for reader in self._readers:
            try:
                if reader.wants_events:
                    reader.take(sequence, type_, data)
                if terminal:
                    reader.log_ended()
            except Exception as error:
                log.exception("reader_failed")
                self._failed(reader, error)
        if terminal:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def add_plain(self, item: OutputItem, buffered_tokens: int, slack_s: float) -> None:
        """Do as `add_delta` for an item that is `plain`."""
        sequence, only = self._next, self._only
        if only is None or sequence >= self._due:
            self.add_delta(item, buffered_tokens, slack_s)
            return
        self._next = sequence + 1
        try:
            only.take(sequence, item.kind, item.next_plain(sequence, buffered_tokens, slack_s))
        except Exception as error:
            log.exception("reader_failed")
            self._failed(only, error)

    def add_step(self, item: OutputItem, text: str, tokens: int) -> None:
        """Add the tokens of a step to an item of which all was shown, and show them, as one delta.

        The item must not be of the answer, whose deltas wait for their time.
        """
        sequence, only = self._next, self._only
        if only is None or sequence >= self._due:
            if item.add_step(text, tokens):
                self.add_delta(item)
            return
        if (data := item.show_step(sequence, text, tokens)) is None:
            return
        self._next = sequence + 1
        try:
            only.take(sequence, item.kind, data)
        except Exception as error:
            log.exception("reader_failed")
            self._failed(only, error)

    def add_delta(
        self, item: OutputItem, buffered_tokens: int = 0, slack_s: float | None = None
    ) -> None:
        """Show the next delta of an item: number and keep it, and hand it to the readers.

        :raises RuntimeError: after the terminal event.
        """
        sequence = self._next
        if sequence >= self._due:
            self._prepare(item)
        self._next = sequence + 1
        if (only := self._only) is not None:  # as nearly always
            data = item.next_live(sequence, buffered_tokens, slack_s)
            try:
                only.take(sequence, item.kind, data)
            except Exception as error:
                log.exception("reader_failed")
                self._failed(only, error)
            return
        if self._wanted:
            data = item.next_live(sequence, buffered_tokens, slack_s)
        else:
            data = b""
            item.show()
        for reader in self._readers:
            try:
                if reader.wants_events:
                    reader.take(sequence, item.kind, data)
                else:
                    reader.text_grew()
            except Exception as error:
                log.exception("reader_failed")
                self._failed(reader, error)

    def attach(self, reader: LogReader) -> None:
        """Hand each event from now on to a reader."""
        self._set_readers((*self._readers, reader))

    def detach(self, reader: LogReader) -> None:
        """Undo `attach`."""
        self._set_readers(tuple(one for one in self._readers if one is not reader))

    def _set_readers(self, readers: tuple[LogReader, ...]) -> None:
        self._readers = readers
        self._wanted = any(one.wants_events for one in readers)
        self._only = readers[0] if self._wanted and len(readers) == 1 else None

    def expire(self) -> None:
        """Drop the events so far. A client that asks for one gets `LogTruncated`."""
        self._parts.clear()
        self._deltas, self._due = None, 0
        self._size_bytes = 0

    def after(self, sequence: int) -> Iterator[LogEntry]:
        """The entries with a greater number than ``sequence``, as of now.

        :raises LogTruncated: some of them are no longer kept.
        """
        oldest = self._parts[0].sequence if self._parts else self._next
        if sequence + 1 < oldest or not self._capacity:
            raise LogTruncated(sequence, oldest)
        self._count()
        place = bisect_right(self._parts, sequence + 1, key=lambda part: part.sequence) - 1
        return self._entries(max(0, place), sequence + 1)

    async def ended(self) -> None:
        """Return once the terminal event was appended, whether or not it is kept."""
        if self._closed:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters = (*self._waiters, waiter)
        try:
            await waiter
        finally:
            self._waiters = tuple(one for one in self._waiters if one is not waiter)

    def _entries(self, place: int, start: int) -> Iterator[LogEntry]:
        for part in self._parts[place:]:
            yield from part.entries(start)

    def _prepare(self, item: OutputItem) -> None:
        """Make ready for deltas of an item: begin a part, or make room; not for each of them.

        :raises RuntimeError: after the terminal event.
        """
        if self._closed:
            raise RuntimeError(f"{item.kind} after the terminal event")
        if not self._capacity:
            self._due = _NEVER
            return
        if self._deltas is None:
            self._deltas = _Deltas(self._next, item)
            self._keep(self._deltas)
        self._count()
        self._make_room(_DELTA_BYTES)
        free = (self._capacity - self._size_bytes) // _DELTA_BYTES
        self._due = self._next + max(1, min(free, _DROPPED_DELTAS))

    def _count(self) -> None:
        """Count the newest deltas."""
        if (deltas := self._deltas) is not None:
            count = self._next - deltas.sequence
            self._size_bytes += _DELTA_BYTES * (count - deltas.count)
            deltas.count = count

    def _keep(self, part: _Whole | _Deltas) -> None:
        self._parts.append(part)
        self._size_bytes += part.size_bytes
        self._make_room()

    def _make_room(self, more_bytes: int = 0) -> None:
        """Drop the oldest events, but never the newest ones.

        :param more_bytes: that are about to be added.
        """
        while self._size_bytes + more_bytes > self._capacity:
            oldest = self._parts[0]
            if isinstance(oldest, _Deltas) and oldest.count > _DROPPED_DELTAS:
                oldest.drop(_DROPPED_DELTAS)
                self._size_bytes -= _DROPPED_DELTAS * _DELTA_BYTES
            elif len(self._parts) > 1:
                self._size_bytes -= self._parts.pop(0).size_bytes
            else:
                break

    def _failed(self, reader: LogReader, error: Exception) -> None:
        """A reader with a bug gets nothing more, and harms no other."""
        self.detach(reader)
        reader.fail(error)
