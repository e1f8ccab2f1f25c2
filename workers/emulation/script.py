"""The output of an emulated device: readable text of a given length, token by token.

Decides the lengths of a request's phases, the token at each position of its output, and whether it
calls a tool. Pure: knows
neither engine nor clock, and its random numbers depend on a seed only. A token depends only on its
position, so a request that is preempted or moved continues with the same text.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from workers.emulation.calls import Encode, drawn_calls
from workers.emulation.instances import NoInstance, instance_of
from workers.messages import Structure, ToolChoice
from workers.policy.phase import Ids, Markers, Phase

THOUGHT = (
    "Let me think about this step by step. First I look at what is given, then at what is asked. "
    "I take the numbers one by one and check each step. Is that right? Yes, it is.\n"
)
ANSWER = (
    "This text is a script, not the answer of a model: the device is emulated, and only its time "
    "is real. The engine, its memory and the order of the requests are real too.\n"
)

_ANY_OBJECT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


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
    """Token ids of the two texts, which repeat, and what else a script consists of."""

    thought: tuple[int, ...]
    answer: tuple[int, ...]
    markers: Markers | None  # None if the model neither thinks nor calls
    end_of_turn: int
    encode: Encode

    @classmethod
    def of(cls, encode: Encode, markers: Markers | None, end_of_turn: int) -> Words:
        """:param encode: text to token ids, without special tokens."""
        return cls(tuple(encode(THOUGHT)), tuple(encode(ANSWER)), markers, end_of_turn, encode)

    @property
    def opening(self) -> Ids:
        """Tokens that open the thoughts; none: the prompt does."""
        return self.markers.opening_ids if self.markers else ()

    @property
    def closing(self) -> Ids:
        """Tokens that end the thoughts; none: the model does not think."""
        return self.markers.closing_ids if self.markers else ()


@dataclass(frozen=True, slots=True)
class Script:
    """The output of one request: thoughts, an answer, a tail.

    Places count from its first output token, whichever engine generated that.
    """

    words: Words
    known: int  # output tokens of earlier engines
    reasoning: int  # tokens up to and including those that end the thoughts
    tail_at: int | None  # where the tail begins; None: the engine ends the answer
    tail: Ids = ()  # a call, or an answer of a given form; the turn ends behind it

    def token(self, index: int) -> int:
        """:param index: of the output generated here, from 0."""
        place = self.known + index
        words = self.words
        if place < self.reasoning:
            opening, closing = words.opening, words.closing
            if place >= self.reasoning - len(closing):
                return closing[place - self.reasoning]
            if place < len(opening):
                return opening[place]
            return words.thought[(place - len(opening)) % len(words.thought)]
        if self.tail_at is None or place < self.tail_at:
            return words.answer[(place - self.reasoning) % len(words.answer)]
        place -= self.tail_at
        return self.tail[place] if place < len(self.tail) else words.end_of_turn


def script_of(words: Words, prompt: Sequence[int], facts: Mapping[str, Any], seed: int) -> Script:
    """Make the script of a request, with its forced lengths or else with drawn ones.

    What is drawn depends on seed and prompt only, so equal prompts get equal scripts. A thinking
    budget cuts the thoughts. A request with tools calls them in most of its turns, and always
    where it must; one with a JSON schema gets a value that fits. The engine cuts the output at
    ``max_tokens``.

    :param prompt: token ids; ends with the known output.
    :param facts: facts about the request from `workers.engine.sampling.extra_args` and
        `script_facts`; may be empty.
    """
    known = facts.get("known_tokens", 0)
    split = len(prompt) - known
    starts = Phase(facts.get("phase", Phase.REASONING))
    thinks = bool(words.closing) and starts is Phase.REASONING
    before = known if thinks else _thoughts(words.closing, prompt[split:])
    if "forced_answer" in facts:
        call = tuple(facts.get("forced_call", ()))
        left = facts["forced_reasoning"] if thinks else 0
        tail_at = known + left + facts["forced_answer"] if call else None
        return Script(words, known, before + left, tail_at, call)
    rng = random.Random(seed_of(prompt[:split], seed))
    reasoning, answer = REASONING_LENGTHS.draw(rng), ANSWER_LENGTHS.draw(rng)
    if thinks:
        budget = facts.get("thinking_budget")
        # If the known output is longer, the end comes next.
        left = max(len(words.closing), reasoning - known)
        before += left if budget is None else min(left, budget)
    text = written(facts, rng)
    tail = tuple(words.encode(text)) if text else ()
    return Script(words, known, before, before + (0 if text else answer - 1), tail)


def script_facts(
    tools: Sequence[Mapping[str, Any]], choice: ToolChoice | None, structure: Structure | None
) -> dict[str, Any]:
    """What a script needs to know about a request beyond the facts for a real engine."""
    facts: dict[str, Any] = {}
    if tools:
        facts |= {"tools": list(tools), "tool_choice": choice or ToolChoice()}
    if structure is not None:
        facts["structure"] = structure
    return facts


def written(facts: Mapping[str, Any], rng: random.Random) -> str:
    """The call, or the answer of the form that was asked for; empty: words without a form.

    Does not follow a regular expression or a grammar.
    """
    structure: Structure | None = facts.get("structure")
    choice: ToolChoice = facts.get("tool_choice", ToolChoice())
    # A schema for a request that must call a tool describes the calls: they are the answer.
    if structure is None or structure.kind != "json" or choice.mode != "required":
        text = drawn_calls(facts.get("tools", ()), choice, rng)
        if text or structure is None:
            return text
    if structure.kind == "structural_tag" and isinstance(structure.value, Mapping):
        structure = msgspec.convert(structure.value["answer"], Structure)
    match structure.kind:
        case "choice":
            return str(rng.choice(list(structure.value)))
        case "json" | "json_object":
            schema = structure.value if structure.kind == "json" else _ANY_OBJECT
            if isinstance(schema, str):
                schema = json.loads(schema)
            try:
                return json.dumps(instance_of(schema, rng), ensure_ascii=False)
            except NoInstance:
                return ""
        case _:
            return ""


def _thoughts(closing: Ids, known: Sequence[int]) -> int:
    """Tokens of the thoughts in known output whose thoughts have ended, if it had any."""
    length = len(closing)
    for end in range(length, len(known) + 1):
        if length and tuple(known[end - length : end]) == closing:
            return end
    return 0


def seed_of(prompt: Sequence[int], seed: int) -> int:
    """A number from prompt and seed that is the same in every process and run."""
    digest = hashlib.blake2b(array("q", (seed, *prompt)).tobytes(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
