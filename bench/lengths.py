"""How long requests are: joint distributions of prompt, reasoning and answer lengths, in tokens.

Pure but for the random generator that is passed in. Means are the paper's ("The paper's
evaluation"); their spread is not published, so it is our choice: log-normal, as output lengths of
reasoning models are in public traces, with the correlation of long thoughts and long answers.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one request."""

    prompt: int
    reasoning: int  # with the end-of-thinking token
    answer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthModel:
    """Log-normal lengths, clipped to the range that the paper shows."""

    prompt_median: float
    prompt_sigma: float
    reasoning_mean: float
    reasoning_sigma: float
    answer_mean: float
    answer_sigma: float
    correlation: float  # of the logarithms of reasoning and answer
    reasoning_most: int = 15_000
    answer_most: int = 8_000
    prompt_most: int = 4_000

    @property
    def longest_output(self) -> int:
        """Most tokens of reasoning and answer together."""
        return self.reasoning_most + self.answer_most

    def draw(self, chance: random.Random) -> Lengths:
        """One request."""
        z = chance.gauss(0.0, 1.0)
        own = chance.gauss(0.0, 1.0)
        with_z = self.correlation * z + math.sqrt(1 - self.correlation**2) * own
        prompt = self.prompt_median * math.exp(self.prompt_sigma * chance.gauss(0.0, 1.0))
        reasoning = _log_normal(self.reasoning_mean, self.reasoning_sigma, z)
        answer = _log_normal(self.answer_mean, self.answer_sigma, with_z)
        return Lengths(
            prompt=_clipped(prompt, 8, self.prompt_most),
            reasoning=_clipped(reasoning, 32, self.reasoning_most),
            answer=_clipped(answer, 16, self.answer_most),
        )


# Prompts: quantiles of the benchmark's own questions (31 tokens at the median, 99 in the mean).
ARENA_HARD = LengthModel(
    prompt_median=31,
    prompt_sigma=1.5,
    reasoning_mean=950,
    reasoning_sigma=0.95,
    answer_mean=824,
    answer_sigma=0.65,
    correlation=0.45,
)


def _log_normal(mean: float, sigma: float, z: float) -> float:
    return mean * math.exp(sigma * z - sigma * sigma / 2)


def _clipped(value: float, least: int, most: int) -> int:
    return max(least, min(most, round(value)))
