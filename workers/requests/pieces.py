"""The text of some output tokens, in segments: what every reader of an output gives.

Pure. Knows no tokenizer and no parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from workers.messages import Piece, Turn
from workers.policy.phase import Phase

Kind: TypeAlias = Literal["reasoning", "answer", "call"]

KIND: dict[Phase, Kind] = {
    Phase.REASONING: "reasoning",
    Phase.ANSWERING: "answer",
    Phase.CALLING: "call",
}
PHASE: dict[Kind, Phase] = {kind: phase for phase, kind in KIND.items()}


@dataclass(frozen=True, slots=True)
class Pieces:
    """The text of some output tokens; fields as in `workers.messages.TokenRun`."""

    tokens: int  # fewer than given if a stop string ended the answer
    texts: tuple[str, ...]
    pieces: tuple[Piece, ...] | None = None
    turns: tuple[Turn, ...] = ()
    stopped: bool = False  # whether the request is complete: a stop string, or its only call
    # The phase that follows these tokens, if token ids do not tell it: for the scheduler.
    told: Phase | None = None


class OutputText(Protocol):
    """Reads the output of one request."""

    @property
    def phase(self) -> Phase:
        """Of the next token."""

    @property
    def stop(self) -> str | None:
        """The stop string that ended the answer; None if none did."""

    def push(self, token_ids: Sequence[int], *, last: bool = False) -> Pieces:
        """Add output tokens.

        :param last: no tokens follow, so the last of these gets the text that is still held.
        """


class PieceList:
    """Collects the pieces of one run, in order."""

    __slots__ = ("_kind", "_pieces")

    def __init__(self, open_kind: Kind | None) -> None:
        """:param open_kind: the segment that is open before these tokens."""
        self._pieces: list[Piece] = []
        self._kind = open_kind

    def add(
        self,
        at: int,
        kind: Kind,
        text: str,
        name: str | None = None,
        call_id: str | None = None,
    ) -> None:
        """Add the text that token ``at`` completes; a name begins a call."""
        if not text and name is None:
            return
        self._kind = kind
        self._pieces.append(Piece(at=at, kind=kind, text=text, name=name, call_id=call_id))

    @property
    def kind(self) -> Kind | None:
        """Of the last piece, or of the segment that was open before."""
        return self._kind

    def finished(
        self,
        tokens: int,
        phase: Phase,
        turns: Sequence[tuple[int, Phase]],
        *,
        stopped: bool = False,
        told: Phase | None = None,
    ) -> Pieces:
        """What was collected, in the form of the link.

        :param phase: of the first token.
        """
        links = tuple(Turn(at=at, phase=to.value) for at, to in turns if at <= tokens)
        if not self._follows(phase, turns):
            return Pieces(tokens, (), tuple(self._pieces), links, stopped, told)
        texts = [""] * tokens
        for piece in self._pieces:
            texts[piece.at] += piece.text
        return Pieces(tokens, tuple(texts), None, links, stopped, told)

    def _follows(self, phase: Phase, turns: Sequence[tuple[int, Phase]]) -> bool:
        """Whether each text belongs to the phase of its token, so that the tokens say enough."""
        ahead = list(turns)
        for piece in self._pieces:
            while ahead and ahead[0][0] <= piece.at:
                phase = ahead.pop(0)[1]
            if piece.name is not None or piece.kind != KIND[phase]:
                return False
        return True
