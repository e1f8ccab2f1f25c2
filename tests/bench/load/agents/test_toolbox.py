from __future__ import annotations

import json
import random
import time

import pytest

from bench.load.agents.problems import problem_agents
from bench.load.agents.toolbox import Toolbox, ToolError, evaluate
from models.tools import KINDS, Parameter, Tool, Toolset, draw_task
from tests.bench.support.flags import options

CALCULATOR = Tool("calc", "calculator", "Does math.", (Parameter("input", "expression"),))
DIVIDER = Tool("split", "divide", "Divides.", (Parameter("x", "a"), Parameter("y", "b")))
UNITS = Tool(
    "units", "converter", "Converts.",
    (Parameter("n", "value"), Parameter("of", "from"), Parameter("into", "to")),
)  # fmt: skip
CLOCK = Tool("now", "clock", "Tells the time.", (Parameter("city", "place", required=False),))
TOOLSET = Toolset((CALCULATOR, DIVIDER, UNITS, CLOCK))


@pytest.fixture
def toolbox() -> Toolbox:
    return Toolbox(TOOLSET, draw_task(random.Random(1), TOOLSET, "clock", "held_out"))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("348 * 27", 9396.0),
        ("(8 + 1572) * 97", 153260.0),
        ("2 ** 5 - -3", 35.0),
        ("sqrt(144)", 12.0),
        ("15 / 100 * 240", 36.0),
        ("0.5 + .25", 0.75),
    ],
)
def test_expressions(expression: str, value: float) -> None:
    assert evaluate(expression) == pytest.approx(value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1 / 0", "division by zero"),
        ("9 ** 9 ** 9", "the result is too large"),
        ("1e308 * 10", "the result is too large"),
        ("(0 - 8) ** 0.5", "not an arithmetic expression"),
        ("sqrt(0 - 1)", "not an arithmetic expression"),
        ("__import__('os')", "not an arithmetic expression"),
        ("'a' * 9", "not an arithmetic expression"),
        ("True + 1", "not an arithmetic expression"),
        ("2 +", "not an arithmetic expression"),
        ("", "not an arithmetic expression"),
        ("(" * 190, "not an arithmetic expression"),
        ("1" * 201, "the expression is too long"),
    ],
)
def test_what_cannot_be_computed(expression: str, message: str) -> None:
    began_s = time.monotonic()
    with pytest.raises(ToolError, match=message):
        evaluate(expression)
    assert time.monotonic() - began_s < 10  # 9 ** 9 ** 9 as whole numbers never ends


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("calc", {"input": "7 * 83"}, "581"),
        ("calc", {"input": "1 / 4"}, "0.25"),
        ("calc", {"input": "two"}, "Error: not an arithmetic expression"),
        ("calc", {"expression": "1"}, "Error: input is missing"),
        ("split", {"x": 561, "y": 34}, "16.5"),
        ("split", {"x": 1, "y": 0}, "Error: division by zero"),
        ("split", {"x": 1, "y": "many"}, "Error: not a number"),
        ("split", {"x": 1, "y": float("inf")}, "Error: not a number"),
        ("units", {"n": 24, "of": "tons", "into": "kilograms"}, "24000"),
        ("units", {"n": 24, "of": "kilograms", "into": "tons"}, "0.024"),
        ("units", {"n": 24, "of": "tons", "into": "miles"}, "Error: unknown unit"),
        ("now", {"city": "Nowhere"}, "Error: not available"),
        ("web", {}, "Error: there is no tool web"),
    ],
)
def test_calls(toolbox: Toolbox, name: str, arguments: dict[str, object], result: str) -> None:
    assert toolbox.run(name, json.dumps(arguments)) == result


def test_each_task_can_be_solved_with_its_tools() -> None:
    for agent in problem_agents(options(f"--families={','.join(KINDS)}", "--num-prompts=80")):
        for step in agent.task.steps:
            for call in step.calls:
                found = agent.toolbox.run(call.name, json.dumps(dict(call.arguments)))
                assert "Error" not in found
                # The expected result may have some text around it.
                assert found in call.result or call.result in found, (call, found)
