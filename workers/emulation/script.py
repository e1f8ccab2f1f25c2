"""The output of an emulated device: readable text of a given length, token by token.

Decides the lengths of a request's phases, and the token at each position of its output. Pure: knows
neither engine nor clock, and its random numbers depend on a seed only. A token depends only on its
position, so a request that is preempted or moved continues with the same text.
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
    """A log-normal distribution of lengths, in tokens; at least 1."""

    mean: float  # of the lengths
    sigma: float  # standard deviation of their logarithms

    def draw(self, rng: random.Random) -> int:
        """Draw one length."""
        mu = math.log(self.mean) - self.sigma**2 / 2
        return max(1, round(rng.lognormvariate(mu, self.sigma)))


# For requests without forced lengths. The means are the paper's for Arena-Hard on the 32B model.
REASONING_LENGTHS = LogNormal(mean=950.0, sigma=0.95)
ANSWER_LENGTHS = LogNormal(mean=824.0, sigma=0.65)


@dataclass(frozen=True, slots=True)
class Words:
    """Token ids of the two texts, which repeat, and of the markers around them."""

    thought: tuple[int, ...]
    answer: tuple[int, ...]
    markers: ThinkMarkers | None  # None if the model does not think
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
    """The output of one request.

    Lengths count from its first output token, whichever engine generated that.
    """

    words: Words
    known: int  # output tokens of earlier engines
    reasoning: int  # tokens up to and including the end-of-thinking token
    answer: int | None  # tokens up to and including the end of the turn; None: the engine ends it

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


def script_of(words: Words, prompt: Sequence[int], facts: Mapping[str, Any], seed: int) -> Script:
    """Make the script of a request, with its forced lengths or else with drawn ones.

    Drawn lengths depend on seed and prompt only, so equal prompts get equal lengths. A thinking
    budget cuts the thoughts. The engine cuts an answer at ``max_tokens``.

    :param prompt: token ids; ends with the known output.
    :param facts: facts about the request from `workers.engine.sampling.extra_args`; may be empty.
    """
    known = facts.get("known_tokens", 0)
    split = len(prompt) - known
    starts = Phase(facts.get("phase", Phase.REASONING))
    if words.markers is None or (starts is Phase.ANSWERING and not known):
        before = 0
    elif starts is Phase.REASONING:
        before = known
    else:  # the known output contains its boundary if it had thoughts
        tail = list(prompt[split:])
        before = tail.index(words.markers.end) + 1 if words.markers.end in tail else 0
    thinks = words.markers is not None and starts is Phase.REASONING
    if "forced_answer" in facts:
        return Script(words, known, before + (facts["forced_reasoning"] if thinks else 0), None)
    rng = random.Random(seed_of(prompt[:split], seed))
    reasoning, answer = REASONING_LENGTHS.draw(rng), ANSWER_LENGTHS.draw(rng)
    if thinks:
        budget = facts.get("thinking_budget")
        left = max(1, reasoning - known)  # if the known output is longer, the boundary comes next
        before += left if budget is None else min(left, budget)
    return Script(words, known, before, answer)


def seed_of(prompt: Sequence[int], seed: int) -> int:
    """A number from prompt and seed that is the same in every process and run."""
    digest = hashlib.blake2b(array("q", (seed, *prompt)).tobytes(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
