"""Calls that no model writes: of the request's tools, and of exact lengths."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from workers.emulation.calls import CallTooShort, call_of_length, drawn_calls
from workers.messages import ToolChoice


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


WEATHER = tool("get_weather", city={"type": "string"}, unit={"enum": ["celsius", "fahrenheit"]})
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}
ADD = tool("add", a={"type": "integer"}, b={"type": "integer"})
TOOLS = [WEATHER, CLOCK, ADD]
AUTO = ToolChoice()


def calls_in(text: str) -> list[dict[str, Any]]:
    found = re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.DOTALL)
    return [json.loads(call) for call in found]


def check(call: dict[str, Any]) -> None:
    assert set(call) == {"name", "arguments"}
    (chosen,) = (t for t in TOOLS if t["function"]["name"] == call["name"])
    jsonschema.validate(call["arguments"], chosen["function"].get("parameters", {}))


def drawn(choice: ToolChoice = AUTO, number: int = 300) -> list[str]:
    return [drawn_calls(TOOLS, choice, random.Random(seed)) for seed in range(number)]


def test_calls_are_of_the_requests_tools_and_fit_their_schemas() -> None:
    names = set()
    for text in drawn():
        for call in calls_in(text):
            check(call)
            names.add(call["name"])
    assert names == {"get_weather", "clock", "add"}


def test_most_turns_call_a_tool_and_some_end_the_task() -> None:
    counts = [len(calls_in(text)) for text in drawn()]
    assert 0.65 < sum(count > 0 for count in counts) / len(counts) < 0.85
    assert 0.05 < sum(count == 2 for count in counts) / len(counts) < 0.3


def test_the_choice_of_tools_holds() -> None:
    assert set(drawn(ToolChoice(mode="none"), 20)) == {""}
    assert all(len(calls_in(text)) == 1 for text in drawn(ToolChoice("required", parallel=False)))
    named = drawn(ToolChoice(mode="required", name="add"), 20)
    assert {call["name"] for text in named for call in calls_in(text)} == {"add"}
    assert drawn_calls([], ToolChoice(mode="required"), random.Random(0)) == ""


@given(st.integers(0, 400), st.integers(0, 50))
def test_a_call_has_exactly_the_tokens_that_were_asked_for(
    tokenizer: Tokenizer, more: int, seed: int
) -> None:
    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    tokens = 150 + more
    ids = call_of_length(tokens, TOOLS, AUTO, encode, random.Random(seed))
    assert len(ids) == tokens
    (call,) = calls_in(tokenizer.decode(list(ids), skip_special_tokens=False))
    check(call)


def test_a_call_that_is_too_short_names_the_least() -> None:
    def encode(text: str) -> list[str]:
        return list(text)

    named = ToolChoice(mode="required", name="clock")
    with pytest.raises(CallTooShort, match=r"a call of clock takes at least (\d+) tokens") as error:
        call_of_length(3, TOOLS, named, encode, random.Random(0))  # type: ignore[arg-type]
    least = int(str(error.value).split()[-2])
    ids = call_of_length(least, TOOLS, named, encode, random.Random(0))  # type: ignore[arg-type]
    assert len(ids) == least
