"""What an emulated device generates: readable text of a given length, token by token.

Decides the lengths of a request's phases, and the token at each position of its output. Pure: knows
no engine and no clock; random only by a seed. A token depends on its position alone, so a request
that is preempted, or goes on elsewhere, continues with the same text.
"""

from __future__ import annotations

import hashlib
import math
import random
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.policy.phase import Phase, ThinkMarkers

THOUGHT = (
    "Let me think about this step by step. First I look at what is given, then at what is asked. "
    "I take the numbers one by one and check each step. Is that right? Yes, it is.\n"
)
ANSWER = (
    "This text is a script, not the answer of a model: the device is emulated, and only its time "
    "is real. The engine, its memory and the order of the requests are real too.\n"
)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Lengths in tokens, at least 1."""

    mean: float
    sigma: float  # of the logarithm

    def draw(self, rng: random.Random) -> int:
        """One length."""
        mu = math.log(self.mean) - self.sigma**2 / 2
        return max(1, round(rng.lognormvariate(mu, self.sigma)))


# For requests without lengths: those of Arena-Hard on the 32B model, by the paper's means.
REASONING_LENGTHS = LogNormal(mean=950.0, sigma=0.95)
ANSWER_LENGTHS = LogNormal(mean=824.0, sigma=0.65)


@dataclass(frozen=True, slots=True)
class Words:
    """Token ids of the texts, which repeat without end, and of the signs between them."""

    thought: tuple[int, ...]
    answer: tuple[int, ...]
    markers: ThinkMarkers | None  # None: the model does not think
    end_of_turn: int

    @classmethod
    def of(
        cls,
        encode: Callable[[str], Sequence[int]],
        markers: ThinkMarkers | None,
        end_of_turn: int,
    ) -> Words:
        """:param encode: text to token ids, without special tokens."""
        return cls(tuple(encode(THOUGHT)), tuple(encode(ANSWER)), markers, end_of_turn)


@dataclass(frozen=True, slots=True)
class Script:
    """The output of one request. Places count from the first token it ever generated."""

    words: Words
    known: int  # tokens generated elsewhere, before the request came here
    reasoning: int  # tokens up to and including the end-of-thinking token
    answer: int | None  # tokens including the end of the turn; None: the engine will stop it

    def token(self, index: int) -> int:
        """:param index: of the output generated here, from 0."""
        place = self.known + index
        words = self.words
        if place < self.reasoning:
            assert words.markers is not None
            if place == self.reasoning - 1:
                return words.markers.end
            if words.markers.start is None:
                return words.thought[place % len(words.thought)]
            if place == 0:
                return words.markers.start
            return words.thought[(place - 1) % len(words.thought)]
        place -= self.reasoning
        if self.answer is not None and place + 1 >= self.answer:
            return words.end_of_turn
        return words.answer[place % len(words.answer)]


def script_of(words: Words, prompt: Sequence[int], told: Mapping[str, Any], seed: int) -> Script:
    """The script of a request: with the lengths that it prescribes, or else drawn.

    Drawn lengths are a function of seed and prompt: who asks the same again gets as much again. A
    thinking budget cuts the thoughts; an answer is cut by the engine, at ``max_tokens``.

    :param prompt: token ids; ends with the known output.
    :param told: what `workers.engine.sampling.extra_args` says about the request; may be empty.
    """
    known = told.get("known_tokens", 0)
    split = len(prompt) - known
    starts = Phase(told.get("phase", Phase.REASONING))
    if words.markers is None or (starts is Phase.ANSWERING and not known):
        before = 0
    elif starts is Phase.REASONING:
        before = known
    else:  # the known output has its boundary in it, if it had thoughts at all
        tail = list(prompt[split:])
        before = tail.index(words.markers.end) + 1 if words.markers.end in tail else 0
    thinks = words.markers is not None and starts is Phase.REASONING
    if "forced_answer" in told:
        return Script(words, known, before + (told["forced_reasoning"] if thinks else 0), None)
    rng = random.Random(seed_of(prompt[:split], seed))
    reasoning, answer = REASONING_LENGTHS.draw(rng), ANSWER_LENGTHS.draw(rng)
    if thinks:
        budget = told.get("thinking_budget")
        left = max(1, reasoning - known)  # past its end, the boundary comes as soon as it can
        before += left if budget is None else min(left, budget)
    return Script(words, known, before, answer)


def seed_of(prompt: Sequence[int], seed: int) -> int:
    """The same number in every process and run."""
    digest = hashlib.blake2b(array("q", (seed, *prompt)).tobytes(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
