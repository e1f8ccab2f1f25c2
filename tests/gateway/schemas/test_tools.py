"""Tools and the choice among them, in the forms of both APIs."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import orjson
import pytest
from vllm.tool_parsers.utils import custom_tool_parameters, flat_namespace_tool_name

from gateway.config import PacingConfig
from gateway.schemas.bodies import ChatBody, ResponsesBody, parse_body
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.generation import Generation, default_targets, from_chat, from_responses
from gateway.schemas.tools import ToolName, custom_arguments, custom_input, flat_name
from workers.messages import ToolChoice

DEFAULTS = default_targets(PacingConfig(), {})
PARAMETERS = {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}


def function(name: str = "add", **fields: Any) -> dict[str, Any]:
    return {"name": name, "description": "Adds.", "parameters": PARAMETERS, **fields}


def responses(*tools: Any, **fields: Any) -> Generation:
    body = parse_body({"input": "x", "tools": list(tools), **fields}, ResponsesBody)
    return from_responses(body, (), DEFAULTS)


def chat(*tools: Any, **fields: Any) -> Generation:
    user = {"role": "user", "content": "x"}
    body = parse_body({"messages": [user], "tools": list(tools), **fields}, ChatBody)
    return from_chat(body, DEFAULTS)


def flat(**fields: Any) -> dict[str, Any]:
    return {"type": "function", **function(**fields)}


def nested(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": function(**fields)}


def test_both_forms_become_that_of_chat_completions() -> None:
    expected = ({"type": "function", "function": function(strict=True)},)
    assert chat(nested(strict=True)).tools == expected
    assert responses(flat(strict=True)).tools == expected
    assert responses(flat(strict=True)).tool_choice == ToolChoice()


def test_a_function_without_parameters_has_an_empty_schema() -> None:
    (tool,) = chat({"type": "function", "function": {"name": "now"}}).tools
    assert tool["function"] == {"name": "now", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_no_tools_are_as_good_as_an_empty_list(choice: str | None) -> None:
    for generation in (chat(tool_choice=choice), responses(tool_choice=choice)):
        assert (generation.tools, generation.tool_choice) == ((), ToolChoice())


def test_the_choice() -> None:
    for mode in ("auto", "none", "required"):
        assert chat(nested(), tool_choice=mode).tool_choice == ToolChoice(mode=mode)
    named = ToolChoice(mode="required", name="add")
    choice: dict[str, Any] = {"type": "function", "function": {"name": "add"}}
    assert chat(nested(), tool_choice=choice).tool_choice == named
    assert responses(flat(), tool_choice={"type": "function", "name": "add"}).tool_choice == named
    one_by_one = ToolChoice(parallel=False)
    assert chat(nested(), parallel_tool_calls=False).tool_choice == one_by_one


def test_a_choice_among_some_of_the_tools_leaves_these() -> None:
    some = {"mode": "required", "tools": [{"type": "function", "name": "b"}]}
    given = [flat(name=name) for name in ("a", "b", "c")]
    generation = responses(*given, tool_choice={"type": "allowed_tools", **some})
    assert [tool["function"]["name"] for tool in generation.tools] == ["b"]
    assert generation.tool_choice == ToolChoice(mode="required")
    assert generation.public_param("tools[0].function.parameters") == "tools[1].parameters"
    of_chat = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "c"}}]}
    given = [nested(name=name) for name in ("a", "b", "c")]
    generation = chat(*given, tool_choice={"type": "allowed_tools", "allowed_tools": of_chat})
    assert [tool["function"]["name"] for tool in generation.tools] == ["c"]
    assert generation.public_param("tools[0].function.name") == "tools[2].function.name"


def test_custom_tools_and_namespaces_are_shown_as_in_vllm() -> None:
    generation = responses(
        {"type": "custom", "name": "patch", "description": "Patches.", "format": {"type": "text"}},
        {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [flat()]},
        tool_choice={"type": "custom", "name": "patch"},
    )
    patch, add = (tool["function"] for tool in generation.tools)
    assert patch["parameters"] == custom_tool_parameters()
    assert add["name"] == flat_namespace_tool_name("crm", "add") == flat_name("add", "crm")
    assert generation.tool_names == {
        "patch": ToolName("patch", custom=True),
        "crm__add": ToolName("add", "crm"),
    }
    assert generation.tool_choice.name == "patch"
    assert generation.public_param("tools[1].function.name") == "tools[1].tools[0].name"


@pytest.mark.parametrize("text", ["", 'print("x")\n', "{}", '{"input": "a"}', "\u20ac\x00"])
def test_the_input_of_a_custom_tool_survives(text: str) -> None:
    assert custom_input(custom_arguments(text)) == text


@pytest.mark.parametrize("arguments", ["plain", '{"input": 5}', "[1]", "{", "[" * 5000])
def test_arguments_that_are_no_input_are_passed_on_as_they_are(arguments: str) -> None:
    assert custom_input(arguments) == arguments


MANY = [{"name": f"f{i}"} for i in range(200)]
DEEP: dict[str, Any] = {}
for _ in range(70):
    DEEP = {"properties": {"a": DEEP}}
HUGE = {"description": "x" * 300_000}


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([nested(), nested(name="two words")], "tools[1].function.name"),
        ([nested(name="x" * 65)], "tools[0].function.name"),
        ([nested(name="")], "tools[0].function.name"),
        ([{"type": "function", "function": {}}], "tools[0].function.name"),
        ([{"type": "function", "function": {"name": 5}}], "tools[0].function.name"),
        ([{"type": "function"}], "tools[0].function"),
        ([flat()], "tools[0].function"),
        ([nested(), nested(name="b"), nested()], "tools[2].function.name"),
        ([nested(description=5)], "tools[0].function.description"),
        ([nested(parameters=[])], "tools[0].function.parameters"),
        ([nested(parameters=DEEP)], "tools[0].function.parameters"),
        ([nested(parameters=HUGE)], "tools[0].function.parameters"),
        ([nested(strict="yes")], "tools[0].function.strict"),
        ([{"type": "custom", "custom": {"name": "a"}}], "tools[0].type"),
        ([{"type": "web_search"}], "tools[0].type"),
        ([{"type": {}}], "tools[0].type"),
        (["add"], "tools[0]"),
        ([{"type": "function", "function": one} for one in MANY], "tools"),
    ],
)
def test_a_wrong_tool_of_chat_is_refused_by_name(tools: list[Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(*tools)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([nested()], "tools[0].name"),
        ([{"name": "add"}], "tools[0].type"),
        ([flat(name="a.b")], "tools[0].name"),
        ([{"type": "mcp", "server_label": "x"}], "tools[0].type"),
        ([{"type": "custom", "name": "a", "format": {"type": "grammar"}}], "tools[0].format"),
        ([{"type": "namespace", "name": "n", "tools": [flat(name="")]}], "tools[0].tools[0].name"),
        (
            [{"type": "namespace", "name": "n", "tools": [{"type": "namespace"}]}],
            "tools[0].tools[0].type",
        ),
        ([{"type": "namespace", "name": "n", "tools": [flat(**one) for one in MANY]}], "tools"),
    ],
)
def test_a_wrong_tool_of_responses_is_refused_by_name(tools: list[Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        responses(*tools)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("any", "tool_choice"),
        (5, "tool_choice"),
        ({"type": "function", "function": {"name": "sub"}}, "tool_choice.function.name"),
        ({"type": "function", "name": "add"}, "tool_choice.function"),
        ({"type": "file_search"}, "tool_choice.type"),
        ({"name": "add"}, "tool_choice.type"),
        ({"type": "allowed_tools"}, "tool_choice.allowed_tools"),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": [nested()]}},
            "tool_choice.allowed_tools.mode",
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"tools": []}},
            "tool_choice.allowed_tools.tools",
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"tools": [nested(), "x"]}},
            "tool_choice.allowed_tools.tools[1]",
        ),
    ],
)
def test_a_wrong_choice_is_refused_by_name(choice: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(nested(), tool_choice=choice)
    assert caught.value.param == param


ODD = {"type": "object", "properties": {"a": {"type": "any"}}}  # as some clients send


@pytest.mark.parametrize(
    ("fields", "choice", "refused"),
    [
        ({}, "auto", False),
        ({"strict": False}, {"type": "function", "function": {"name": "b"}}, False),
        ({"strict": True}, "auto", True),
        ({}, "required", True),
        ({}, {"type": "function", "function": {"name": "add"}}, True),
    ],
)
def test_a_schema_by_which_the_engine_generates_has_to_be_right(
    fields: dict[str, Any], choice: Any, refused: bool
) -> None:
    tools = [nested(name="b"), nested(parameters=ODD, **fields)]
    if not refused:
        assert chat(*tools, tool_choice=choice).tools[1]["function"]["parameters"] == ODD
        return
    with pytest.raises(InvalidRequest) as caught:
        chat(*tools, tool_choice=choice)
    assert caught.value.param == "tools[1].function.parameters.properties.a.type"


def test_the_same_in_the_responses_api() -> None:
    with pytest.raises(InvalidRequest) as caught:
        responses(flat(parameters=ODD, strict=True))
    assert caught.value.param == "tools[0].parameters.properties.a.type"


def test_a_call_that_must_be_made_needs_a_tool_and_no_structure() -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(tool_choice="required")
    assert caught.value.param == "tool_choice"
    with pytest.raises(InvalidRequest) as caught:
        chat(nested(), tool_choice="required", response_format={"type": "json_object"})
    assert caught.value.param == "tool_choice"
    assert chat(nested(), response_format={"type": "json_object"}).structure is not None


def test_the_response_object_can_repeat_them_as_they_were_sent() -> None:
    short = {"type": "function", "name": "now"}
    custom = {"type": "custom", "name": "patch"}
    large = {**flat(), "parameters": {"properties": {"a": {"maximum": 2**70}}}}
    generation = responses(short, custom, large, tool_choice="required", parallel_tool_calls=False)
    echo = json.loads(orjson.dumps(generation.echo))
    missing = {"description": None, "parameters": None, "strict": None}
    assert echo["tools"] == [{**missing, **short}, custom, {**missing, **large}]
    assert (echo["tool_choice"], echo["parallel_tool_calls"]) == ("required", False)
    without = json.loads(orjson.dumps(responses().echo))
    assert (without["tools"], without["tool_choice"]) == ([], "auto")
    assert without["text"] == {"format": {"type": "text"}}


def test_the_size_of_the_definitions_is_known() -> None:
    generation = chat(nested(), nested(name="b"))
    assert generation.tools_bytes == len(msgspec.json.encode(generation.tools)) > 200
    assert chat().tools_bytes == 0
