"""The synthetic problems of the embedded model, by family.

    from models.problems import FAMILIES, generate, is_correct

`generate(family, rng)` draws one problem; the same `random.Random` state gives the same problem.
`is_correct(problem, answer)` judges the text of an answer, with or without its think block.

One problem in ten is held out, by the digest of its key: its numbers or its word, never its
wording. `generate(..., split="train")` never returns those, `split="held_out"` returns only those.
The load generator draws from all problems.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Literal

from models.problems.arithmetic import addition, division, multiplication, subtraction, sums
from models.problems.base import Problem, is_held_out
from models.problems.chat import chat
from models.problems.numbers import comparison, parity, sequences, sorting
from models.problems.stories import stories, units
from models.problems.words import letters, spelling

Split = Literal["any", "train", "held_out"]

_GENERATORS: dict[str, Callable[[random.Random], Problem]] = {
    "addition": addition,
    "subtraction": subtraction,
    "multiplication": multiplication,
    "division": division,
    "sums": sums,
    "comparison": comparison,
    "sorting": sorting,
    "parity": parity,
    "sequences": sequences,
    "units": units,
    "stories": stories,
    "letters": letters,
    "spelling": spelling,
    "chat": chat,
}

FAMILIES: tuple[str, ...] = tuple(_GENERATORS)
"""The names of all families, in the order in which tables print them."""


def generate(family: str, rng: random.Random, split: Split = "any") -> Problem:
    """One problem of the family. Raises `ValueError` for an unknown family."""
    if family not in _GENERATORS:
        raise ValueError(f"unknown family {family!r}; there are {', '.join(FAMILIES)}")
    while True:
        problem = _GENERATORS[family](rng)
        if split == "any" or is_held_out(problem) == (split == "held_out"):
            return problem


def is_correct(problem: Problem, answer: str) -> bool:
    """True when the answer states the expected result.

    One of the problem's accepted phrases has to stand in the first paragraph or in one of the last
    two, as whole words: "is 12" is not found in "is 312" nor in "is 12.5". Emphasis marks and
    thousands separators do not matter.
    """
    text = answer.rsplit("</think>", 1)[-1].replace("<|im_end|>", "").replace("*", "").strip()
    paragraphs = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text).split("\n\n")
    judged = "\n\n".join(dict.fromkeys((paragraphs[0], *paragraphs[-2:])))
    return any(
        re.search(rf"(?<![\w.-]){re.escape(phrase)}(?!\w|[.]\d)", judged, re.IGNORECASE) is not None
        for phrase in problem.accept
    )


__all__ = ["FAMILIES", "Problem", "Split", "generate", "is_correct", "is_held_out"]
