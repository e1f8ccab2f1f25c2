"""Which phase a request is in, decided by token id alone.

Used on both sides of the engine: by the scheduler, where tokens are produced, and by the stream
to the gateway, where they are read. Pure: knows no engine, no text and no clock.

The boundary is the *first* end-of-thinking token while the request is REASONING; it still belongs
to the reasoning. Therefore a second one inside the answer is ordinary text, and so are the words
``</think>`` spelled with other tokens. A model that never emits it never leaves REASONING.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

THINK_START = "<think>"
THINK_END = "</think>"


class Phase(enum.Enum):
    """The two phases of a reasoning request; prefill counts as the phase that follows it."""

    REASONING = "reasoning"
    ANSWERING = "answering"


_ANSWERING = Phase.ANSWERING  # looked up for every token, and members of an enum are slow to reach


@dataclass(frozen=True, slots=True)
class ThinkMarkers:
    """Token ids that enclose the thoughts of a model."""

    start: int | None  # None: the model has no token of its own for it
    end: int

    @classmethod
    def of_vocabulary(cls, vocabulary: Mapping[str, int]) -> ThinkMarkers | None:
        """The markers a vocabulary contains as single tokens; None: the model does not think."""
        end = vocabulary.get(THINK_END)
        return None if end is None else cls(vocabulary.get(THINK_START), end)

    def phase_after(self, token_ids: Sequence[int]) -> Phase | None:
        """The phase that the last marker in ``token_ids`` leads into; None if there is none."""
        for token_id in reversed(token_ids):
            if token_id == self.end:
                return Phase.ANSWERING
            if token_id == self.start:
                return Phase.REASONING
        return None


class PhaseTracker:
    """Follows one request through its output tokens.

    ``reasoning_tokens`` counts up to and including the boundary, ``answering_tokens`` the rest.
    """

    __slots__ = ("_end", "answering_tokens", "phase", "reasoning_tokens")

    def __init__(self, start: Phase, end_token_id: int | None) -> None:
        """:param end_token_id: the end-of-thinking token; None if the model has none."""
        self.phase = start
        self.reasoning_tokens = 0
        self.answering_tokens = 0
        self._end = end_token_id

    def count(self, tokens: int) -> None:
        """Account for the next output tokens, which hold no boundary."""
        if self.phase is _ANSWERING:
            self.answering_tokens += tokens
        else:
            self.reasoning_tokens += tokens

    def feed(self, token_ids: Sequence[int]) -> int | None:
        """Account for the next output tokens.

        :return: the index in ``token_ids`` of the boundary token, if it is among them.
        """
        if self.phase is _ANSWERING or self._end not in token_ids:
            self.count(len(token_ids))
            return None
        index = token_ids.index(self._end)
        self.phase = Phase.ANSWERING
        self.reasoning_tokens += index + 1
        self.answering_tokens += len(token_ids) - index - 1
        return index
