"""Turns token ids into text, one piece per token, and finds the stop string that ends an answer.

What is thought, answer and call is decided in `workers.requests.segments` and its neighbours.
Pure except for the tokenizer's `decode`, which callers pass in. Must not know where tokens come
from or where text goes.

A piece of text belongs to the token that completes it. A UTF-8 character of three tokens gives two
empty pieces and then the character. Text that may be the beginning of a stop string is held back in
the same way. When the request ends, its last token gets the text that is still held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]  # token ids to text without special tokens

_REPLACEMENT = "\ufffd"
_LONGEST_INCOMPLETE = (
    3  # bytes of an incomplete UTF-8 character; some decoders give a sign for each
)
_WINDOW = 64  # most tokens decoded again for each new one; only long invalid bytes reach it
_CONTEXT = 8  # tokens kept when the window is cut: more than the bytes of any character


class IncrementalDecoder:
    """Decodes a growing sequence of tokens. The joined pieces equal `decode` of the whole.

    Tokens cannot be decoded one by one. Characters span tokens, and some decoders treat the first
    token of a text differently. So each new token is decoded together with a short window of
    tokens before it. The window begins with tokens whose text was given out completely: they are
    the context of the tokens that follow.
    """

    __slots__ = ("_context", "_decode", "_given", "_window")

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._context = 0  # tokens at the window's beginning whose text was given out
        self._given = ""  # the part of the window's text that was given out

    def push(self, token_id: int) -> str:
        """The text that this token completes."""
        self._window.append(token_id)
        text = self._decode(self._window)
        if not text.startswith(self._given):
            # A byte-fallback decoder changes a whole run of bytes when one of them is invalid.
            # Text that was given out cannot change any more: start again at this token.
            self._cut(len(self._window) - 1)
            self._given = ""
            text = self._decode(self._window)
        complete = len(text) - _held(text)
        piece = text[len(self._given) : complete]
        if complete < len(text):
            self._given = text[: max(complete, len(self._given))]
        else:
            if piece and self._context:
                self._cut(self._context)
                text = self._decode(self._window)
            self._given = text
            self._context = len(self._window)
        if len(self._window) > _WINDOW:
            self._cut(len(self._window) - _CONTEXT)
            text = self._decode(self._window)
            self._given = text[: len(text) - _held(text)]
        return piece

    def _cut(self, tokens: int) -> None:
        del self._window[:tokens]
        self._context = max(0, self._context - tokens)

    def flush(self) -> str:
        """The text still held: incomplete bytes, as U+FFFD. Then start with an empty window."""
        rest = self._decode(self._window)[len(self._given) :] if self._window else ""
        self._window.clear()
        self._context = 0
        self._given = ""
        return rest


def _held(text: str) -> int:
    """Characters at the end of ``text`` that a further byte may still change."""
    held = 0
    while held < min(_LONGEST_INCOMPLETE, len(text)) and text[-1 - held] == _REPLACEMENT:
        held += 1
    return held


class StopMatcher:
    """Looks for stop strings in a text that arrives in pieces."""

    __slots__ = ("_held", "_stops", "found")

    def __init__(self, stops: Sequence[str]) -> None:
        """:param stops: non-empty strings."""
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None  # the one that was found

    def push(self, piece: str) -> tuple[str, bool]:
        """Add text.

        :return: the text that is certainly before any stop string, and whether one was found. The
            rest is held back; after a match it is dropped.
        """
        if not self._stops:
            return piece, False
        text = self._held + piece
        matches = ((at, stop) for stop in self._stops if (at := text.find(stop)) >= 0)
        if (match := min(matches, default=None)) is not None:
            match_at, self.found = match
            self._held = ""
            return text[:match_at], True
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """The text still held; call it when no more text can come."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``stop``."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
