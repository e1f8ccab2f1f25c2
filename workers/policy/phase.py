"""Which phase of its output a request is in, decided by token ids.

Used on both sides of the engine: by the scheduler, where tokens are produced, and by the stream
to the gateway, where they are read. Both follow the same `Markers`, so they agree. Pure: knows no
engine, no text and no clock. A model is described by one of three kinds of markers:

    sequences   token ids that open and close thoughts and calls (`Markers`)
    channels    each message has a header that names its channel (`Channels`; Harmony)
    text        ids cannot tell; who reads the text calls `PhaseTracker.turn`

A marker counts when its last token arrives, so that a sequence may be cut anywhere:

    it closes   the marker belongs to what it closes: the turn is after its last token
    it opens    its last token belongs to what it opens: the turn is at its last token

After thoughts and calls the model answers, until another marker opens something. Markers that
mean nothing in the present phase are ordinary text: a second end of thinking in the answer, or the
words ``</think>`` spelled with other tokens. A model that never closes its thoughts never answers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import msgspec

# Most models that reason and call tools write these, each as one token.
THINK_START = "<think>"
THINK_END = "</think>"
CALL_START = "<tool_call>"
CALL_END = "</tool_call>"

# Most tokens of a header that is still open: recipient and channel come to about 20.
_LONGEST_HEADER = 64

Ids: TypeAlias = tuple[int, ...]


class Phase(enum.Enum):
    """The phases of a request, in any order; prefill counts as the phase that follows it."""

    REASONING = "reasoning"
    ANSWERING = "answering"
    CALLING = "calling"  # the model writes a call of a tool, which no person reads


# Looked up for every token, and members of an enum are slow to reach.
_REASONING, _ANSWERING, _CALLING = Phase.REASONING, Phase.ANSWERING, Phase.CALLING

Turn: TypeAlias = tuple[int, Phase]  # the token at this index and those after it are of the phase


class Channels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Messages with headers: ``start role recipient channel NAME message TEXT end`` (Harmony).

    A phase begins with the text of a message: its header, with the token that ends it, belongs to
    the phase before. A header with a recipient begins a call, whatever its channel. A channel of
    no known name changes nothing.
    """

    start: int
    channel: int
    message: int  # ends the header
    reasoning: tuple[Ids, ...]  # names of channels that hold thoughts
    answering: tuple[Ids, ...]
    recipients: tuple[Ids, ...] = ()  # tokens that occur in the header of a call only


class Markers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the output of a model shows its phases. Converts to and from plain JSON with msgspec.

    :raises ValueError: an empty marker, or more than one of the three kinds.
    """

    reasoning_starts: tuple[Ids, ...] = ()
    reasoning_ends: tuple[Ids, ...] = ()
    call_starts: tuple[Ids, ...] = ()
    call_ends: tuple[Ids, ...] = ()
    reopens: bool = False  # whether a start of thinking in the answer opens thoughts again
    implicit: bool = False  # whether a call that opens inside the thoughts ends them
    channels: Channels | None = None
    text_only: bool = False  # ids cannot tell; phases are told by `PhaseTracker.turn`
    # What opens and ends the thoughts of a model that is made to do it, where these are not the
    # first of `reasoning_starts` and of `reasoning_ends`.
    opening: Ids = ()
    closing: Ids = ()

    def __post_init__(self) -> None:
        """Check it, however it was made."""
        if not all(self._sequences()):
            raise ValueError("a marker must have at least one token")
        ids = any(self._sequences())
        if ids + (self.channels is not None) + self.text_only > 1:
            raise ValueError("markers are sequences, or channels, or in the text only")

    @classmethod
    def of_thoughts(cls, start: int | None, end: int) -> Markers:
        """Single tokens around the thoughts of a model; None: no token of its own opens them."""
        return cls(() if start is None else ((start,),), ((end,),))

    @classmethod
    def of_vocabulary(cls, vocabulary: Mapping[str, int]) -> Markers | None:
        """The markers at the top of this module, as far as they are single tokens.

        :return: None if the model neither thinks nor calls.
        """
        start, end, call, called = (
            ((vocabulary[name],),) if name in vocabulary else ()
            for name in (THINK_START, THINK_END, CALL_START, CALL_END)
        )
        if not end:
            start = ()
        if not call or not called:
            call = called = ()
        if not end and not call:
            return None
        return cls(start, end, call, called, implicit=bool(call))

    @property
    def thinks(self) -> bool:
        """Whether the model thinks before it answers."""
        return bool(self.reasoning_ends) or self.channels is not None or self.text_only

    @property
    def opening_ids(self) -> Ids:
        """Tokens that open the thoughts; none: no tokens of their own do."""
        return self.opening or next(iter(self.reasoning_starts), ())

    @property
    def closing_ids(self) -> Ids:
        """Tokens that end the thoughts; none: they cannot be ended from outside."""
        return self.closing or next(iter(self.reasoning_ends), ())

    @property
    def longest(self) -> int:
        """Tokens of the longest marker, or of a header; 0 if ids cannot tell."""
        if self.channels is not None:
            return _LONGEST_HEADER
        return max(map(len, self._sequences()), default=0)

    @property
    def without_calls(self) -> Markers | None:
        """For requests that call nothing: what would open a call is ordinary text.

        None if nothing is left.
        """
        if not self.call_starts:
            return self
        if not self.reasoning_ends:
            return None
        return msgspec.structs.replace(self, call_starts=(), call_ends=(), implicit=False)

    @property
    def watched(self) -> frozenset[int]:
        """Tokens that occur in markers: without one of them, no phase ends."""
        return _tables(self).watched

    def phase_after(self, token_ids: Sequence[int]) -> Phase | None:
        """The phase that the last marker of thinking leads into, as at the end of a prompt.

        :return: None if there is no marker.
        """
        ids = tuple(token_ids)
        for stop in range(len(ids), 0, -1):
            if _ends_with(ids[:stop], self.reasoning_ends):
                return Phase.ANSWERING
            if _ends_with(ids[:stop], self.reasoning_starts):
                return Phase.REASONING
        return None

    def _sequences(self) -> tuple[Ids, ...]:
        return (
            *self.reasoning_starts,
            *self.reasoning_ends,
            *self.call_starts,
            *self.call_ends,
        )


@dataclass(frozen=True, slots=True)
class _Marker:
    """A sequence that means something in one phase."""

    ids: list[int]
    to: Phase
    opens: bool


@dataclass(frozen=True, slots=True)
class _Table:
    """What one phase watches for."""

    watched: frozenset[int]
    by_last: Mapping[int, tuple[_Marker, ...]]  # the longest first

    @classmethod
    def of(cls, markers: Iterable[_Marker]) -> _Table:
        by_last: dict[int, list[_Marker]] = {}
        for marker in sorted(markers, key=lambda m: -len(m.ids)):
            by_last.setdefault(marker.ids[-1], []).append(marker)
        watched = frozenset(i for found in by_last.values() for m in found for i in m.ids)
        return cls(watched, {last: tuple(found) for last, found in by_last.items()})


@dataclass(frozen=True, slots=True)
class _Tables:
    phases: Mapping[Phase, _Table]
    watched: frozenset[int]  # in any phase
    longest: int


_NOTHING = _Table(frozenset(), {})
_UNMARKED = _Tables(dict.fromkeys(Phase, _NOTHING), frozenset(), 0)


@lru_cache(maxsize=64)  # one for each model of a process
def _tables(markers: Markers) -> _Tables:
    channels = markers.channels
    if channels is not None:
        watched = frozenset((channels.start, channels.channel, channels.message))
        table = _Table(watched, {})
        return _Tables(dict.fromkeys(Phase, table), watched, _LONGEST_HEADER)
    ends = [_Marker([*ids], Phase.ANSWERING, False) for ids in markers.reasoning_ends]
    starts = [_Marker([*ids], Phase.REASONING, True) for ids in markers.reasoning_starts]
    calls = [_Marker([*ids], Phase.CALLING, True) for ids in markers.call_starts]
    called = [_Marker([*ids], Phase.ANSWERING, False) for ids in markers.call_ends]
    phases = {
        Phase.REASONING: _Table.of([*ends, *(calls if markers.implicit else ())]),
        Phase.ANSWERING: _Table.of([*calls, *(starts if markers.reopens else ())]),
        Phase.CALLING: _Table.of(called),
    }
    watched = frozenset().union(*(table.watched for table in phases.values()))
    return _Tables(phases, watched, markers.longest)


def _ends_with(ids: Ids, markers: Iterable[Ids]) -> bool:
    return any(ids[-len(marker) :] == marker for marker in markers)


class PhaseTracker:
    """Follows one request through its output tokens, and counts those of each phase."""

    __slots__ = (
        "_carry",
        "_channels",
        "_tables",
        "_watched",
        "answering_tokens",
        "calling_tokens",
        "phase",
        "reasoning_tokens",
    )

    def __init__(self, markers: Markers | None, start: Phase, before: Sequence[int] = ()) -> None:
        """:param markers: None: the phase never changes.

        :param start: the phase of the first token.
        :param before: output before that token. It counts nothing, but a marker may begin in it.
        """
        self.reasoning_tokens = 0
        self.answering_tokens = 0
        self.calling_tokens = 0
        self._tables = _UNMARKED if markers is None else _tables(markers)
        self._channels = None if markers is None else markers.channels
        # The last tokens, if they may be part of a marker; the tokens of an open header. None
        # where nothing has begun. A prompt may end inside the first header.
        self._carry: list[int] | None = None if self._channels is None else []
        self._to(start)
        if before and self._tables.longest > 1:
            self._recall(before[-self._tables.longest :])

    @property
    def alert(self) -> bool:
        """Whether a marker, or a header, may have begun, so that every token must be fed."""
        return self._carry is not None

    def count(self, tokens: int) -> None:
        """Account for the next output tokens, which hold no marker; not while `alert`."""
        if self.phase is _ANSWERING:
            self.answering_tokens += tokens
        elif self.phase is _REASONING:
            self.reasoning_tokens += tokens
        else:
            self.calling_tokens += tokens

    def turn(self, phase: Phase) -> None:
        """Begin a phase with the next token, as told by who reads the text."""
        self._carry = None
        self._to(phase)

    def feed(self, token_ids: Sequence[int]) -> tuple[Turn, ...]:
        """Account for the next output tokens.

        :return: where the phase changes, in order. A turn after the last of these tokens is at
            their number. Two turns at one place: the phase between them has no token.
        """
        if self._carry is None and self._watched.isdisjoint(token_ids):
            self.count(len(token_ids))
            return ()
        step = self._step if self._channels is None else self._step_channels
        turns: list[Turn] = []
        counted = 0
        for index, token_id in enumerate(token_ids):
            found = step(token_id)
            if found is None:
                continue
            to, opens = found
            at = index if opens else index + 1
            self.count(at - counted)
            counted = at
            self._to(to)
            turns.append((at, to))
        self.count(len(token_ids) - counted)
        return tuple(turns)

    def _to(self, phase: Phase) -> None:
        self.phase = phase
        self._watched = self._tables.phases[phase].watched

    def _recall(self, before: Sequence[int]) -> None:
        """Take up a marker that has begun in earlier output; what ended there is in the phase."""
        if self._channels is not None:
            self._carry = None
            for token_id in before:
                self._step_channels(token_id)
            return
        for token_id in before:
            self._keep(token_id)

    def _keep(self, token_id: int) -> None:
        if token_id not in self._watched or self._tables.longest == 1:
            self._carry = None
            return
        if self._carry is None:
            self._carry = []
        self._carry.append(token_id)
        del self._carry[: -self._tables.longest]

    def _step(self, token_id: int) -> tuple[Phase, bool] | None:
        """The phase that this token leads into, and whether it opens it."""
        self._keep(token_id)
        for marker in self._tables.phases[self.phase].by_last.get(token_id, ()):
            length = len(marker.ids)
            if length == 1 or (self._carry or [])[-length:] == marker.ids:
                self._carry = None  # markers do not overlap
                return marker.to, marker.opens
        return None

    def _step_channels(self, token_id: int) -> tuple[Phase, bool] | None:
        channels = self._channels
        assert channels is not None
        header = self._carry
        if token_id == channels.message:
            self._carry = None
            phase = None if header is None else _phase_of_header(channels, header)
            return None if phase is None or phase is self.phase else (phase, False)
        if token_id == channels.start:
            self._carry = []
        elif token_id == channels.channel:
            # A recipient comes before the channel, or after its name.
            self._carry = [*(header or ()), token_id]
        elif header is not None:
            header.append(token_id)
            if len(header) > _LONGEST_HEADER:
                self._carry = None  # it is no header
        return None


def _phase_of_header(channels: Channels, header: Sequence[int]) -> Phase | None:
    ids = tuple(header)
    if any(_ends_with(ids[: stop + 1], channels.recipients) for stop in range(len(ids))):
        return _CALLING
    if channels.channel not in ids:
        return None
    name = ids[ids.index(channels.channel) + 1 :]
    for names, phase in ((channels.reasoning, _REASONING), (channels.answering, _ANSWERING)):
        if any(name[: len(ids_of_name)] == ids_of_name for ids_of_name in names):
            return phase
    return None
