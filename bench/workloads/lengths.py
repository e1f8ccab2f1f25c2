"""Joint distributions of prompt, reasoning and answer lengths, in tokens.

Pure, except for the random generator that is passed in. It must not know when requests arrive.

Means are the paper's ("The paper's evaluation"). Their spread is not published, so it is our
choice: log-normal, like output lengths of reasoning models in public traces, with correlated
reasoning and answers. docs/reference/workloads.md gives a reason for every choice.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from bench.workloads.distributions import Distribution


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one request."""

    prompt: int
    reasoning: int  # with the end-of-reasoning token
    answer: int
    call: int = 0  # of a tool, with its markers; it follows the answer, which may be empty

    @property
    def output(self) -> int:
        """Tokens that the model generates."""
        return self.reasoning + self.answer + self.call


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of a model that works on an agent's task, and the tool that it calls."""

    # `prompt` is what this turn adds to the context: at first the system prompt, the tools and the
    # task, later the result of the tool. `answer` is prose before the call, and may be 0.
    lengths: Lengths
    tool_s: float  # seconds from the whole call until its result is there; 0 in the last turn


class LengthSource(Protocol):
    """A source of lengths, such as `LengthModel`."""

    def draw(self, rng: random.Random) -> Lengths:
        """Draw the lengths of one request."""

    @property
    def longest_output(self) -> int:
        """Maximum of reasoning and answer together, in tokens."""


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
        """Maximum of reasoning and answer together, in tokens."""
        return self.reasoning_most + self.answer_most

    def draw(self, rng: random.Random) -> Lengths:
        """Draw the lengths of one request."""
        z = rng.gauss(0.0, 1.0)
        independent = rng.gauss(0.0, 1.0)
        with_z = self.correlation * z + math.sqrt(1 - self.correlation**2) * independent
        prompt = self.prompt_median * math.exp(self.prompt_sigma * rng.gauss(0.0, 1.0))
        reasoning = _log_normal(self.reasoning_mean, self.reasoning_sigma, z)
        answer = _log_normal(self.answer_mean, self.answer_sigma, with_z)
        return Lengths(
            prompt=_clipped(prompt, 8, self.prompt_most),
            reasoning=_clipped(reasoning, 32, self.reasoning_most),
            answer=_clipped(answer, 16, self.answer_most),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioModel:
    """Log-normal reasoning, and answers shorter by a factor drawn evenly from a range."""

    prompt_median: float
    prompt_sigma: float
    reasoning_mean: float
    reasoning_sigma: float
    ratio_least: float  # reasoning tokens per answer token
    ratio_most: float
    reasoning_most: int = 15_000
    prompt_most: int = 4_000

    @property
    def longest_output(self) -> int:
        """Maximum of reasoning and answer together, in tokens."""
        return self.reasoning_most + max(16, round(self.reasoning_most / self.ratio_least))

    def draw(self, rng: random.Random) -> Lengths:
        """Draw the lengths of one request."""
        prompt = self.prompt_median * math.exp(self.prompt_sigma * rng.gauss(0.0, 1.0))
        drawn = _log_normal(self.reasoning_mean, self.reasoning_sigma, rng.gauss(0.0, 1.0))
        reasoning = _clipped(drawn, 32, self.reasoning_most)
        ratio = rng.uniform(self.ratio_least, self.ratio_most)
        return Lengths(
            prompt=_clipped(prompt, 8, self.prompt_most),
            reasoning=reasoning,
            answer=max(16, round(reasoning / ratio)),
        )


@dataclass(frozen=True, slots=True)
class SharedLengths:
    """Prompt, output, and the share of the output that is reasoning, drawn independently."""

    prompt: Distribution  # tokens
    output: Distribution  # tokens, reasoning and answer together
    share: Distribution  # from 0 to 1

    @property
    def longest_output(self) -> int:
        """Maximum of reasoning and answer together, in tokens."""
        return max(2, round(self.output.most))

    def draw(self, rng: random.Random) -> Lengths:
        """Draw the lengths of one request."""
        prompt = round(self.prompt.draw(rng))
        output = round(self.output.draw(rng))
        return divided(prompt, output, output * self.share.draw(rng))


class Mixed:
    """Several sources, each with its share of the requests."""

    def __init__(self, *parts: tuple[float, LengthSource]) -> None:
        """:param parts: weight, above 0, and source."""
        self._sources: Sequence[LengthSource] = [source for _, source in parts]
        self._cumulative = list(accumulate(weight for weight, _ in parts))

    @property
    def longest_output(self) -> int:
        """Maximum of reasoning and answer together, in tokens."""
        return max(source.longest_output for source in self._sources)

    def draw(self, rng: random.Random) -> Lengths:
        """Draw the lengths of one request."""
        (source,) = rng.choices(self._sources, cum_weights=self._cumulative)
        return source.draw(rng)


def divided(prompt: int, output: int, reasoning: float) -> Lengths:
    """A request of whose output ``reasoning`` tokens are reasoning.

    Both phases get at least one token: reasoning ends with the end-of-reasoning token, and a
    request without an answer has no reader. This lengthens an output of less than two tokens.

    :param output: reasoning and answer together, in tokens.
    """
    output = max(2, output)
    thought = max(1, min(output - 1, round(reasoning)))
    return Lengths(prompt=max(1, prompt), reasoning=thought, answer=output - thought)


# Prompts follow quantiles of the benchmark's questions: median 31 tokens, mean 99.
ARENA_HARD = LengthModel(
    prompt_median=31,
    prompt_sigma=1.5,
    reasoning_mean=950,
    reasoning_sigma=0.95,
    answer_mean=824,
    answer_sigma=0.65,
    correlation=0.45,
)

# Spread and correlation are not known, so they are the same. Prompts: median 22 tokens, mean 36.
ALPACA_EVAL = LengthModel(
    prompt_median=22,
    prompt_sigma=1.0,
    reasoning_mean=558,
    reasoning_sigma=0.95,
    answer_mean=566,
    answer_sigma=0.65,
    correlation=0.45,
)

# Problems like those of MATH-500 and GPQA. The paper gives only the ratio of reasoning to answer;
# lengths are our choice, for GPQA guided by public measurements of another model.
# Prompts, as in MATH-500: median 50 tokens, mean 71.
MATH_500 = RatioModel(
    prompt_median=50,
    prompt_sigma=0.83,
    reasoning_mean=2200,
    reasoning_sigma=0.8,
    ratio_least=4,
    ratio_most=8,
)
GPQA = RatioModel(
    prompt_median=50,
    prompt_sigma=0.83,
    reasoning_mean=6000,
    reasoning_sigma=0.6,
    ratio_least=4,
    ratio_most=8,
)

REASONING_HEAVY = Mixed((0.5, ARENA_HARD), (0.25, MATH_500), (0.25, GPQA))


def _log_normal(mean: float, sigma: float, z: float) -> float:
    return mean * math.exp(sigma * z - sigma * sigma / 2)


def _clipped(value: float, least: int, most: int) -> int:
    return max(least, min(most, round(value)))
