"""The log of one response: its events in order, kept for clients that come late or come back.

A bounded ring, which encodes each event once. Each client follows it with an `EventCursor` and
never delays the writer. A client that falls behind the ring gets `LogTruncated` instead of a stream
with a hole.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event. ``data`` is its JSON object, ``text`` the delta that it carries, or empty."""

    sequence: int
    type: str
    data: bytes
    text: str


# Memory of one entry without its data and text: the objects themselves and a place in the ring.
_ENTRY_BYTES = sum(map(sys.getsizeof, (LogEntry(0, "", b"", ""), b"", "", 1 << 29))) + 8


def _size_bytes(entry: LogEntry) -> int:
    return _ENTRY_BYTES + len(entry.data) + len(entry.text)


class LogTruncated(Exception):
    """Some of the events after ``starting_after`` are no longer kept."""

    def __init__(self, starting_after: int, oldest: int) -> None:
        super().__init__(
            f"events up to {oldest - 1} are gone, asked for those after {starting_after}"
        )
        self.starting_after = starting_after
        self.oldest = oldest


class EventLog:
    """Append-only, with sequence numbers from 0.

    :param capacity: the log keeps at most this many events. With 0 it only counts them, for a
        response whose events no client can ask for.
    """

    def __init__(self, capacity: int) -> None:
        self.size_bytes = 0  # memory of the events that are kept
        self._entries: deque[LogEntry] = deque()
        self._capacity = capacity
        self._next = 0
        self._closed = False
        self._cursors: set[EventCursor] = set()

    @property
    def next_sequence(self) -> int:
        """The number that the next event will get."""
        return self._next

    @property
    def closed(self) -> bool:
        """True after the terminal event."""
        return self._closed

    @property
    def followed(self) -> bool:
        """Whether any client follows it now."""
        return bool(self._cursors)

    def append(self, type_: str, fields: dict[str, Any], *, terminal: bool = False) -> None:
        """Number, encode and keep one event, and wake all cursors.

        :raises RuntimeError: after the terminal event.
        """
        if self._closed:
            raise RuntimeError(f"{type_} after the terminal event")
        if self._capacity:
            data = _encode({"type": type_, "sequence_number": self._next, **fields})
            self._keep(LogEntry(self._next, type_, data, fields.get("delta", "")))
        self._next += 1
        self._closed = terminal
        for cursor in self._cursors:
            cursor.wake()

    def expire(self) -> None:
        """Drop the events so far. A client that asks for one gets `LogTruncated`."""
        self._entries.clear()
        self.size_bytes = 0

    def after(self, sequence: int) -> list[LogEntry]:
        """All entries with a greater number than ``sequence``. Raises `LogTruncated`."""
        oldest = self._next - len(self._entries)
        skip = sequence + 1 - oldest
        if skip < 0:
            raise LogTruncated(sequence, oldest)
        if skip == 0:
            return list(self._entries)
        # A cursor is nearly always near the tail: walk back from there, not over the whole ring.
        count = len(self._entries) - skip
        return [self._entries[-i] for i in range(count, 0, -1)]

    async def ended(self) -> None:
        """Return once the terminal event was appended, whether or not it is kept."""
        with self.cursor(self._next - 1) as cursor:
            while not self._closed:
                await cursor.changed()

    def cursor(self, starting_after: int = -1) -> EventCursor:
        """A cursor that starts behind ``starting_after``; use it as a context manager."""
        return EventCursor(self, starting_after, self._cursors)

    def _keep(self, entry: LogEntry) -> None:
        if len(self._entries) == self._capacity:
            self.size_bytes -= _size_bytes(self._entries.popleft())
        self._entries.append(entry)
        self.size_bytes += _size_bytes(entry)


class EventCursor:
    """Follows one log to its terminal event.

    ::

        with log.cursor(starting_after) as cursor:
            async for entries in cursor:
                ...
    """

    def __init__(self, log: EventLog, cursor: int, registry: set[EventCursor]) -> None:
        self._log = log
        self._cursor = cursor
        self._registry = registry
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Report a new event; called by the log."""
        self._changed.set()

    async def changed(self) -> None:
        """Return when the log has grown since the last call."""
        await self._changed.wait()
        self._changed.clear()

    def __enter__(self) -> EventCursor:
        self._registry.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._registry.discard(self)

    async def __aiter__(self) -> AsyncIterator[list[LogEntry]]:
        """Batches of consecutive entries, up to the terminal one."""
        while True:
            self._changed.clear()
            entries = self._log.after(self._cursor)
            if entries:
                self._cursor = entries[-1].sequence
                yield entries
            elif self._log.closed:
                return
            else:
                await self._changed.wait()
