"""Draws the tools of a request: a calculator, a unit converter, a clock, and others.

Names, descriptions, parameters and their order vary, and some names are made up, so that the
model has to read the definitions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from models.problems.base import pick, weighted
from models.problems.words import word
from models.tools.schema import Parameter, Tool

OPERATIONS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
NOUNS = tuple(
    "weather temperature population price capital address age height news status forecast score "
    "balance distance rating language owner size color speed".split()
)
THINGS = ("city", "country", "company", "person", "product", "order", "user", "team", "place")

_CALCULATORS = (
    "calculator calculate calc math evaluate math_eval evaluate_expression compute do_math "
    "calculate_expression eval calculator_tool run_calculator"
).split()
_CALCULATOR_TEXTS = (
    "Evaluate an arithmetic expression.",
    "Evaluate a math expression.",
    "Evaluates a mathematical expression and returns the result.",
    "Evaluate an arithmetic expression and return the result.",
    "Calculate the result of a math expression.",
    "Calculate an arithmetic expression",
    "A calculator for arithmetic.",
    "Perform basic arithmetic calculations.",
    "Do math with numbers.",
    "Useful for math: addition, subtraction, multiplication and division.",
)
_EXPRESSIONS = ("expression", "expression", "expr", "formula", "input", "query", "calculation")
_EXPRESSION_TEXTS = (
    "The expression to evaluate",
    "The expression to evaluate, e.g. 2 + 2",
    "Arithmetic expression",
    "A mathematical expression such as 12 * (3 + 4)",
    "What to calculate.",
)
_OPERATION_NAMES = {
    "add": ("add", "add", "add_numbers", "sum", "plus"),
    "subtract": ("subtract", "subtract", "subtract_numbers", "minus"),
    "multiply": ("multiply", "multiply", "multiply_numbers", "times", "product"),
    "divide": ("divide", "divide", "divide_numbers", "division"),
}
_OPERATION_TEXTS = {
    "add": ("Add two numbers.", "Adds two numbers and returns the sum.", "Add {a} and {b}."),
    "subtract": ("Subtract two numbers.", "Subtract {b} from {a}."),
    "multiply": ("Multiply two numbers.", "Multiply {a} and {b}.", "Multiply {a} by {b}."),
    "divide": ("Divide two numbers.", "Divide {a} by {b}."),
}
_PAIRS = (("a", "b"), ("a", "b"), ("x", "y"), ("first", "second"), ("left", "right"))
_CONVERTERS = (
    "convert convert_units unit_converter convert_unit unit_convert units conversion converter "
    "convert_measurement"
).split()
_CONVERTER_TEXTS = (
    "Convert a value from one unit to another.",
    "Convert a value between units.",
    "Converts between units of measurement.",
    "Converts an amount from one unit to another unit.",
    "A unit converter for length, weight, time and volume.",
)
_AMOUNTS = ("value", "value", "amount", "quantity", "number")
_UNIT_PAIRS = (
    ("from_unit", "to_unit"),
    ("from_unit", "to_unit"),
    ("from", "to"),
    ("source", "target"),
    ("source_unit", "target_unit"),
    ("unit_from", "unit_to"),
)
_CLOCKS = (
    "get_time clock current_time get_current_time now time tell_time get_clock_time time_now"
).split()
_CLOCK_TEXTS = (
    "Get the current time.",
    "Returns the current time.",
    "Returns the current time of day.",
    "Tells what time it is now.",
    "A clock: the time of day.",
)
_LOOKUP_NAMES = ("get_{0}", "get_{0}", "{0}", "lookup_{0}", "find_{0}", "fetch_{0}", "{0}_lookup")
_LOOKUP_TEXTS = (
    "Get the {0} of a {1}.",
    "Get the {0} for a {1}.",
    "Returns the {0} of a given {1}.",
    "Look up the {0} of a {1}.",
    "Find the {0} of a {1}",
)
_OTHERS = (
    ("send_email", "Send an email to a person.", ("to", "text")),
    ("send_message", "Send a message to a user.", ("user", "message")),
    ("translate", "Translate text into another language.", ("text", "language")),
    ("create_event", "Create an event in the calendar.", ("title", "date")),
    ("read_file", "Read a file and return its text.", ("path",)),
    ("write_file", "Write text to a file.", ("path", "text")),
    ("play_music", "Play a song.", ("song",)),
    ("run_code", "Run Python code.", ("code",)),
    ("search", "Search the web.", ("query",)),
    ("set_alarm", "Set an alarm.", ("hour",)),
    ("take_note", "Save a note for later.", ("note",)),
)


@dataclass(frozen=True, slots=True)
class Toolset:
    """The tools of a request, in its order."""

    tools: tuple[Tool, ...]

    def of(self, role: str) -> Tool | None:
        """The first tool of a role."""
        return next((tool for tool in self.tools if tool.role == role), None)

    def lookups(self) -> list[Tool]:
        """The tools that look something up; their role is "lookup NOUN THING"."""
        return [tool for tool in self.tools if tool.role.startswith("lookup ")]

    def calculates(self) -> bool:
        """True if any tool does arithmetic."""
        return any(self.of(role) for role in ("calculator", *OPERATIONS))


def _text(rng: random.Random, texts: Sequence[str], share: float = 0.6) -> str | None:
    """A description of a parameter, or none."""
    return rng.choice(texts) if rng.random() < share else None


def _name(rng: random.Random, names: Sequence[str], made_up: float = 0.12) -> str:
    """A name of the list, in another style now and then, or a made-up one."""
    draw = rng.random()
    if draw < made_up:
        return word(rng, 8) if rng.random() < 0.6 else f"{word(rng, 6)}_{word(rng, 6)}"
    name = rng.choice(names)
    if draw < made_up + 0.08:
        first, *rest = name.split("_")
        return first + "".join(part.capitalize() for part in rest)
    return name


def calculator(rng: random.Random) -> Tool:
    """A tool that takes a whole expression."""
    parameter = Parameter(
        rng.choice(_EXPRESSIONS), "expression", "string", _text(rng, _EXPRESSION_TEXTS)
    )
    return Tool(_name(rng, _CALCULATORS), "calculator", rng.choice(_CALCULATOR_TEXTS), (parameter,))


def _docstring(rng: random.Random, text: str, parameters: tuple[Parameter, ...]) -> str:
    """The description as a Python docstring has it, with its arguments, now and then."""
    if rng.random() > 0.25:
        return text
    known = {"a": "First number", "b": "Second number"}
    notes = [f"{p.name}: {known.get(p.slot, 'The ' + p.name)}" for p in parameters]
    return f"{text}\n\nArgs:\n    " + "\n    ".join(notes) if notes else text


def operations(rng: random.Random) -> list[Tool]:
    """Tools that each do one operation on two numbers."""
    roles = rng.sample(list(OPERATIONS), rng.randint(1, 4))
    a, b = rng.choice(_PAIRS)
    kind, described = pick(rng, "integer", "number"), rng.random() < 0.4
    parameters = (
        Parameter(a, "a", kind, "The first number" if described else None),
        Parameter(b, "b", kind, "The second number" if described else None),
    )
    return [
        Tool(
            _name(rng, _OPERATION_NAMES[role]),
            role,
            _docstring(rng, rng.choice(_OPERATION_TEXTS[role]).format(a=a, b=b), parameters),
            parameters,
        )
        for role in roles
    ]


def converter(rng: random.Random) -> Tool:
    """A tool that converts a value between units."""
    source, target = rng.choice(_UNIT_PAIRS)
    described = rng.random() < 0.6
    parameters = [
        Parameter(
            rng.choice(_AMOUNTS), "value", "number", "The value to convert" if described else None
        ),
        Parameter(source, "from", "string", "The unit to convert from" if described else None),
        Parameter(target, "to", "string", "The unit to convert to" if described else None),
    ]
    if rng.random() < 0.15:
        parameters = [*parameters[1:], parameters[0]]
    text = _docstring(rng, rng.choice(_CONVERTER_TEXTS), tuple(parameters))
    return Tool(_name(rng, _CONVERTERS), "converter", text, tuple(parameters))


def clock(rng: random.Random) -> Tool:
    """A tool that tells the time, here or at a place."""
    parameters: tuple[Parameter, ...] = ()
    if rng.random() < 0.5:
        name = pick(rng, "city", "place", "location", "timezone", "timezone")
        text = {"timezone": "The time zone, such as UTC"}.get(name, f"The {name}")
        slot = "zone" if name == "timezone" else "place"
        described = text if rng.random() < 0.6 else None
        parameters = (Parameter(name, slot, "string", described, rng.random() < 0.4),)
    return Tool(_name(rng, _CLOCKS), "clock", rng.choice(_CLOCK_TEXTS), parameters)


def lookup(rng: random.Random) -> Tool:
    """A tool that looks up one property of one kind of thing."""
    noun = rng.choice(NOUNS) if rng.random() < 0.7 else word(rng, 8)
    thing = rng.choice(THINGS)
    parameter = pick(rng, thing, thing, thing, "name", "query")
    described = f"The {thing}" if rng.random() < 0.5 else None
    return Tool(
        _name(rng, (rng.choice(_LOOKUP_NAMES).format(noun),)),
        f"lookup {noun} {thing}",
        rng.choice(_LOOKUP_TEXTS).format(noun, thing),
        (Parameter(parameter, "thing", "string", described),),
    )


def other(rng: random.Random) -> Tool:
    """A tool that no task needs."""
    name, text, parameters = rng.choice(_OTHERS)
    return Tool(name, "other", text, tuple(Parameter(p, "none") for p in parameters))


def draw_toolset(rng: random.Random) -> Toolset:
    """One to seven tools in random order, no two of the same name or role."""
    drawn: list[Tool] = []
    if rng.random() < 0.72:
        drawn += [calculator(rng)] if rng.random() < 0.75 else operations(rng)
    if rng.random() < 0.5:
        drawn.append(converter(rng))
    if rng.random() < 0.5:
        drawn.append(clock(rng))
    drawn += [lookup(rng) for _ in range(weighted(rng, (0, 1, 2), (5, 4, 2)))]
    drawn += [other(rng) for _ in range(weighted(rng, (0, 1, 2), (6, 3, 1)))]
    drawn = drawn or [lookup(rng)]
    names: dict[str, Tool] = {}
    nouns: set[str] = set()
    for tool in drawn:
        noun = tool.role.rsplit(" ", 1)[0]
        if tool.name not in names and (tool.role == "other" or noun not in nouns):
            names[tool.name] = tool
            nouns.add(noun)
    tools = list(names.values())
    rng.shuffle(tools)
    return Toolset(tuple(tools))
