"""Written arithmetic, one column per line: the procedures of the model's thinking.

Each function returns the lines and the result. Every line follows from the lines just above it.
Digits are lined up once, the carry stands at the end of the previous line, and the result so far is
repeated with one more digit. So the model never needs anything from far above.
"""

from __future__ import annotations

from models.problems.base import spaced

PLACES = ("Ones", "Tens", "Hundreds", "Thousands", "Ten-thousands", "Hundred-thousands", "Millions")


def add_steps(a: int, b: int) -> tuple[list[str], int]:
    """Column addition of two numbers of at most seven digits."""
    width = max(len(str(a)), len(str(b)))
    lines = [f"Line up the digits: {spaced(a, width)} and {spaced(b, width)}."]
    carry, so_far = 0, ""
    columns = zip(reversed(str(a).zfill(width)), reversed(str(b).zfill(width)), strict=True)
    for place, (x, y) in zip(PLACES, columns, strict=False):
        total = int(x) + int(y) + carry
        terms = f"{x} + {y}" + (f" + {carry}" if so_far else "")
        carry, so_far = total // 10, f"{total % 10}{so_far}"
        lines.append(f"{place}: {terms} = {total}, carry {carry}. So far {so_far}.")
    if carry:
        lines.append(f"The last carry goes to the front: 1{so_far}.")
    lines.append(f"So {a} + {b} = {a + b}.")
    return lines, a + b


def sub_steps(a: int, b: int) -> tuple[list[str], int]:
    """Column subtraction with borrowing; `a` must not be below `b`."""
    if a < b:
        raise ValueError(f"sub_steps needs a >= b, got {a} and {b}")
    width = len(str(a))
    lines = [f"Line up the digits: {spaced(a, width)} and {spaced(b, width)}."]
    borrow, so_far = 0, ""
    columns = zip(reversed(str(a)), reversed(str(b).zfill(width)), strict=True)
    for place, (x, y) in zip(PLACES, columns, strict=False):
        rest = f" - {y}" + (f" - {borrow}" if so_far else "")
        value = int(x) - int(y) - borrow
        if value < 0:
            value, borrow = value + 10, 1
            text = f"{x}{rest} is below 0, so {10 + int(x)}{rest} = {value}, borrow 1."
        else:
            borrow = 0
            text = f"{x}{rest} = {value}, borrow 0."
        so_far = f"{value}{so_far}"
        lines.append(f"{place}: {text} So far {so_far}.")
    if len(so_far) > 1 and so_far[0] == "0":
        lines.append(f"Without zeros in front: {a - b}.")
    lines.append(f"So {a} - {b} = {a - b}.")
    return lines, a - b


def mul_steps(a: int, m: int) -> tuple[list[str], int]:
    """Column multiplication of `a` by one digit `m`."""
    lines = [f"Digits of {a}: {spaced(a)}."]
    carry, so_far = 0, ""
    for place, x in zip(PLACES, reversed(str(a)), strict=False):
        product = int(x) * m
        total = product + carry
        plus = f", plus {carry} = {total}" if so_far else ""
        carry, so_far = total // 10, f"{total % 10}{so_far}"
        lines.append(f"{place}: {x} x {m} = {product}{plus}, carry {carry}. So far {so_far}.")
    if carry:
        lines.append(f"The last carry goes to the front: {carry}{so_far}.")
    lines.append(f"So {a} x {m} = {a * m}.")
    return lines, a * m


def long_mul_steps(a: int, b: int) -> tuple[list[str], int]:
    """Multiplication by a two-digit `b`: two partial products, then their sum."""
    tens, ones = divmod(b, 10)
    if ones == 0:
        lines, part = mul_steps(a, tens)
        return [*lines, f"With a zero at the end: {part * 10}.", f"So {a} x {b} = {a * b}."], a * b
    first, low = mul_steps(a, ones)
    second, high = mul_steps(a, tens)
    total, result = add_steps(high * 10, low)
    lines = [f"Split {b} into {tens * 10} and {ones}.", *first, *second]
    lines += [f"With a zero at the end: {high * 10}.", f"Now {high * 10} + {low}.", *total]
    return [*lines, f"So {a} x {b} = {result}."], result


def div_steps(a: int, d: int) -> tuple[list[str], tuple[int, int]]:
    """Long division of `a` by one digit `d`; the result is quotient and remainder."""
    lines = [f"Digits of {a}: {spaced(a)}."]
    rest, so_far = 0, 0
    for digit in str(a):
        value = rest * 10 + int(digit)
        q, rest = divmod(value, d)
        so_far = so_far * 10 + q
        lines.append(
            f"Bring down {digit}: {value}. {d} x {q} = {d * q} fits, {d} x {q + 1} = {d * q + d} "
            f"is too big. Write {q}, left {value} - {d * q} = {rest}. So far {so_far}."
        )
    lines.append(f"So {a} / {d} = {so_far}, remainder {rest}.")
    return lines, (so_far, rest)
