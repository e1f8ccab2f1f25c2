"""Helps to take a run of tokens apart whose text belongs to several segments of the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gateway.response.output_item import Segment
from gateway.response.transcript import Transcript
from workers.messages import PhaseName, Piece, TokenLogprob, TokenRun


class Unread:
    """Text of thoughts and calls that came in one step: one delta for each segment."""

    def __init__(self, transcript: Transcript) -> None:
        self.tokens = 0  # that the next delta counts
        self._transcript = transcript
        self._segment: Segment | None = None
        self._texts: list[str] = []

    def put(self, piece: Piece) -> None:
        """Take the text of a piece."""
        segment: Segment = "call" if piece.kind == "call" else "reasoning"
        if segment != self._segment:
            self.add()
            self._segment = segment
        self._texts.append(piece.text)

    def add(self) -> None:
        """Add what was taken to the transcript."""
        if self._segment is not None:
            self._transcript.add_text(self._segment, "".join(self._texts), self.tokens)
            self.tokens = 0
        self._segment = None
        self._texts.clear()


_KINDS: dict[PhaseName, Segment] = {
    "reasoning": "reasoning",
    "answering": "answer",
    "calling": "call",
}


def by_token(run: TokenRun, phase: PhaseName) -> Sequence[Sequence[Piece]]:
    """The pieces of a run for each of its tokens.

    :param phase: at the beginning of the run. Without pieces, a text belongs to the phase of its
        token.
    """
    if run.pieces is not None:
        parts: list[list[Piece]] = [[] for _ in run.token_ids]
        for piece in run.pieces:
            parts[piece.at].append(piece)
        return parts
    turns = {turn.at: turn.phase for turn in run.turns}
    texts = []
    for at, text in enumerate(run.texts):
        phase = turns.get(at, phase)
        texts.append((Piece(at=at, kind=_KINDS[phase], text=text),))
    return texts


def logprob_json(logprob: TokenLogprob) -> bytes:
    """The log probability of a token as the APIs write it."""
    return orjson.dumps({**_plain(logprob), "top_logprobs": [_plain(one) for one in logprob.top]})


def _plain(logprob: TokenLogprob) -> dict[str, Any]:
    return {"token": logprob.token, "logprob": logprob.logprob, "bytes": logprob.data}
