"""The log of one response: every event in order, kept for readers that come late or come back.

A bounded ring. It encodes each event once, whoever reads it. Readers (`LogReader`) have a cursor
each and never hold the writer up: one that falls behind the ring gets `LogTruncated`, explicitly,
instead of a stream with a hole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event. ``data`` is its JSON object; ``text`` the delta it carries, else empty."""

    sequence: int
    type: str
    data: bytes
    text: str


class LogTruncated(Exception):
    """The events after ``starting_after`` are no longer all there."""

    def __init__(self, starting_after: int, oldest: int) -> None:
        super().__init__(
            f"events up to {oldest - 1} are gone, asked for those after {starting_after}"
        )
        self.starting_after = starting_after
        self.oldest = oldest


class EventLog:
    """Append-only, with sequence numbers from 0 and at most ``capacity`` events kept."""

    def __init__(self, capacity: int) -> None:
        self._entries: deque[LogEntry] = deque(maxlen=capacity)
        self._next = 0
        self._closed = False
        self._readers: set[LogReader] = set()

    @property
    def next_sequence(self) -> int:
        """The number that the next event will get."""
        return self._next

    @property
    def closed(self) -> bool:
        """True after the terminal event."""
        return self._closed

    def append(self, type_: str, fields: dict[str, Any], *, terminal: bool = False) -> None:
        """Number, encode and keep one event; wakes the readers.

        :raises RuntimeError: after the terminal event.
        """
        if self._closed:
            raise RuntimeError(f"{type_} after the terminal event")
        data = _encode({"type": type_, "sequence_number": self._next, **fields})
        text = fields.get("delta", "")
        self._entries.append(LogEntry(self._next, type_, data, text))
        self._next += 1
        self._closed = terminal
        for reader in self._readers:
            reader.wake()

    def after(self, sequence: int) -> list[LogEntry]:
        """All entries with a greater number than ``sequence``. Raises `LogTruncated`."""
        oldest = self._next - len(self._entries)
        skip = sequence + 1 - oldest
        if skip < 0:
            raise LogTruncated(sequence, oldest)
        if skip == 0:
            return list(self._entries)
        # A reader is nearly always at the tail: walk back from there, not over the whole ring.
        count = len(self._entries) - skip
        return [self._entries[-i] for i in range(count, 0, -1)]

    def reader(self, starting_after: int = -1) -> LogReader:
        """A cursor that starts behind ``starting_after``; use it as a context manager."""
        return LogReader(self, starting_after, self._readers)


class LogReader:
    """Follows one log to its terminal event.

    ::

        with log.reader(starting_after) as reader:
            async for entries in reader:
                ...
    """

    def __init__(self, log: EventLog, cursor: int, registry: set[LogReader]) -> None:
        self._log = log
        self._cursor = cursor
        self._registry = registry
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Called by the log when there is more."""
        self._changed.set()

    def __enter__(self) -> LogReader:
        self._registry.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._registry.discard(self)

    async def __aiter__(self) -> AsyncIterator[list[LogEntry]]:
        """Batches of consecutive entries, until the terminal one has been given."""
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
