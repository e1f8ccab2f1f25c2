"""The log of one response: its events in order, kept for clients that come late or come back.

Writing never waits for a reader. Each event goes at once to the readers that are attached
(`LogReader`). A reader that could not take an event asks for it later with `EventLog.after`.

The log keeps few objects, however long the response is, so that it costs the garbage collector
nothing. The deltas of one output item lie in arrays (`DeltaRun`) and are encoded when they are
sent, every time to the same bytes. The log is bounded in bytes: the oldest events go first.
A reader that asks for one of them gets `LogTruncated` instead of a stream with a hole.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
import structlog

log = structlog.get_logger()

# Deltas of one `DeltaRun`: what the log drops at once when it is full.
_RUN_DELTAS = 512
_RUN_ROWS = 4 * _RUN_DELTAS
_NO_SLACK = -(2**31)  # in place of milliseconds
_ROW_BYTES = 16  # of one delta, without its text


def json_inside(text: str) -> bytes:
    """Encode a string as JSON, without the quotes. Results may be joined."""
    return orjson.dumps(text)[1:-1]


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


class DeltaForm:
    """The JSON of the deltas of one output item, and where their texts are.

    :param type_: of the events.
    :param text: of the item so far, as the inside of a JSON string. It grows by each delta.
    :param paced: whether the deltas have ``buffered_tokens`` and ``slack_s``.
    """

    __slots__ = ("_end", "_start", "paced", "text", "type", "usual")

    def __init__(
        self, type_: str, item_id: str, output_index: int, text: bytearray, *, paced: bool
    ) -> None:
        self.type = type_
        self.text = text
        self.paced = paced
        self._start = (
            b'{"type":%b,"sequence_number":%%d,"item_id":%b,"output_index":%d,"content_index":0,'
            b'"delta":"%%b"' % (orjson.dumps(type_), orjson.dumps(item_id), output_index)
        )
        self._end = b',"logprobs":[],"buffered_tokens":%d,"slack_s":' if paced else b""
        # The format of most deltas, which are of one token; the slack is in seconds.
        self.usual = self._start + self._end + (b"%a}" if paced else b"}")

    def encode(
        self, sequence: int, text: bytes, tokens: int, buffered: int, slack_ms: int
    ) -> bytes:
        """One delta. ``text`` is the inside of a JSON string."""
        end = b"}" if tokens == 1 else b',"tokens":%d}' % tokens
        if not self.paced:
            return (self._start + b"%b") % (sequence, text, end)
        slack = b"null" if slack_ms == _NO_SLACK else b"%a" % (slack_ms / 1000)
        return (self._start + self._end + b"%b%b") % (sequence, text, buffered, slack, end)


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


class DeltaRun:
    """Consecutive deltas of one output item, in compact form."""

    __slots__ = ("_start", "form", "rows", "sequence")

    def __init__(self, sequence: int, form: DeltaForm, start: int) -> None:
        self.sequence = sequence  # of the first
        self.form = form
        self._start = start  # of its text
        # For each delta: where its text ends, its tokens, buffered tokens, and slack in ms.
        self.rows = array("i")

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, without the text, which belongs to the item."""
        return _RUN_BYTES + 4 * len(self.rows)

    def entries(self, start: int) -> Iterator[LogEntry]:
        """The deltas from the sequence number ``start`` on, encoded."""
        rows, form = self.rows, self.form
        first = max(0, start - self.sequence)
        begin = rows[4 * first - 4] if first else self._start
        for index in range(first, len(rows) // 4):
            end, tokens, buffered, slack_ms = rows[4 * index : 4 * index + 4]
            sequence = self.sequence + index
            text = bytes(form.text[begin:end])
            yield LogEntry(
                sequence, form.type, form.encode(sequence, text, tokens, buffered, slack_ms)
            )
            begin = end


_WHOLE_BYTES = sys.getsizeof(_Whole(0, "", b"")) + sys.getsizeof(b"") + 16
_RUN_BYTES = sum(map(sys.getsizeof, (DeltaRun.__new__(DeltaRun), array("i")))) + 16


class EventLog:
    """Append-only, with sequence numbers from 0.

    :param capacity_bytes: the log keeps at most about this much. With 0 it only counts events, for
        a response whose events no client can ask for.
    """

    __slots__ = (
        "_capacity",
        "_closed",
        "_next",
        "_parts",
        "_readers",
        "_run",
        "_waiters",
        "size_bytes",
    )

    def __init__(self, capacity_bytes: int) -> None:
        self.size_bytes = 0  # memory of the events that are kept
        self._capacity = capacity_bytes
        self._parts: list[_Whole | DeltaRun] = []
        self._run: DeltaRun | None = None  # the newest part, while deltas of its item come
        self._next = 0
        self._closed = False
        self._readers: tuple[LogReader, ...] = ()  # replaced, never changed
        self._waiters: tuple[asyncio.Future[None], ...] = ()  # for the end

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
            self._run = None
            self._keep(_Whole(sequence, type_, data))
        self._next += 1
        self._closed = terminal
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

    def add_delta(
        self,
        form: DeltaForm,
        text: bytes,
        tokens: int,
        buffered: int = 0,
        slack_s: float | None = None,
    ) -> None:
        """Number and keep one delta, and hand it to the readers.

        :param form: of the output item; its text must have grown by this delta already.
        :param text: the inside of a JSON string.
        :raises RuntimeError: after the terminal event.
        """
        if self._closed:
            raise RuntimeError(f"{form.type} after the terminal event")
        sequence = self._next
        self._next = sequence + 1
        slack_ms = _NO_SLACK if slack_s is None else round(slack_s * 1000)
        if self._capacity:
            run, end = self._run, len(form.text)
            if run is None or run.form is not form or len(run.rows) >= _RUN_ROWS:
                run = self._run = DeltaRun(sequence, form, end - len(text))
                self._keep(run)
            run.rows.extend((end, tokens, buffered, slack_ms))
            self.size_bytes += _ROW_BYTES
            if self.size_bytes > self._capacity:
                self._make_room()
        data = b""
        for reader in self._readers:
            try:
                if not reader.wants_events:
                    reader.text_grew()
                    continue
                if data:
                    pass  # another reader has it, too
                elif tokens == 1 and form.paced and slack_s is not None:
                    data = form.usual % (sequence, text, buffered, slack_ms / 1000)
                elif tokens == 1 and not form.paced:
                    data = form.usual % (sequence, text)
                else:
                    data = form.encode(sequence, text, tokens, buffered, slack_ms)
                reader.take(sequence, form.type, data)
            except Exception as error:
                log.exception("reader_failed")
                self._failed(reader, error)

    def attach(self, reader: LogReader) -> None:
        """Hand each event from now on to a reader."""
        self._readers = (*self._readers, reader)

    def detach(self, reader: LogReader) -> None:
        """Undo `attach`."""
        self._readers = tuple(one for one in self._readers if one is not reader)

    def expire(self) -> None:
        """Drop the events so far. A client that asks for one gets `LogTruncated`."""
        self._parts.clear()
        self._run = None
        self.size_bytes = 0

    def after(self, sequence: int) -> Iterator[LogEntry]:
        """The entries with a greater number than ``sequence``, as of now.

        :raises LogTruncated: some of them are no longer kept.
        """
        oldest = self._parts[0].sequence if self._parts else self._next
        if sequence + 1 < oldest:
            raise LogTruncated(sequence, oldest)
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

    def _keep(self, part: _Whole | DeltaRun) -> None:
        self._parts.append(part)
        self.size_bytes += part.size_bytes
        self._make_room()

    def _make_room(self) -> None:
        """Drop the oldest events, but never the newest part."""
        while self.size_bytes > self._capacity and len(self._parts) > 1:
            self.size_bytes -= self._parts.pop(0).size_bytes

    def _failed(self, reader: LogReader, error: Exception) -> None:
        """A reader with a bug gets nothing more, and harms no other."""
        self.detach(reader)
        reader.fail(error)
