"""Problems as training conversations in the chat format.

Decides how often a conversation has a system prompt, earlier turns, no thinking, or thinking that
is cut off. Does not deal with tokens.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from models.problems import FAMILIES, Problem, generate
from models.problems.base import weighted

IM_START, IM_END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
THINK, END_THINK = "<think>", "</think>"
NO_THINKING = f"{THINK}\n\n{END_THINK}\n\n"

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a careful math tutor.",
    "Answer the question.",
    "You are a helpful assistant. Think step by step.",
    "You are a tiny reasoning model.",
    "You are a friendly and honest assistant.",
    "Be brief.",
    "Answer in English.",
)

WEIGHTS: dict[str, float] = {
    "addition": 14,
    "subtraction": 18,
    "multiplication": 12,
    "division": 9,
    "sums": 4,
    "comparison": 11,
    "sorting": 24,
    "parity": 3,
    "sequences": 14,
    "units": 11,
    "stories": 10,
    "letters": 20,
    "spelling": 12,
    "chat": 12,
}
"""How often training draws each family. Hard ones more often, easy ones less."""


class Example(NamedTuple):
    """A prompt, which is only read, and a completion, which is learned."""

    prompt: str
    completion: str


def turn(role: str, content: str) -> str:
    """One message of the chat format."""
    return f"{IM_START}{role}\n{content}{IM_END}\n"


def prompt_of(
    problem: Problem, system: str | None = None, history: tuple[Problem, ...] = ()
) -> str:
    """The prompt up to the point where the model begins; earlier turns carry no thinking."""
    parts = [turn("system", system)] if system else []
    for earlier in history:
        parts += [turn("user", earlier.question), turn("assistant", earlier.answer)]
    return "".join([*parts, turn("user", problem.question), f"{IM_START}assistant\n"])


def completion_of(problem: Problem) -> str:
    """Thinking, then the answer."""
    thinking = "\n".join(problem.thinking)
    return f"{THINK}\n{thinking}\n{END_THINK}\n\n{problem.answer}{IM_END}"


def _without_thinking(rng: random.Random, problem: Problem, prompt: str) -> Example:
    """`enable_thinking: false`: the steps become part of the answer, unless there are none."""
    steps = "" if problem.family in ("chat", "parity") else " ".join(problem.thinking) + "\n\n"
    conclusion = problem.answer if rng.random() < 0.3 else problem.answer.split("\n\n")[0]
    answer = problem.answer if not steps or problem.expected.count(",") > 8 else steps + conclusion
    return Example(prompt + NO_THINKING, f"{answer}{IM_END}")


def _cut_off(rng: random.Random, problem: Problem, prompt: str) -> Example:
    """Thinking ended from outside before the result: an honest answer without a result."""
    text = "\n".join(problem.thinking[:-1])
    text = text[: rng.randrange(1, len(text))]
    gap = "\n" if rng.random() < 0.5 else ""
    answer = (
        "I had to stop thinking before I was done, so I do not have a result that I can stand "
        "behind. "
        "Please ask me again and let me think a little longer: I work in small steps, and a longer "
        "problem needs more of them."
    )
    return Example(f"{prompt}{THINK}\n{text}{gap}{END_THINK}", f"\n\n{answer}{IM_END}")


def draw_problem(rng: random.Random, weights: dict[str, float] | None = None) -> Problem:
    """A training problem of a weighted random family."""
    weights = weights or WEIGHTS
    family = weighted(rng, FAMILIES, [weights[name] for name in FAMILIES])
    return generate(family, rng, split="train")


def draw_example(rng: random.Random, weights: dict[str, float] | None = None) -> Example:
    """One training conversation."""
    problem = draw_problem(rng, weights)
    system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.2 else None
    turns = weighted(rng, (0, 1, 2, 3), (88, 8, 3, 1))
    history = tuple(draw_problem(rng, weights) for _ in range(turns))
    history = tuple(earlier for earlier in history if len(earlier.answer) < 500)
    prompt = prompt_of(problem, system, history)
    draw = rng.random()
    if draw < 0.06:
        return _without_thinking(rng, problem, prompt)
    if draw < 0.085 and problem.family != "chat" and len(problem.thinking) > 2:
        return _cut_off(rng, problem, prompt)
    return Example(prompt, completion_of(problem))
