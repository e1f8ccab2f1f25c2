"""Addition, subtraction, multiplication, division and sums of several numbers."""

from __future__ import annotations

import random

from models.problems.base import Problem, commas, number, pick, result_phrases, vary, weighted
from models.problems.steps import add_steps, div_steps, long_mul_steps, mul_steps, sub_steps

_DIGITS = (1, 2, 3, 4, 5, 6)
_DIGIT_WEIGHTS = (1, 4, 10, 5, 2, 2)


def _operands(rng: random.Random) -> tuple[int, int]:
    """Two numbers of similar length, mostly of three digits, sometimes of up to six."""
    digits = weighted(rng, _DIGITS, _DIGIT_WEIGHTS)
    a = number(rng, digits)
    b = number(rng, pick(rng, digits, digits, max(1, digits - 1), rng.randint(1, digits)))
    return (a, b) if rng.random() < 0.5 else (b, a)


def _written(rng: random.Random, value: int) -> str:
    """A number as it may stand in a question: long ones sometimes with a comma."""
    return f"{value:,}" if value > 999 and rng.random() < 0.08 else str(value)


def addition(rng: random.Random) -> Problem:
    a, b = _operands(rng)
    x, y = _written(rng, a), _written(rng, b)
    question = pick(
        rng,
        f"What is {x} + {y}?",
        f"{x} + {y}",
        f"{x}+{y}",
        f"{x}+{y}=?",
        f"{x} + {y} =",
        f"Add {x} and {y}.",
        f"Compute {x} + {y}.",
        f"Please calculate the sum of {x} and {y}.",
        f"What do you get when you add {x} to {y}?",
        f"How much is {x} plus {y}?",
        f"Calculate {x}+{y}.",
        f"What is {x} plus {y}?",
        f"What's {x} + {y}?",
        f"Find the sum of {x} and {y}.",
        f"Solve {x} + {y}.",
        f"{x} plus {y}",
    )
    lines, r = add_steps(a, b)
    answer = pick(
        rng,
        f"{a} + {b} = {r}.\n\nI added the numbers column by column, starting with the ones and "
        f"carrying to the next column whenever a column reached ten. You can check it backwards: "
        f"{r} minus {b} gives {a} again.",
        f"The sum of {a} and {b} is {r}.\n\nTo get there I lined up the digits, added each column "
        f"from right to left, and carried where it was needed. So {a} plus {b} makes {r}.",
        f"The answer is {r}.\n\nHere is how: write {a} above {b}, add the ones column first, then "
        f"move left one column at a time and carry any ten to the next column. The result is "
        f"{a} + {b} = {r}.",
    )
    thinking = (f"I need to add {a} and {b}.", *lines)
    return Problem(
        "addition", vary(rng, question), thinking, answer, str(r), result_phrases(r), f"add {a} {b}"
    )


def subtraction(rng: random.Random) -> Problem:
    a, b = _operands(rng)
    if a < b and rng.random() < 0.92:
        a, b = b, a
    x, y = _written(rng, a), _written(rng, b)
    question = pick(
        rng,
        f"What is {x} - {y}?",
        f"{x} - {y}",
        f"{x}-{y}",
        f"{x}-{y}=?",
        f"{x} - {y} =",
        f"Subtract {y} from {x}.",
        f"Compute {x} - {y}.",
        f"What is {x} minus {y}?",
        f"How much is {x} minus {y}?",
        f"Take {y} away from {x}.",
        f"Calculate {x}-{y}.",
        f"What's {x} - {y}?",
        f"Solve {x} - {y}.",
        f"{x} minus {y}",
        f"What is left when you take {y} from {x}?",
    )
    thinking = [f"I need to subtract {b} from {a}."]
    r = a - b
    if r >= 0:
        thinking += sub_steps(a, b)[0]
    else:
        lines, size = sub_steps(b, a)
        thinking += [f"{a} is smaller than {b}, so the result is below zero. First {b} - {a}."]
        thinking += [*lines, f"With the minus sign: {a} - {b} = -{size}."]
    answer = pick(
        rng,
        f"{a} - {b} = {r}.\n\nI subtracted column by column from right to left and borrowed ten "
        f"from the next column whenever the top digit was too small. You can check it by adding: "
        f"{r} plus {b} gives {a}.",
        f"The difference is {r}.\n\nStarting from the ones column, I took away the digits one "
        f"column at a time and borrowed from the next one where it was needed. So {a} minus {b} leaves {r}.",
        f"The answer is {r}.\n\nHere is how: write one number above the other, subtract the ones "
        f"column first, then move left and borrow from the next column when a digit is too small. "
        f"The result is {a} - {b} = {r}.",
    )
    return Problem(
        "subtraction",
        vary(rng, question),
        tuple(thinking),
        answer,
        str(r),
        result_phrases(r),
        f"sub {a} {b}",
    )


def multiplication(rng: random.Random) -> Problem:
    digits = weighted(rng, (1, 2, 3, 4), (1, 4, 4, 1))
    long = digits <= 2 and rng.random() < 0.3
    a, m = (
        max(2, number(rng, 2 if long else digits)),
        rng.randint(11 if long else 2, 99 if long else 9),
    )
    x, y = (m, a) if rng.random() < 0.3 else (a, m)
    question = pick(
        rng,
        f"What is {x} x {y}?",
        f"{x} * {y}",
        f"{x}*{y}",
        f"{x}*{y}=?",
        f"{x} x {y}",
        f"Multiply {x} by {y}.",
        f"Compute {x} x {y}.",
        f"What is {x} times {y}?",
        f"Find the product of {x} and {y}.",
        f"Calculate {x}*{y}.",
        f"How much is {x} times {y}?",
        f"What's {x} x {y}?",
        f"{x} times {y}",
        f"Multiply {x} and {y}.",
    )
    lines, r = long_mul_steps(a, m) if long else mul_steps(a, m)
    answer = pick(
        rng,
        f"{x} x {y} = {r}.\n\nI multiplied the digits one at a time, starting with the ones, and "
        f"carried the tens to the next digit. Putting all the digits together at the end gives {r}.",
        f"The product of {x} and {y} is {r}.\n\nYou can think of it as {m} groups with {a} in each "
        f"group. Multiplying digit by digit and carrying along the way gives {r} in total.",
        f"The answer is {r}.\n\nHere is how: take the digits from right to left, multiply each one, "
        f"add the carry from the step before, and write down the last digit each time. "
        f"That gives {x} x {y} = {r}.",
    )
    thinking = (f"I need to multiply {a} by {m}.", *lines)
    return Problem(
        "multiplication",
        vary(rng, question),
        thinking,
        answer,
        str(r),
        result_phrases(r),
        f"mul {a} {m}",
    )


def division(rng: random.Random) -> Problem:
    d, a = rng.randint(2, 9), number(rng, weighted(rng, (2, 3, 4), (3, 5, 1)))
    if rng.random() < 0.25:
        a -= a % d
    question = pick(
        rng,
        f"What is {a} / {d}?",
        f"{a} / {d}",
        f"{a}/{d}",
        f"{a}/{d}=?",
        f"Divide {a} by {d}.",
        f"What is {a} divided by {d}?",
        f"How many times does {d} go into {a}?",
        f"Calculate {a}/{d}.",
        f"Compute {a} / {d}.",
        f"{a} divided by {d}",
        f"What is the remainder when {a} is divided by {d}?",
        f"What's {a} / {d}?",
    )
    lines, (q, rest) = div_steps(a, d)
    result = str(q) if rest == 0 else f"{q} remainder {rest}"
    tail = "There is nothing left over." if rest == 0 else f"That leaves a remainder of {rest}."
    answer = pick(
        rng,
        f"{a} divided by {d} is {result}.\n\nI used long division: bring down the digits of {a} one "
        f"at a time, see how many times {d} fits, and carry what is left to the next digit. {tail}",
        f"The answer is {result}.\n\nIn other words, {d} fits into {a} exactly {q} times. {tail} "
        f"You can check it by multiplying {q} by {d} and adding {rest}, which gives {a}.",
    )
    thinking = (f"I need to divide {a} by {d}.", *lines)
    return Problem(
        "division",
        vary(rng, question),
        thinking,
        answer,
        result,
        result_phrases(result),
        f"div {a} {d}",
    )


def sums(rng: random.Random) -> Problem:
    values = [
        number(rng, pick(rng, 1, 2, 2, 3)) for _ in range(weighted(rng, (3, 4, 5), (4, 3, 2)))
    ]
    plus, row, n = " + ".join(map(str, values)), commas(values), len(values)
    question = pick(
        rng,
        f"What is {plus}?",
        plus,
        plus.replace(" ", ""),
        f"Add up these numbers: {row}",
        f"What is the sum of {row}?",
        f"Compute {plus}.",
        f"Add {row}.",
        f"What is the total of {row}?",
        f"Calculate {plus}.",
        f"Find the total: {row}",
    )
    thinking = [f"I need to add {n} numbers: {row}.", f"Start with {values[0]}."]
    total, parts = values[0], []
    for value in values[1:]:
        lines, after = add_steps(total, value)
        thinking += [f"Next {total} + {value}.", *lines]
        parts.append(f"{total} + {value} = {after}")
        total = after
    thinking.append(f"All {n} numbers are added. The total is {total}.")
    answer = (
        f"The total is {total}.\n\nI added the numbers one after another: {', then '.join(parts)}. "
        f"So the sum of all {n} numbers is {total}."
    )
    return Problem(
        "sums",
        vary(rng, question),
        tuple(thinking),
        answer,
        str(total),
        result_phrases(total),
        f"sums {row}",
    )
