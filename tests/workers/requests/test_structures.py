"""Structures that are made of tools: what of the request is named if they cannot be compiled."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.workers.support.formats import submit, user
from workers.errors import RequestRejected
from workers.messages import Structure, ToolChoice
from workers.policy.phase import Phase
from workers.requests.structures import check_structure

WRONG = {"type": "string", "pattern": "["}
ALL = Structure(kind="structural_tag", value="all tools")
JSON = Structure(kind="json", value={"type": "object"})


class Trials:
    """An engine that refuses the tag of all tools, and those with a wrong pattern."""

    def __init__(self) -> None:
        self.tried: list[Structure] = []

    async def check_structure(self, structure: Structure, began: Phase) -> None:
        assert began is Phase.REASONING
        self.tried.append(structure)
        if structure == ALL or "[" in json.dumps(structure.value):
            raise RequestRejected("invalid_value", "no grammar", "structure.value")


def tool(name: str, parameters: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


async def refused(combined: Structure, **fields: Any) -> str | None:
    request = submit(user("Hi"), **fields)
    with pytest.raises(RequestRejected, match="no grammar") as caught:
        await check_structure(Trials(), combined, request, Phase.REASONING)  # type: ignore[arg-type]
    return caught.value.param


async def test_the_tool_that_is_to_blame_is_named() -> None:
    right, strict = tool("a", {"type": "object"}, strict=True), {"strict": True}
    free = tool("b", WRONG)  # its arguments are left to the model
    assert await refused(ALL, tools=(right, free, tool("c", WRONG, **strict))) == (
        "tools[2].function.parameters"
    )
    named = ToolChoice(mode="required", name="b")
    assert await refused(ALL, tools=(right, free), tool_choice=named) == (
        "tools[1].function.parameters"
    )
    assert await refused(ALL, tools=(right, free)) == "tools"


async def test_a_form_of_the_answer_is_tried_before_it_is_joined_with_tools() -> None:
    wrong = Structure(kind="json", value=WRONG)
    assert await refused(ALL, tools=(tool("a", {}),), structure=wrong) == "structure.value"
    assert await refused(ALL, tools=(tool("a", {}),), structure=JSON) == "tools"
    trials: Any = Trials()
    await check_structure(trials, JSON, submit(user("Hi"), structure=JSON), Phase.REASONING)
    await check_structure(trials, None, submit(user("Hi")), Phase.REASONING)
    assert trials.tried == [JSON]
