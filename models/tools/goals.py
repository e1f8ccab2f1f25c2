"""Single things to find out with a tool: a calculation, a conversion, the time, a look-up.

A goal knows how a user asks for it, how the model names it while it thinks, which call gets it and
how an answer states the result.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.problems import Problem, generate
from models.problems.base import number, pick, vary, weighted
from models.problems.stories import NAMES
from models.problems.words import WORDS, word
from models.tools.catalog import OPERATIONS
from models.tools.schema import Call, Tool, Value, arguments_of

_CITIES = (
    "Paris London Berlin Rome Madrid Vienna Lisbon Dublin Oslo Tokyo Sydney Boston Chicago Delhi "
    "Cairo Lima Prague Athens Munich Kyoto Seattle Toronto"
).split()
_ZONES = "UTC UTC GMT CET Europe/Berlin Europe/Paris Asia/Tokyo America/New_York".split()
_STATES = "sunny rainy cloudy good bad open closed high low ready blue red green".split()
_SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


@dataclass(frozen=True, slots=True)
class Goal:
    """One thing to find out. `wish` follows "The user wants"; `fact` states the result.

    `given` is what a tool returns where that is longer than the result that the model states.
    """

    role: str
    question: str
    wish: str
    values: Mapping[str, Value]
    result: str
    fact: str
    key: str
    lead: tuple[str, ...] = field(default=())
    given: str = ""

    @property
    def found(self) -> str:
        """The result as the model takes it from what the tool returns."""
        return f"about {self.result}" if self.given else self.result

    def call(self, tool: Tool, result: str) -> Call:
        """The call that gets the result from this tool."""
        return Call(tool.name, arguments_of(tool, self.values), result)


def shown(value: float) -> str:
    """A number as a calculator returns it: whole where it is whole, else up to four places."""
    rounded = round(value, 4)
    return str(int(rounded)) if rounded == int(rounded) else str(rounded)


def cut(value: float) -> tuple[str, str]:
    """What the model states of a number, and what a tool returns if that is longer.

    For half of the values, by their digits, the tool returns all places, of which the model states
    four; for the others it rounds.
    """
    text = repr(value)
    whole, _, places = text.partition(".")
    if "e" in text or len(places) < 6 or sum(map(int, places)) % 2:
        return shown(value), ""
    return f"{whole}.{places[:4]}", text


def evaluate(expression: str) -> float:
    """The value of an expression of numbers, + - * / **, sqrt and parentheses."""
    if not re.fullmatch(r"[\d.+\-*/() ]*|sqrt\([\d.]+\)", expression):
        raise ValueError(f"not an arithmetic expression: {expression!r}")
    if expression.startswith("sqrt"):
        return float(expression[5:-1]) ** 0.5
    return float(eval(expression, {"__builtins__": {}}))


def calculation(expression: str, question: str, key: str = "", lead: tuple[str, ...] = ()) -> Goal:
    """The goal of evaluating an expression."""
    result, given = cut(evaluate(expression))
    values: dict[str, Value] = {"expression": expression}
    role = "calculator"
    parts = expression.split(" ")
    if len(parts) == 3 and parts[1] in OPERATIONS.values():
        values |= {"a": _number(parts[0]), "b": _number(parts[2])}
        role = next(name for name, sign in OPERATIONS.items() if sign == parts[1])
    fact = f"{expression} {'is about' if given else '='} {result}"
    wish = f"a calculation: {expression}"
    return Goal(
        role, question, wish, values, result, fact, key or f"calc {expression}", lead, given
    )


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _of_problem(problem: Problem) -> Goal:
    """The calculation that an exercise asks for."""
    kind, *rest = problem.key.split(" ", 1)
    if kind == "sums":
        expression = rest[0].replace(", ", " + ")
    elif kind == "story":
        expression = _story_expression(problem.thinking[0])
    else:
        a, b = rest[0].split()
        if kind == "mul":
            asked = problem.question.replace(",", "")
            a, b = sorted((a, b), key=re.findall(r"\d+", asked).index)
        expression = f"{a} {_SYMBOLS[kind]} {b}"
    lead = (problem.thinking[0],) if kind == "story" else ()
    return calculation(expression, problem.question, problem.key, lead)


def _story_expression(line: str) -> str:
    """The expression of a word problem, from the first line of its thinking."""
    groups = re.fullmatch(r"First the groups: (\d+) x (\d+)\. Then (add|take away) (\d+)\.", line)
    if groups:
        x, m, verb, y = groups.groups()
        return f"{x} * {m} {'+' if verb == 'add' else '-'} {y}"
    return line.rsplit(": ", 1)[1].rstrip(".").replace("x", "*")


def _decimal(rng: random.Random) -> str:
    return f"{number(rng, pick(rng, 1, 2, 3))}.{number(rng, pick(rng, 1, 2))}"


def _written(rng: random.Random) -> Goal:
    """A calculation beyond the exercises: decimals, powers, percent, roots, several operations."""
    a, b, c = (number(rng, pick(rng, 1, 2, 3, 4)) + 2 for _ in range(3))
    sign, other = rng.choice("+-*/"), rng.choice("+-*")
    draw = rng.randrange(7)
    if draw == 0:
        expression = f"{_decimal(rng)} {sign} {pick(rng, _decimal(rng), str(b))}"
    elif draw == 1:
        expression = f"{a} {sign} {b}"
    elif draw == 2:
        expression = f"({a} {other} {b}) {sign} {c}"
    elif draw == 3:
        expression = f"{a} {other} {b} {sign} {c}"
    elif draw == 4:
        p, n = rng.randint(1, 95), number(rng, pick(rng, 2, 3, 4))
        asked = pick(rng, f"What is {p}% of {n}?", f"What is {p} percent of {n}?", f"{p}% of {n}")
        return calculation(f"{p} / 100 * {n}", vary(rng, asked))
    elif draw == 5:
        n, p = number(rng, pick(rng, 1, 2)) + 2, rng.randint(2, 5)
        asked = pick(rng, f"What is {n} to the power of {p}?", f"{n}^{p}", f"Calculate {n}^{p}.")
        return calculation(f"{n} ** {p}", vary(rng, asked))
    else:
        n = pick(rng, number(rng, 2) ** 2, number(rng, 3)) + 1
        return calculation(f"sqrt({n})", vary(rng, f"What is the square root of {n}?"))
    asked = pick(
        rng,
        f"What is {expression}?",
        f"Calculate {expression}.",
        f"Compute {expression}",
        expression,
        f"How much is {expression}?",
        f"Evaluate {expression}.",
        f"Use the calculator to compute {expression}.",
        f"Use a tool to calculate {expression}.",
    )
    return calculation(expression, vary(rng, asked))


def calculate(rng: random.Random, split: str) -> Goal:
    """A calculation, mostly with the questions of the exercises."""
    if rng.random() < 0.35:
        return _written(rng)
    family = weighted(
        rng,
        ("addition", "subtraction", "multiplication", "division", "sums", "stories"),
        (3, 3, 4, 3, 1, 3),
    )
    return _of_problem(generate(family, rng, split="train" if split == "train" else "any"))


def operate(rng: random.Random, role: str) -> Goal:
    """A calculation with two numbers for the tool of one operation."""
    a, b = number(rng, pick(rng, 1, 2, 3, 3, 4)) + 1, number(rng, pick(rng, 1, 2, 3)) + 1
    sign = OPERATIONS[role]
    asked = {
        "add": (f"What is {a} + {b}?", f"Add {a} and {b}.", f"How much is {a} plus {b}?"),
        "subtract": (f"What is {a} - {b}?", f"Subtract {b} from {a}.", f"{a} minus {b}"),
        "multiply": (f"What is {a} x {b}?", f"Multiply {a} by {b}.", f"What is {a} times {b}?"),
        "divide": (f"What is {a} / {b}?", f"Divide {a} by {b}.", f"{a} divided by {b}"),
    }[role]
    return calculation(f"{a} {sign} {b}", vary(rng, rng.choice((*asked, f"{a} {sign} {b}"))))


UNITS = {
    ("hours", "minutes"): 60, ("minutes", "seconds"): 60, ("days", "hours"): 24,
    ("weeks", "days"): 7, ("meters", "centimeters"): 100, ("kilometers", "meters"): 1000,
    ("kilograms", "grams"): 1000, ("feet", "inches"): 12, ("yards", "feet"): 3,
    ("liters", "milliliters"): 1000, ("miles", "kilometers"): 1.6093,
    ("inches", "centimeters"): 2.54, ("pounds", "kilograms"): 0.4536, ("tons", "kilograms"): 1000,
}  # fmt: skip


def conversion(value: str, source: str, target: str, question: str) -> Goal:
    """The goal of changing a value into another unit."""
    factor = UNITS.get((source, target)) or 1 / UNITS[target, source]
    result, given = cut(float(value) * factor)
    return Goal(
        "converter",
        question,
        f"a conversion: {value} {source} to {target}",
        {"value": _number(value), "from": source, "to": target},
        result,
        f"{value} {source} {'is about' if given else '='} {result} {target}",
        f"convert {value} {source} {target}",
        (),
        given,
    )


def draw_units(rng: random.Random) -> tuple[str, str]:
    """Two units that go together."""
    big, small = rng.choice(list(UNITS))
    return (big, small) if rng.random() < 0.65 else (small, big)


def convert(rng: random.Random) -> Goal:
    """A conversion."""
    source, target = draw_units(rng)
    value = _decimal(rng) if rng.random() < 0.15 else str(number(rng, pick(rng, 1, 2, 2, 3, 4)) + 1)
    asked = pick(
        rng,
        f"Convert {value} {source} to {target}.",
        f"How many {target} are {value} {source}?",
        f"How many {target} are in {value} {source}?",
        f"What is {value} {source} in {target}?",
        f"{value} {source} to {target}",
        f"{value} {source} in {target}?",
        f"Change {value} {source} into {target}.",
        f"How much is {value} {source} in {target}?",
    )
    return conversion(value, source, target, vary(rng, asked))


def tell_time(rng: random.Random, tool: Tool) -> Goal:
    """The time, at a place if the tool takes one."""
    time = f"{rng.randrange(24):02}:{rng.randrange(60):02}"
    if rng.random() < 0.25:
        time += f":{rng.randrange(60):02}"
    slots = [(p.slot, p.required) for p in tool.parameters]
    if slots and (slots[0][1] or rng.random() < 0.6):
        slot = slots[0][0]
        place = rng.choice(_ZONES) if slot == "zone" else _place(rng)
        asked = pick(
            rng,
            f"What time is it in {place}?",
            f"What is the time in {place}?",
            f"Tell me the time in {place}.",
            f"What time is it in {place} now?",
        )
        return Goal(
            "clock", vary(rng, asked), f"the time in {place}", {slot: place}, time,
            f"It is {time} in {place}", f"time {place} {time}",
        )  # fmt: skip
    asked = pick(
        rng,
        "What time is it?",
        "What time is it now?",
        "What is the time?",
        "Tell me the time.",
        "What's the time?",
        "Can you tell me what time it is?",
        "What is the current time?",
    )
    return Goal("clock", vary(rng, asked), "the time", {}, time, f"It is {time}", f"time {time}")


def _place(rng: random.Random) -> str:
    return rng.choice(_CITIES) if rng.random() < 0.7 else word(rng, 8).capitalize()


def look_up(rng: random.Random, tool: Tool) -> Goal:
    """A property of a thing that the tool knows."""
    _, noun, thing = tool.role.split(" ")
    if thing in ("city", "place", "country"):
        name = _place(rng)
    elif thing in ("person", "user"):
        name = rng.choice(NAMES)
    else:
        name = pick(rng, word(rng, 8).capitalize(), str(number(rng, pick(rng, 3, 4))))
    asked = pick(
        rng,
        f"What is the {noun} of {name}?",
        f"Tell me the {noun} of {name}.",
        f"What is the {noun} for {name}?",
        f"I need the {noun} of {name}.",
        f"Find the {noun} of {name}.",
        f"{noun} of {name}",
        *(
            (
                f"What's the {noun} in {name}?",
                f"What is the {noun} in {name} today?",
                f"What is the {noun} like in {name}?",
                f"How is the {noun} in {name} now?",
            )
            if thing in ("city", "country", "place")
            else ()
        ),
    )
    result = pick(
        rng, rng.choice(_STATES), str(number(rng, pick(rng, 1, 2, 3, 4))), rng.choice(WORDS)
    )
    return Goal(
        tool.role, vary(rng, asked), f"the {noun} of {name}", {"thing": name}, result,
        f"The {noun} of {name} is {result}", f"lookup {noun} {name}",
    )  # fmt: skip


def returned(rng: random.Random, goal: Goal) -> str:
    """The result as tools return it: bare, as JSON, or with some text around it."""
    draw, result = rng.random(), goal.given or goal.result
    if draw < 0.5:
        return result
    bare = re.fullmatch(r"-?\d+(\.\d+)?", result) and not result.startswith("0")
    value = _number(result) if bare else result
    if draw < 0.75:
        name = pick(rng, "result", "result", "value", "answer", "output", "data")
        if goal.role == "clock":
            name = pick(rng, "time", "current_time", "result")
        return json.dumps({name: value})
    if draw < 0.85 and goal.role != "clock" and not goal.given:
        return goal.fact
    if draw < 0.92 and goal.role == "converter":
        return f"{result} {goal.values['to']}"
    return f"{pick(rng, 'Result', 'The result is', 'Answer', 'result')}: {result}"
