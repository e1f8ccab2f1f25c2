"""Unit conversion and small word problems."""

from __future__ import annotations

import random
from dataclasses import dataclass

from models.problems.base import Problem, number, pick, result_phrases, vary
from models.problems.steps import add_steps, div_steps, mul_steps, sub_steps
from models.problems.words import word

_UNITS = (
    ("kilometers", "meters", 1000),
    ("meters", "centimeters", 100),
    ("kilograms", "grams", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("weeks", "days", 7),
    ("centimeters", "millimeters", 10),
    ("liters", "milliliters", 1000),
    ("dollars", "cents", 100),
    ("years", "months", 12),
    ("feet", "inches", 12),
    ("days", "hours", 24),
    ("tons", "kilograms", 1000),
    ("yards", "feet", 3),
    ("euros", "cents", 100),
)
_ZEROS = {10: "one zero", 100: "two zeros", 1000: "three zeros"}
NAMES = (
    "Mia",
    "Tom",
    "Ana",
    "Leo",
    "Sara",
    "Omar",
    "Lucy",
    "Ben",
    "Nina",
    "Paul",
    "Ivy",
    "Sam",
    "Zoe",
    "Max",
    "Eva",
    "Raj",
    "Alice",
    "Bob",
    "John",
    "Mary",
    "Anna",
    "Peter",
)
ITEMS = (
    "apples",
    "pens",
    "books",
    "coins",
    "stickers",
    "marbles",
    "cards",
    "cookies",
    "stamps",
    "shells",
    "bricks",
    "tickets",
    "oranges",
    "eggs",
    "pencils",
    "flowers",
    "balls",
    "toys",
)
_HOLDERS = ("boxes", "bags", "shelves", "baskets", "packs", "crates", "rows", "jars")


def _times(n: int, factor: int) -> list[str]:
    """Lines that multiply `n` by the factor between two units."""
    if factor in _ZEROS:
        return [f"Times {factor} puts {_ZEROS[factor]} at the end: {n * factor}."]
    if factor < 10:
        return mul_steps(n, factor)[0]
    if factor == 60:
        lines, part = mul_steps(n, 6)
        return [
            "First times 6, then a zero at the end.",
            *lines,
            f"With a zero at the end: {part * 10}.",
        ]
    lines, part = mul_steps(n, factor % 10)
    tens, high = factor // 10, n * (factor // 10) * 10
    head = [
        f"Times {factor} is times {tens * 10} plus times {factor % 10}.",
        f"{n} x {tens * 10} = {high}.",
    ]
    return [*head, *lines, *add_steps(high, part)[0]]


def units(rng: random.Random) -> Problem:
    big, small, factor = rng.choice(_UNITS)
    n = rng.randint(2, 60) if factor in (3, 7, 12, 24, 60) else rng.randint(2, 250)
    if rng.random() < 0.25 and factor not in (12, 24):
        return _to_larger_unit(rng, n, big, small, factor)
    r = n * factor
    question = pick(
        rng,
        f"How many {small} are in {n} {big}?",
        f"Convert {n} {big} to {small}.",
        f"{n} {big} in {small}?",
        f"What is {n} {big} in {small}?",
        f"How many {small} are there in {n} {big}?",
        f"Change {n} {big} into {small}.",
        f"{n} {big} to {small}",
    )
    thinking = (
        f"I need to turn {n} {big} into {small}.",
        f"One of them is {factor} {small}. So {n} x {factor}.",
        *_times(n, factor),
        f"So it is {r} {small}.",
    )
    answer = pick(
        rng,
        f"{n} {big} is {r} {small}.\n\nThe rule is simple: each unit holds {factor} {small}, so you "
        f"multiply {n} by {factor} to change {big} into {small}. To go the other way, you would divide "
        f"{r} by {factor}.",
        f"There are {r} {small} in {n} {big}.\n\nTo convert {big} into {small}, multiply by {factor}. "
        f"Here that means {n} times {factor}, and the result of that is {r} {small}.",
    )
    return Problem(
        "units",
        vary(rng, question),
        thinking,
        answer,
        str(r),
        (*result_phrases(r), f"{r} {small}"),
        f"units {n} {big} {small}",
    )


def _to_larger_unit(rng: random.Random, n: int, big: str, small: str, factor: int) -> Problem:
    """The way back, from the smaller to the larger unit, where it comes out even."""
    total = n * factor
    question = pick(
        rng,
        f"How many {big} are {total} {small}?",
        f"Convert {total} {small} to {big}.",
        f"{total} {small} in {big}?",
        f"What is {total} {small} in {big}?",
        f"Change {total} {small} into {big}.",
    )
    if factor in _ZEROS:
        lines = [f"Divided by {factor} takes {_ZEROS[factor]} from the end: {n}."]
    elif factor == 60:
        lines = [
            f"First take a zero from the end: {n * 6}. Then divide by 6.",
            *div_steps(n * 6, 6)[0],
        ]
    else:
        lines = div_steps(total, factor)[0]
    thinking = (
        f"I need to turn {total} {small} into {big}.",
        f"One of the {big} is {factor} {small}. So {total} / {factor}.",
        *lines,
        f"So it is {n} {big}.",
    )
    answer = (
        f"{total} {small} is {n} {big}.\n\nIt takes {factor} {small} to make one of the {big}, so you "
        f"divide {total} by {factor}. To go the other way, you would multiply {n} by {factor}."
    )
    return Problem(
        "units",
        vary(rng, question),
        thinking,
        answer,
        str(n),
        (*result_phrases(n), f"{n} {big}"),
        f"units {n} {big} {small}",
    )


@dataclass(frozen=True, slots=True)
class _Cast:
    """The person and the objects of a word problem."""

    a: str
    b: str
    item: str
    holder: str


def _more(rng: random.Random, c: _Cast) -> tuple[str, list[str], int, str]:
    x, y = number(rng, pick(rng, 1, 2, 3)) + 2, number(rng, pick(rng, 1, 2)) + 2
    question = pick(
        rng,
        f"{c.a} has {x} {c.item}. {c.b} gives {c.a} {y} more. How many {c.item} does {c.a} have now?",
        f"{c.a} collected {x} {c.item} in the morning and {y} {c.item} in the evening. How many {c.item} "
        "is that in total?",
        f"There are {x} {c.item} in a box and {y} {c.item} on the table. How many {c.item} are there "
        "altogether?",
        f"{c.a} has {x} {c.item} and buys {y} more. How many {c.item} does {c.a} have?",
        f"{c.a} has {x} {c.item} and {c.b} has {y}. How many {c.item} do they have together?",
    )
    lines, r = add_steps(x, y)
    return (
        question,
        [f"The amounts are put together, so this is addition: {x} + {y}.", *lines],
        r,
        (f"the two amounts are put together, so {x} and {y} have to be added"),
    )


def _less(rng: random.Random, c: _Cast) -> tuple[str, list[str], int, str]:
    x = number(rng, pick(rng, 1, 2, 3)) + 5
    y = rng.randint(2, x - 1)
    question = pick(
        rng,
        f"{c.a} has {x} {c.item} and gives {y} of them to {c.b}. How many {c.item} are left?",
        f"There were {x} {c.item} in the shop. {y} of them were sold. How many {c.item} remain?",
        f"{c.a} had {x} {c.item} but lost {y}. How many {c.item} does {c.a} still have?",
        f"{c.a} has {x} {c.item} and uses {y}. How many {c.item} are left?",
        f"{c.a} has {x} {c.item}. {c.b} takes {y} of them. How many {c.item} does {c.a} have left?",
    )
    lines, r = sub_steps(x, y)
    return (
        question,
        [f"Some are taken away, so this is subtraction: {x} - {y}.", *lines],
        r,
        (f"some of them are taken away, so {y} has to be subtracted from {x}"),
    )


def _groups(rng: random.Random, c: _Cast) -> tuple[str, list[str], int, str]:
    x, m = rng.randint(3, 199), rng.randint(2, 9)
    question = pick(
        rng,
        f"{c.a} has {m} {c.holder} with {x} {c.item} in each. How many {c.item} are there in total?",
        f"Each of {m} {c.holder} holds {x} {c.item}. How many {c.item} is that?",
        f"There are {m} {c.holder} of {x} {c.item} each. How many {c.item} are there?",
        f"{c.a} buys {m} {c.holder} of {x} {c.item}. How many {c.item} does {c.a} have?",
    )
    lines, r = mul_steps(x, m)
    return (
        question,
        [f"There are equal groups, so this is multiplication: {x} x {m}.", *lines],
        r,
        (f"there are {m} equal groups of {x}, so the numbers have to be multiplied"),
    )


def _groups_and(rng: random.Random, c: _Cast) -> tuple[str, list[str], int, str]:
    x, m, more = rng.randint(3, 99), rng.randint(2, 9), rng.random() < 0.5
    y = rng.randint(2, 99) if more else rng.randint(2, x)
    if more:
        question = pick(
            rng,
            f"{c.a} has {m} {c.holder} with {x} {c.item} in each and then finds {y} more {c.item}. "
            f"How many {c.item} does {c.a} have?",
            f"A shop gets {m} {c.holder} of {x} {c.item} each and already has {y} {c.item}. How many "
            f"{c.item} are there in total?",
        )
    else:
        question = pick(
            rng,
            f"{c.a} has {m} {c.holder} with {x} {c.item} in each. {c.a} gives {y} {c.item} to {c.b}. "
            f"How many {c.item} are left?",
            f"A shop gets {m} {c.holder} of {x} {c.item} each and sells {y} {c.item}. How many {c.item} "
            "remain?",
        )
    product, p = mul_steps(x, m)
    lines, r = (add_steps if more else sub_steps)(p, y)
    verb, sign = ("add", "+") if more else ("take away", "-")
    head = f"First the groups: {x} x {m}. Then {verb} {y}."
    past = "more have to be added" if more else "have to be taken away"
    return (
        question,
        [head, *product, f"Now {p} {sign} {y}.", *lines],
        r,
        (f"{m} groups of {x} make {p}, and then {y} {past}"),
    )


def _share(rng: random.Random, c: _Cast) -> tuple[str, list[str], int, str]:
    m, each = rng.randint(2, 9), rng.randint(3, 90)
    x = m * each
    question = pick(
        rng,
        f"{c.a} shares {x} {c.item} equally between {m} friends. How many {c.item} does each friend get?",
        f"{x} {c.item} are packed into {m} {c.holder} equally. How many {c.item} are in each?",
        f"{c.a} puts {x} {c.item} into {m} {c.holder}, the same number in each. How many {c.item} are in each?",
    )
    lines, (r, _) = div_steps(x, m)
    return (
        question,
        [f"Equal sharing, so this is division: {x} / {m}.", *lines],
        r,
        (f"the total of {x} is shared into {m} equal parts, so it has to be divided"),
    )


def stories(rng: random.Random) -> Problem:
    a, b = rng.sample(NAMES, 2)
    item = rng.choice(ITEMS) if rng.random() < 0.85 else word(rng, 8) + "s"
    cast = _Cast(a, b, item, rng.choice(_HOLDERS))
    question, lines, r, how = pick(rng, _more, _less, _groups, _groups_and, _groups_and, _share)(
        rng, cast
    )
    answer = pick(
        rng,
        f"The answer is {r} {item}.\n\nThe key step is to see that {how}. Working it out digit by digit "
        f"gives {r}.",
        f"{r} {item}.\n\nHere is the idea: {how}. After doing the calculation step by step, the result is "
        f"{r} {item}.",
    )
    thinking = (*lines, f"So the answer is {r} {item}.")
    return Problem(
        "stories",
        vary(rng, question),
        thinking,
        answer,
        str(r),
        (*result_phrases(r), f"{r} {item}"),
        f"story {lines[0]}",
    )
