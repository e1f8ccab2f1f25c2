"""The paper's Figure 3: how four readers receive the same answer, and the QoE of each.

Pure. The pacer delivers and computes the QoE. The answer has 20 tokens. The reader expects the
first token after one unit of time and then one token per unit. A running engine makes two per unit.

    buffered    the engine is always ahead
    paused      the request is preempted, but its buffer lasts until it resumes
    underrun    it is preempted for longer: the reader waits in the middle of the answer
    late        the first token comes late: the reader waits once, at the beginning
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pacer import TokenBuffer, qoe

TAU = 1.0  # units of time, like all durations here
FIRST = 1.0  # when the first token is expected
TOKENS = 20
_EVERY = 0.5  # between two tokens of a running request
_AFTER = 10  # tokens, then the request is preempted

# Delays of the first token, and of the token after the `_AFTER`th, in addition to `_EVERY`.
_STORIES = {
    "buffered": (0.0, 0.0),
    "paused": (0.0, 4.0),
    "underrun": (0.0, 12.0),
    "late": (8.0, 0.0),
}


@dataclass(frozen=True, slots=True)
class Story:
    """The answer of one reader. Times in units."""

    generated: Sequence[float]  # when the engine made each token
    released: Sequence[float]  # when the pacer delivered each token
    expected: Sequence[float]  # when the reader expected each token
    qoe: float


def stories() -> Mapping[str, Story]:
    """All four readers, in the order of the figure."""
    return {name: _story(*waits) for name, waits in _STORIES.items()}


def _story(late: float, away: float) -> Story:
    gaps = [FIRST + late, *[_EVERY] * (TOKENS - 1)]
    gaps[_AFTER] += away
    generated = list(accumulate(gaps))
    buffer: TokenBuffer[int] = TokenBuffer(TAU, generated[0])
    for index, at in enumerate(generated):
        buffer.push(index, at)
    ended = generated[-1] + TAU * TOKENS
    return Story(
        generated=generated,
        released=[release.planned_s for release in buffer.pop_due(ended)],
        expected=[FIRST + index * TAU for index in range(TOKENS)],
        qoe=qoe(generated, tau_s=TAU, first_s=FIRST),
    )
