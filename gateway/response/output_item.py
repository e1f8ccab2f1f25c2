"""One output item of a response: its text, and the deltas in which the reader gets it.

The text is kept once, as the inside of a JSON string, because that is the only form in which it
leaves. Of each delta there is a length in an array. So a token takes few bytes, and no object that
the garbage collector would walk over. A delta is encoded whenever it is sent.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import orjson

from gateway.schemas.events import ItemStatus


class OutputItem:
    """Text of one item, of which the reader has been shown the beginning.

    Some tokens have no text of their own, because they are parts of a character. They are counted
    together with the token that completes the text. Before the first text and after the last one
    they do not count.

    :param kind: the type of its delta events.
    :param live_fields: whether a delta that is sent when it is released has ``buffered_tokens``
        and ``slack_s``. They describe that moment, so a delta that is sent again has neither.
    """

    __slots__ = (
        "_dropped_bytes",
        "_end",
        "_lengths",
        "_live",
        "_plain",
        "_unfinished",
        "dropped",
        "index",
        "item_id",
        "kind",
        "live_fields",
        "odd",
        "shown",
        "shown_bytes",
        "status",
        "text",
    )

    def __init__(self, kind: str, item_id: str, *, live_fields: bool) -> None:
        self.kind = kind
        self.item_id = item_id
        self.live_fields = live_fields
        self.index: int | None = None  # place in the output; None until it is announced
        self.status: ItemStatus = "in_progress"
        self.text = bytearray()  # the inside of a JSON string; it only grows
        self.shown = 0  # deltas that the reader was sent
        self.shown_bytes = 0  # of the text
        self._lengths = array("I")  # of the text of each delta, from `dropped` on
        self.dropped = 0  # deltas whose lengths are not kept
        self._dropped_bytes = 0  # of their text
        self.odd: dict[int, int] | None = None  # by delta: its tokens, if they are not 1
        self._unfinished = 0  # tokens whose text is still to come
        self._end = self._plain = self._live = b""  # formats of its deltas

    def announce(self, index: int) -> None:
        """The item has its place in the output."""
        self.index = index
        start = (
            b'{"type":%b,"sequence_number":%%d,"item_id":%b,"output_index":%d,"content_index":0,'
            b'"delta":"%%b"' % (orjson.dumps(self.kind), orjson.dumps(self.item_id), index)
        )
        self._end = start + (b',"logprobs":[]' if self.live_fields else b"")
        self._plain = self._end + b"}"
        self._live = self._end + b',"buffered_tokens":%d,"slack_s":%a}'

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

    def next_live(self, sequence: int, buffered_tokens: int, slack_s: float | None) -> bytes:
        """Take the next delta as shown, and return it as an event."""
        start, delta = self.shown_bytes, self.shown
        self.shown_bytes = end = start + self._lengths[delta - self.dropped]
        self.shown = delta + 1
        text = bytes(self.text[start:end])
        tokens = 1 if self.odd is None else self.odd.get(delta, 1)
        if tokens == 1:  # as nearly always: one format
            if not self.live_fields:
                return self._plain % (sequence, text)
            if slack_s is not None:
                slack_s = round(slack_s * 1000) / 1000
                return self._live % (sequence, text, buffered_tokens, slack_s)
        if not self.live_fields:
            return self._encode(sequence, text, tokens)
        slack_s = None if slack_s is None else round(slack_s * 1000) / 1000
        event = (self._end + b',"buffered_tokens":%d,"slack_s":%b') % (
            sequence,
            text,
            buffered_tokens,
            orjson.dumps(slack_s),
        )
        return event + (b"}" if tokens == 1 else b',"tokens":%d}' % tokens)

    def encoded(self, first: int, sequence: int) -> Iterator[bytes]:
        """The shown deltas from ``first`` on, as events that are sent again.

        :param sequence: the number of the first event.
        """
        begin = self._dropped_bytes + sum(self._lengths[: first - self.dropped])
        for delta in range(first, self.shown):
            end = begin + self._lengths[delta - self.dropped]
            text = bytes(self.text[begin:end])
            yield self._encode(sequence + delta - first, text, self.tokens_of(delta))
            begin = end

    def drop(self, deltas: int) -> None:
        """Keep the lengths of that many deltas no longer; the text stays."""
        self._dropped_bytes += sum(self._lengths[:deltas])
        self.dropped += deltas
        del self._lengths[:deltas]

    def _encode(self, sequence: int, text: bytes, tokens: int) -> bytes:
        end = b"}" if tokens == 1 else b',"tokens":%d}' % tokens
        return self._end % (sequence, text) + end

    # ---- the whole text ----------------------------------------------------------------------

    def decoded(self) -> str:
        """The text that the reader was sent."""
        text: str = orjson.loads(b'"%b"' % bytes(self.text[: self.shown_bytes]))
        return text

    def fragment(self) -> orjson.Fragment:
        """The text that the reader was sent as a JSON string, for orjson."""
        return orjson.Fragment(b'"%b"' % bytes(self.text[: self.shown_bytes]))

    def _note(self, delta: int, tokens: int) -> None:
        if self.odd is None:
            self.odd = {}
        self.odd[delta] = tokens
