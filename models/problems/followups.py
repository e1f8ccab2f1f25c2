"""Questions about the result of the turn before: "Add 5 to that."."""

from __future__ import annotations

import random

from models.problems.base import Problem, number, pick, result_phrases
from models.problems.steps import add_steps, mul_steps, sub_steps

LARGEST = 99_999
"""The largest result that a follow-up refers to."""


def follow_up(rng: random.Random, value: int) -> Problem | None:
    """A follow-up on `value`, or none when the value is too large to go on with."""
    if not 0 < value <= LARGEST:
        return None
    sign = pick(rng, "+", "+", "-", "-", "*")
    n = number(rng, pick(rng, 1, 2, 3)) + 1
    if sign == "-":
        n = min(n, rng.randint(1, value))
    if sign == "*":
        n = rng.randint(2, 9)
    question = pick(
        rng,
        *{
            "+": (f"Add {n} to that.", f"Now add {n}.", f"What is that plus {n}?", f"Plus {n}?"),
            "-": (
                f"Subtract {n} from that.",
                f"Now subtract {n}.",
                f"What is that minus {n}?",
                f"Minus {n}?",
            ),
            "*": (f"Multiply that by {n}.", f"Now multiply it by {n}.", f"What is that times {n}?"),
        }[sign],
    )
    lines, result = {"+": add_steps, "-": sub_steps, "*": mul_steps}[sign](value, n)
    shown = "x" if sign == "*" else sign
    thinking = (
        f"The last result is {value}.",
        f"I need to calculate {value} {shown} {n}.",
        *lines,
    )
    answer = pick(
        rng,
        f"{value} {shown} {n} = {result}.\n\nI took the last result, {value}, and went on from there "
        "digit by digit.",
        f"That makes {result}.\n\nThe last result was {value}, so this is {value} {shown} {n} = "
        f"{result}.",
    )
    return Problem(
        "follow-up", question, thinking, answer, str(result), result_phrases(result),
        f"follow {value} {sign} {n}",
    )  # fmt: skip
