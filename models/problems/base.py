"""What a problem is, and the few helpers that every family shares.

Pure: standard library only, no clock, no files, no global random state. Every function that draws
takes the `random.Random` to draw from.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

HELD_OUT_OF_256 = 26
"""A problem is held out when the first byte of its key's digest is below this: about one in ten."""

_PREFIXES = (
    "Please tell me: ",
    "Hi! ",
    "Hello, ",
    "Hey, ",
    "Quick question: ",
    "Can you help me? ",
    "Question: ",
    "Can you tell me: ",
    "I need help. ",
    "Hi, ",
    "Ok, ",
    "Please help: ",
)
_SUFFIXES = (
    " Thanks!",
    " Please.",
    " Think step by step.",
    " Show your work.",
    " Thank you.",
    " Explain it.",
    " Explain your steps.",
    " Please explain.",
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One question, the thinking that solves it and the answer in prose.

    `thinking` holds the lines of the think block; only its last line states the result.
    `accept` lists the phrases of which one has to stand in a correct answer (see `is_correct`).
    `key` names the problem whatever its wording, so that training and held-out draws never share
    a problem that differs only in phrasing.
    """

    family: str
    question: str
    thinking: tuple[str, ...]
    answer: str
    expected: str
    accept: tuple[str, ...]
    key: str


def is_held_out(problem: Problem) -> bool:
    """True for the tenth of all problems that training never sees."""
    return hashlib.sha256(problem.key.encode()).digest()[0] < HELD_OUT_OF_256


def result_phrases(value: object) -> tuple[str, ...]:
    """The ways in which an answer states a number as its result."""
    return tuple(
        f"{lead} {value}"
        for lead in ("=", "is", "are", "gives", "get", "makes", "leaves", "equals", "be")
    )


def pick(rng: random.Random, *options: T) -> T:
    """One of the arguments."""
    return options[rng.randrange(len(options))]


def weighted(rng: random.Random, options: Sequence[T], weights: Sequence[float]) -> T:
    """One of `options`, drawn with the given weights."""
    return rng.choices(options, weights)[0]


def number(rng: random.Random, digits: int) -> int:
    """A number with exactly `digits` digits (0 counts as a one-digit number)."""
    return rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)


def spaced(value: int, width: int = 0) -> str:
    """The digits of `value`, zero-padded to `width`, with a space between them."""
    return " ".join(str(value).zfill(width))


def commas(values: Sequence[object]) -> str:
    """The values in a row: "1, 2, 3"."""
    return ", ".join(map(str, values))


def vary(rng: random.Random, question: str) -> str:
    """The same question as different people would type it."""
    draw = rng.random()
    if draw < 0.08:
        return question[0].lower() + question[1:]
    if draw < 0.14:
        return question.rstrip("?.")
    if draw < 0.17:
        return question[0].lower() + question[1:].rstrip("?.")
    if draw < 0.23:
        return rng.choice(_PREFIXES) + question
    if draw < 0.29:
        end = "" if question[-1] in "?." else "."
        return question + end + rng.choice(_SUFFIXES)
    return question
