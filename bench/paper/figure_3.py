"""The paper's Figure 3: what four readers see of the same answer, and what that is worth to them.

Pure. Delivery and QoE are the pacer's own. The answer has 20 tokens, the reader expects the first
after one unit of time and one a unit from then on; the engine makes two a unit while it works.

    buffered    the engine is ahead all the time
    paused      the request is preempted, but its buffer lasts until it goes on
    starved     it is preempted for longer than that: the reader waits in the midst of the answer
    late        the first token comes late: the reader waits once, at the beginning
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pacer import TokenBuffer, qoe

TAU = 1.0  # units of time, as all here
FIRST = 1.0  # when the first token is expected
TOKENS = 20
_EVERY = 0.5  # between two tokens of an engine at work
_AFTER = 10  # tokens, then the engine stops working for this request

# Before the first token, and beyond `_EVERY` after the `_AFTER`th.
_STORIES = {
    "buffered": (0.0, 0.0),
    "paused": (0.0, 4.0),
    "starved": (0.0, 12.0),
    "late": (8.0, 0.0),
}


@dataclass(frozen=True, slots=True)
class Story:
    """What one reader sees."""

    generated: Sequence[float]  # when the engine made each token
    released: Sequence[float]  # when the pacer let the reader have it
    expected: Sequence[float]
    qoe: float


def stories() -> Mapping[str, Story]:
    """All four, in the order of the figure."""
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
