"""Runs the tools of the embedded model's tasks: arithmetic, units, a clock and look-ups.

Calculators and converters compute what the model asks for, right or not. Clocks and look-ups
answer from the facts of their task. What goes wrong is text for the model, as with real tools.
Pure.
"""

from __future__ import annotations

import ast
import json
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from models.tools import Task, Tool, Toolset
from models.tools.catalog import OPERATIONS
from models.tools.goals import UNITS, cut

_MOST_CHARACTERS: Final = 200  # of an expression
_BINARY: Final[Mapping[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class ToolError(Exception):
    """The tool has no result; the message is for the model."""


class Toolbox:
    """The tools of one task."""

    def __init__(self, toolset: Toolset, task: Task) -> None:
        self._tools = {tool.name: tool for tool in toolset.tools}
        self._facts = [call for step in task.steps for call in step.calls]

    def run(self, name: str, arguments: str) -> str:
        """The result of a call, or why there is none.

        :param arguments: a JSON object.
        """
        try:
            tool = self._tools.get(name)
            if tool is None:
                raise ToolError(f"there is no tool {name}")
            return self._result(tool, json.loads(arguments))
        except ToolError as error:
            return f"Error: {error}"

    def _result(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        values = {p.slot: arguments[p.name] for p in tool.parameters if p.name in arguments}
        for parameter in tool.parameters:
            if parameter.required and parameter.slot not in values:
                raise ToolError(f"{parameter.name} is missing")
        if tool.role == "calculator":
            return _shown(evaluate(str(values["expression"])))
        if tool.role in OPERATIONS:
            a, b = _number(values["a"]), _number(values["b"])
            return _shown(evaluate(f"{a!r} {OPERATIONS[tool.role]} {b!r}"))
        if tool.role == "converter":
            return _converted(_number(values["value"]), str(values["from"]), str(values["to"]))
        for fact in self._facts:
            if fact.name == tool.name and dict(fact.arguments) == dict(arguments):
                return fact.result
        raise ToolError("not available")


def evaluate(expression: str) -> float:
    """The value of an expression of numbers, + - * / **, sqrt and parentheses.

    :raises ToolError: if it is something else, or has no finite value.
    """
    if len(expression) > _MOST_CHARACTERS:
        raise ToolError("the expression is too long")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ToolError("not an arithmetic expression") from error
    except ZeroDivisionError as error:
        raise ToolError("division by zero") from error
    except OverflowError as error:
        raise ToolError("the result is too large") from error
    if not math.isfinite(value):
        raise ToolError("the result is too large")
    return value


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            return _BINARY[type(sign)](_value(left), _value(right))
        case ast.Call(func=ast.Name(id="sqrt"), args=[of], keywords=[]):
            return math.sqrt(_value(of))
    raise ValueError(ast.dump(node))


def _power(base: float, exponent: float) -> float:
    value: float | complex = base**exponent
    if isinstance(value, complex):
        raise ValueError("not a real number")
    return value


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ToolError("not a number") from error
    if not math.isfinite(number):
        raise ToolError("not a number")
    return number


def _converted(value: float, source: str, target: str) -> str:
    factor = UNITS.get((source, target))
    if factor is None:
        back = UNITS.get((target, source))
        if back is None:
            raise ToolError("unknown unit")
        factor = 1 / back
    return _shown(value * factor)


def _shown(value: float) -> str:
    """All places where there are many, as tools return them; else the number without zeros."""
    stated, given = cut(value)
    return given or stated
