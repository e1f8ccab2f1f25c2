"""One output item of a response: its text, and the deltas in which the reader gets it.

The text is kept once, as the inside of a JSON string, because that is the only form in which it
leaves. Of each delta there is a length in an array. So a token takes few bytes, and no object that
the garbage collector would walk over. A delta is encoded whenever it is sent.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeAlias

import orjson

from gateway.schemas import events
from gateway.schemas.events import ItemStatus
from gateway.schemas.tools import ToolName

Segment: TypeAlias = Literal["reasoning", "answer", "call"]

_KINDS: dict[Segment, str] = {
    "reasoning": events.REASONING_DELTA,
    "answer": events.ANSWER_DELTA,
    "call": events.CALL_DELTA,
}
# Where in its item a delta belongs, if it is no part of its content.
_PLACES = {
    events.CALL_DELTA: b"",
    events.CUSTOM_CALL_DELTA: b"",
    events.SUMMARY_DELTA: b'"summary_index":0,',
}


class _OutputItemHot:
    """What is read for each token, next to each other in memory."""

    __slots__ = (
        "_lengths",
        "_live",
        "_logprobs",
        "_unfinished",
        "dropped",
        "ended",
        "index",
        "kind",
        "live_fields",
        "odd",
        "plain",
        "segment",
        "shown",
        "shown_bytes",
        "text",
    )


class OutputItem(_OutputItemHot):
    """Text of one item, of which the reader has been shown the beginning.

    The text of a call is that of its arguments.

    Some tokens have no text of their own, because they are parts of a character. They are counted
    together with the token that completes the text. Before the first text and after the last one
    they do not count.

    A delta of the answer that is sent when it is released has ``buffered_tokens`` and ``slack_s``.
    They describe that moment, so a delta that is sent again has neither.
    """

    __slots__ = (
        "_dropped_bytes",
        "_end",
        "_new_logprobs",
        "_plain",
        "call_id",
        "cut",
        "item_id",
        "name",
        "sealed",
        "seconds",
        "status",
        "tool",
    )

    def __init__(self, segment: Segment, item_id: str) -> None:
        self.segment = segment
        self.kind = _KINDS[segment]  # the type of its delta events
        self.item_id = item_id
        self.name = self.call_id = ""  # of a call; the name by which the model knows the tool
        self.tool: ToolName | None = None  # of a call: how the client knows the tool
        self.live_fields = segment == "answer"
        # The next delta is of the answer, has one token, no log probability, and others follow.
        self.plain = False
        self.ended = False  # no more text is added
        self.seconds: float | None = None  # for which the model thought
        self.sealed: str | None = None  # the thoughts, encrypted
        self.index: int | None = None  # place in the output; None until it is announced
        self.status: ItemStatus = "in_progress"
        self.text = bytearray()  # the inside of a JSON string; it only grows
        self.shown = 0  # deltas that the reader was sent
        self.shown_bytes = 0  # of the text
        self.cut: int | None = None  # deltas that the reader has read, of those that were sent
        self._lengths = array("I")  # of the text of each delta, from `dropped` on
        self.dropped = 0  # deltas whose lengths are not kept
        self._dropped_bytes = 0  # of their text
        self.odd: dict[int, int] | None = None  # by delta: its tokens, if they are not 1
        self._unfinished = 0  # tokens whose text is still to come
        # For each delta the inside of a JSON array with its log probabilities, if asked for.
        self._logprobs: list[bytes] | None = None
        self._new_logprobs: list[bytes] | None = None  # of tokens whose text is still to come
        self._end = self._plain = self._live = b""  # formats of its deltas

    def announce(self, index: int) -> None:
        """The item has its place in the output."""
        self.index = index
        start = (
            b'{"type":%b,"sequence_number":%%d,"item_id":%b,"output_index":%d,%b"delta":"%%b"'
            % (
                orjson.dumps(self.kind),
                orjson.dumps(self.item_id),
                index,
                _PLACES.get(self.kind, b'"content_index":0,'),
            )
        )
        if self._logprobs is None:
            self._end = start + (b',"logprobs":[]' if self.live_fields else b"")
        else:
            self._end = start + b',"logprobs":[%b]'
        self._plain = self._end + b"}"
        self._live = self._end + b',"buffered_tokens":%d,"slack_s":%a}'
        self.plain = (
            self.live_fields and not self.ended and self.odd is None and self._logprobs is None
        )

    def end(self, seconds: float | None = None) -> None:
        """No more text is added.

        :param seconds: for which the model thought, if it is reasoning.
        """
        self.ended = True
        self.plain = False
        self.seconds = seconds

    @property
    def size_bytes(self) -> int:
        """Memory of its text and of what belongs to it."""
        return len(self.text) + sum(map(len, self._logprobs or ()))

    # ---- tokens come -------------------------------------------------------------------------

    def add(self, text: str) -> int:
        """Add the text that a token completes, possibly none.

        :return: how many tokens the delta has that it completes; 0 if it completes none.
        """
        if not text:
            if self.text:
                self._unfinished += 1
            return 0
        json = orjson.dumps(text)[1:-1]
        self.text += json
        self._lengths.append(len(json))
        if not self._unfinished:
            return 1
        tokens = self._unfinished + 1
        self._unfinished = 0
        self._note(self.dropped + len(self._lengths) - 1, tokens)
        return tokens

    def add_all(self, texts: Sequence[str]) -> bool:
        """Add the texts of tokens, each as one delta; False, and nothing, if some have no text."""
        if self._unfinished or not all(texts):
            return False
        whole = "".join(texts)
        json = orjson.dumps(whole)[1:-1]
        lengths: Iterable[int] = map(len, texts)
        if len(json) != len(whole):  # not a byte for each character
            lengths = (len(orjson.dumps(text)) - 2 for text in texts)
        self.text += json
        self._lengths.extend(lengths)
        return True

    def add_step(self, text: str, tokens: int) -> bool:
        """Add the text of the tokens of one step as one delta; False if they complete none."""
        self._unfinished += tokens
        if not text:
            return False
        json = orjson.dumps(text)[1:-1]
        self.text += json
        self._lengths.append(len(json))
        if self._unfinished != 1:
            self._note(self.dropped + len(self._lengths) - 1, self._unfinished)
        self._unfinished = 0
        return True

    def add_with_logprob(self, text: str, logprob: bytes) -> int:
        """As `add`, with the token's log probability as a JSON object."""
        if self._logprobs is None or self._new_logprobs is None:
            self._logprobs, self._new_logprobs = [], []
            self.plain = False
        self._new_logprobs.append(logprob)
        if tokens := self.add(text):
            self._logprobs.append(b",".join(self._new_logprobs))
            self._new_logprobs.clear()
        return tokens

    @property
    def waiting(self) -> int:
        """Deltas that are still to be shown."""
        return self.dropped + len(self._lengths) - self.shown

    def show_step(self, sequence: int, text: str, tokens: int) -> bytes | None:
        """Do as `add_step` and `next_live`, for an item of which all was shown.

        :return: the event; None if the tokens complete no delta.
        """
        if tokens != 1 or not text or self._unfinished or self._logprobs is not None:
            return self.next_live(sequence, 0, None) if self.add_step(text, tokens) else None
        json = orjson.dumps(text)[1:-1]
        size = len(json)
        self.text += json
        self._lengths.append(size)
        self.shown_bytes += size
        self.shown += 1
        return self._plain % (sequence, json)

    # ---- the reader gets them ----------------------------------------------------------------

    def tokens_of_next(self, deltas: int) -> int:
        """How many tokens the next deltas to be shown have."""
        return sum(self.tokens_of(self.shown + place) for place in range(deltas))

    def tokens_of(self, delta: int) -> int:
        """How many tokens a delta has; ``delta`` counts from 0."""
        return 1 if self.odd is None else self.odd.get(delta, 1)

    def show(self) -> None:
        """Take the next delta as shown."""
        self.shown_bytes += self._lengths[self.shown - self.dropped]
        self.shown += 1

    def next_plain(self, sequence: int, buffered_tokens: int, slack_s: float) -> bytes:
        """Do as `next_live` for an item that is `plain`, as nearly always."""
        start, delta = self.shown_bytes, self.shown
        self.shown_bytes = end = start + self._lengths[delta - self.dropped]
        self.shown = delta + 1
        slack_s = round(slack_s * 1000) / 1000
        return self._live % (sequence, self.text[start:end], buffered_tokens, slack_s)

    def next_live(self, sequence: int, buffered_tokens: int, slack_s: float | None) -> bytes:
        """Take the next delta as shown, and return it as an event."""
        start, delta = self.shown_bytes, self.shown
        self.shown_bytes = end = start + self._lengths[delta - self.dropped]
        self.shown = delta + 1
        text = self.text[start:end]
        if not self.live_fields:
            if self._logprobs is None and (self.odd is None or delta not in self.odd):
                return self._plain % (sequence, text)  # as nearly always
            return self._encode(delta, sequence, text)
        slack_s = None if slack_s is None else round(slack_s * 1000) / 1000
        live = b',"buffered_tokens":%d,"slack_s":%b' % (buffered_tokens, orjson.dumps(slack_s))
        return self._encode(delta, sequence, text, live)

    def encoded(self, first: int, sequence: int) -> Iterator[bytes]:
        """The shown deltas from ``first`` on, as events that are sent again.

        :param sequence: the number of the first event.
        """
        begin = self._dropped_bytes + sum(self._lengths[: first - self.dropped])
        for delta in range(first, self.shown):
            end = begin + self._lengths[delta - self.dropped]
            text = self.text[begin:end]
            yield self._encode(delta, sequence + delta - first, text)
            begin = end

    def drop(self, deltas: int) -> None:
        """Keep the lengths of that many deltas no longer; the text stays."""
        self._dropped_bytes += sum(self._lengths[:deltas])
        self.dropped += deltas
        del self._lengths[:deltas]

    def _encode(self, delta: int, sequence: int, text: bytearray, live: bytes = b"") -> bytes:
        if self._logprobs is None:
            event = self._end % (sequence, text)
        else:
            event = self._end % (sequence, text, self.logprobs_of(delta))
        tokens = self.tokens_of(delta)
        return event + live + (b"}" if tokens == 1 else b',"tokens":%d}' % tokens)

    def logprobs_of(self, delta: int) -> bytes:
        """The log probabilities of a delta, as the inside of a JSON array."""
        return self._logprobs[delta] if self._logprobs and delta < len(self._logprobs) else b""

    # ---- the whole text ----------------------------------------------------------------------

    def cut_after(self, tokens: int) -> int:
        """The reader has read so many tokens of what was sent, and reads no further.

        Deltas whose lengths are not kept count as read.

        :return: how many of the tokens lie behind this item.
        """
        for delta in range(self.shown):
            here = self.tokens_of(delta)
            if here > tokens:
                self.cut = max(delta, self.dropped)
                return 0
            tokens -= here
        return tokens

    def decoded(self) -> str:
        """The text that the reader was sent, up to the place where he stopped."""
        text: str = orjson.loads(b'"%b"' % self._seen())
        return text

    def fragment(self) -> orjson.Fragment:
        """As `decoded`, as a JSON string for orjson."""
        return orjson.Fragment(b'"%b"' % self._seen())

    def logprobs(self) -> list[orjson.Fragment]:
        """The log probabilities of the deltas of `decoded`, for orjson."""
        deltas = self.shown if self.cut is None else self.cut
        return [orjson.Fragment(one) for one in (self._logprobs or ())[:deltas]]

    def _seen(self) -> bytes:
        end = self.shown_bytes
        if self.cut is not None:
            end = self._dropped_bytes + sum(self._lengths[: self.cut - self.dropped])
        return bytes(self.text[:end])

    def _note(self, delta: int, tokens: int) -> None:
        if self.odd is None:
            self.odd = {}
            self.plain = False
        self.odd[delta] = tokens
