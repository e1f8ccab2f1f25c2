"""Comparison, sorting, parity and sequences."""

from __future__ import annotations

import random

from models.problems.base import Problem, commas, number, pick, spaced, vary, weighted
from models.problems.steps import add_steps, mul_steps, sub_steps

_ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth")


def _near(rng: random.Random, a: int) -> int:
    """A number as long as `a` that differs from it in one digit, or not at all."""
    digits = list(str(a))
    place = rng.randrange(len(digits))
    digits[place] = str(rng.randint(1 if place == 0 else 0, 9))
    return int("".join(digits))


def _digit_by_digit(a: int, b: int, a_text: str, b_text: str) -> list[str]:
    """Line up both numbers with zeros in front and compare from the left."""
    width = max(len(str(a)), len(str(b)))
    lines = [f"Line up the digits: {spaced(a, width)} and {spaced(b, width)}."]
    for ordinal, x, y in zip(_ORDINALS, str(a).zfill(width), str(b).zfill(width), strict=False):
        if x == y:
            lines.append(f"{ordinal} digit: {x} and {y}, the same.")
            continue
        which = "first" if x > y else "second"
        lines.append(f"{ordinal} digit: {x} and {y}, the {which} is larger.")
        return [*lines, f"So {a_text if x > y else b_text} is larger."]
    return [*lines, "All digits are the same. The numbers are equal."]


def _pair(rng: random.Random) -> tuple[int, int, str, str, list[str]]:
    """Two numbers to compare: as integers, as text, and the first line about them if any."""
    if rng.random() < 0.15:
        whole = rng.randint(0, 20)
        a_text = f"{whole}.{number(rng, pick(rng, 1, 2))}"
        b_text = f"{pick(rng, whole, whole, rng.randint(0, 20))}.{number(rng, pick(rng, 1, 2))}"
        a_full, b_full = (t if t[-2] != "." else t + "0" for t in (a_text, b_text))
        note = f"With two digits after the point: {a_full} and {b_full}."
        return int(a_full.replace(".", "")), int(b_full.replace(".", "")), a_text, b_text, [note]
    digits = weighted(rng, (1, 2, 3, 4, 5, 6), (1, 3, 5, 4, 1, 1))
    a = number(rng, digits)
    b = _near(rng, a) if rng.random() < 0.45 else number(rng, pick(rng, digits, rng.randint(1, 6)))
    return a, b, str(a), str(b), []


def comparison(rng: random.Random) -> Problem:
    a, b, x, y, note = _pair(rng)
    ask_small = rng.random() < 0.25
    yes_no = not ask_small and rng.random() < 0.2
    if ask_small:
        question = pick(
            rng,
            f"Which is smaller, {x} or {y}?",
            f"Which number is smaller: {x} or {y}?",
            f"Which one is less, {x} or {y}?",
            f"What is the smaller number, {x} or {y}?",
        )
    elif yes_no:
        question = pick(
            rng, f"Is {x} greater than {y}?", f"Is {x} larger than {y}?", f"Is {x} bigger than {y}?"
        )
    else:
        question = pick(
            rng,
            f"Which is larger, {x} or {y}?",
            f"Which number is bigger: {x} or {y}?",
            f"Compare {x} and {y}.",
            f"Which one is greater, {x} or {y}?",
            f"{x} or {y}, which is larger?",
            f"Which is bigger, {x} or {y}?",
            f"What is larger: {x} or {y}?",
        )
    thinking = [f"I need to compare {x} and {y}.", *note, *_digit_by_digit(a, b, x, y)]
    key = f"compare {min(x, y)} {max(x, y)}"
    if a == b:
        answer = (
            f"{x} and {y} are equal.\n\nBoth have the same digits when you line them up and "
            "compare them from left to right, so neither one of the two is larger than the other."
        )
        return Problem(
            "comparison", vary(rng, question), tuple(thinking), answer, "equal", ("equal",), key
        )
    high, low = (x, y) if a > b else (y, x)
    first, relation, second = (low, "smaller", high) if ask_small else (high, "larger", low)
    if ask_small:
        thinking.append(f"The question asks for the smaller one: {low}.")
    lead = ("Yes, " if a > b else "No, ") if yes_no else ""
    answer = f"{lead}{first} is {relation} than {second}.\n\n" + pick(
        rng,
        "I lined up the digits of both numbers and compared them from left to right. The first "
        f"place where they differ decides it. On a number line {high} would be to the right of {low}.",
        "The first digit from the left that differs decides which number is larger, once both are "
        f"written with the same length. That makes {high} the larger number and {low} the smaller one.",
    )
    accept = tuple(f"{high} is {w}" for w in ("larger", "greater", "bigger", "the larger"))
    accept += tuple(f"{low} is {w}" for w in ("smaller", "less", "the smaller"))
    return Problem("comparison", vary(rng, question), tuple(thinking), answer, first, accept, key)


def _side_by_side(a: int, b: int) -> str:
    """The comparison of two numbers: by the number of digits, or by their first digits."""
    x, y = str(a), str(b)
    if len(x) != len(y):
        return f"{len(x)} and {len(y)} digits"
    pairs = []
    for p, q in zip(x, y, strict=True):
        pairs.append(f"{p} and {q}")
        if p != q:
            break
    return ", ".join(pairs)


def _insertion(values: list[int], descending: bool) -> tuple[list[str], list[int]]:
    """Insertion sort in words: each number is held against the list so far, from the left."""
    done = [values[0]]
    lines = [f"Start with {values[0]}. List: {values[0]}."]
    for value in values[1:]:
        checks, place = [], len(done)
        for i, other in enumerate(done):
            before = value > other if descending else value < other
            facts = _side_by_side(value, other)
            checks.append(f"before {other}? {facts}, {'yes' if before else 'no'}.")
            if before:
                place = i
                break
        done.insert(place, value)
        lines.append(f"Put {value}: {' '.join(checks)} List: {commas(done)}.")
    return lines, done


def sorting(rng: random.Random) -> Problem:
    n = weighted(rng, (3, 4, 5, 6, 7), (3, 4, 4, 2, 1))
    widths = pick(rng, (1, 2, 2), (2,), (2,), (2,), (1, 2, 3), (3,))
    values = [number(rng, rng.choice(widths)) for _ in range(n)]
    values = list(dict.fromkeys(values)) if rng.random() < 0.9 else values
    while len(values) < 3:
        values.append(number(rng, 3))
    n, row, descending = len(values), commas(values), rng.random() < 0.3
    order = "from largest to smallest" if descending else "from smallest to largest"
    if descending:
        question = pick(
            rng,
            f"Sort {row} from largest to smallest.",
            f"Arrange {row} in descending order.",
            f"Sort these numbers from largest to smallest: {row}",
            f"Order {row} from high to low.",
            f"Put {row} in order, largest first.",
        )
    else:
        question = pick(
            rng,
            f"Sort these numbers: {row}",
            f"Sort {row} from smallest to largest.",
            f"Sort {row}.",
            f"Put these numbers in order: {row}",
            f"Arrange {row} in ascending order.",
            f"Order {row} from low to high.",
            f"Put {row} in order, smallest first.",
            f"Sort: {row}",
            f"Sort this list: {row}",
        )
    lines, done = _insertion(values, descending)
    out = commas(done)
    thinking = (f"I need to sort {row} {order}.", *lines, f"So the order is: {out}.")
    kind = "descending" if descending else "ascending"
    answer = f"The sorted list is: {out}.\n\n" + pick(
        rng,
        "I took the numbers one at a time and put each of them into its place in the new list, "
        f"comparing it from the left until it fitted. All {n} numbers are in {kind} order now.",
        f"It runs from {done[0]} to {done[-1]}. I put one number after another in front of the first "
        f"number that has to come later, and that gives the {n} numbers in {kind} order.",
    )
    return Problem(
        "sorting",
        vary(rng, question),
        thinking,
        answer,
        out,
        (out,),
        f"sort {commas(sorted(values))}",
    )


def parity(rng: random.Random) -> Problem:
    a = number(rng, rng.randint(1, 6))
    question = pick(
        rng,
        f"Is {a} even or odd?",
        f"Is {a} an even number?",
        f"Is {a} odd?",
        f"Is {a} odd or even?",
        f"Is {a} an odd number?",
        f"Is {a} even?",
        f"Even or odd: {a}?",
        f"Tell me if {a} is even or odd.",
    )
    digit = a % 10
    kind = "odd" if digit % 2 else "even"
    asks_both = " or " in question.lower()
    lead = "" if asks_both else ("Yes, " if kind in question else "No, ")
    row = (
        "1, 3, 5, 7 and 9 are the odd digits"
        if digit % 2
        else "0, 2, 4, 6 and 8 are the even digits"
    )
    thinking = (
        f"I need to look at the last digit of {a}.",
        f"The digits are {spaced(a)}.",
        f"The last digit is {digit}. {digit} is {kind}, so {a} is {kind}.",
    )
    answer = (
        f"{lead}{a} is {kind}.\n\nOnly the last digit matters here. The last digit of {a} is "
        f"{digit}, and {row}, so the whole number is {kind}."
    )
    return Problem(
        "parity", vary(rng, question), thinking, answer, kind, (f"{a} is {kind}",), f"parity {a}"
    )


def _next_term(rng: random.Random) -> Problem:
    start, step, n = rng.randint(1, 80), rng.randint(2, 15), rng.randint(3, 5)
    falling = rng.random() < 0.25
    terms = [start + step * i for i in range(n + 1)]
    terms = terms[::-1] if falling else terms
    shown, last, r = commas(terms[:-1]), terms[-2], terms[-1]
    question = pick(
        rng,
        f"What comes next: {shown}?",
        f"What is the next number: {shown}, ...?",
        f"Continue the sequence: {shown}",
        f"Which number comes next? {shown}",
        f"Find the next number in {shown}.",
    )
    big, small = max(terms[:2]), min(terms[:2])
    word = "smaller" if falling else "larger"
    lines = (sub_steps if falling else add_steps)(last, step)[0]
    sign = "-" if falling else "+"
    thinking = (
        f"I need the next number after {shown}.",
        f"From {terms[0]} to {terms[1]}: {_side_by_side(terms[0], terms[1])}, {word}.",
        f"The step is {big} - {small} = {step}.",
        f"So I need {last} {sign} {step}.",
        *lines,
        f"The next number is {r}.",
    )
    answer = (
        f"The next number is {r}.\n\nEach number in the row is {step} {word} than the one before "
        f"it. The last one is {last}, and {last} {sign} {step} = {r}, so the sequence goes on "
        f"with {r}."
    )
    return Problem(
        "sequences", vary(rng, question), thinking, answer, str(r), (f"is {r}",), f"next {shown}"
    )


def sequences(rng: random.Random) -> Problem:
    draw = rng.random()
    if draw < 0.5:
        return _next_term(rng)
    if draw < 0.8:
        a = rng.randint(0, 89)
        b = a + rng.randint(4, 18)
        out = commas(range(a, b + 1))
        question = pick(
            rng,
            f"Count from {a} to {b}.",
            f"List the numbers from {a} to {b}.",
            f"Write the numbers from {a} to {b}.",
            f"Can you count from {a} to {b}?",
        )
        thinking = (
            f"I need to list every number from {a} to {b}, one at a time.",
            f"I start at {a}, add one each time, and stop at {b}.",
        )
        answer = (
            f"Here are the numbers from {a} to {b}:\n\n{out}.\n\nEach number is one more than the "
            f"number before it. The list starts at {a} and stops at {b}, and no number is left out."
        )
        return Problem(
            "sequences", vary(rng, question), thinking, answer, out, (out,), f"count {a} {b}"
        )
    m = rng.randint(2, 20)
    out = "\n".join(f"{m} x {i} = {m * i}" for i in range(1, 11))
    question = pick(
        rng,
        f"Write the multiplication table of {m}.",
        f"Show me the {m} times table.",
        f"List the first ten multiples of {m}.",
        f"What is the times table of {m}?",
    )
    steps = [f"I need the table of {m} from 1 to 10.", f"Each row adds {m} to the row before."]
    if m > 12:
        steps += mul_steps(m, 9)[0]
    answer = (
        f"Here is the multiplication table of {m}:\n\n{out}\n\nEach row is {m} more than the row "
        "above it."
    )
    return Problem(
        "sequences", vary(rng, question), tuple(steps), answer, out, (out,), f"table {m}"
    )
