"""What is wrong with a request is named by its field, before anything is generated.

With real engines, over chat completions, Responses and its WebSocket.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.gateway.api.test_serving import receive
from tests.support.server import Server

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Wrong:
    """What is wrong, in both APIs, and the name of its field there."""

    chat: dict[str, Any] | None
    chat_param: str | None
    responses: dict[str, Any] | None
    responses_param: str | None
    code: str = "invalid_value"


def both(param: str | None, code: str = "invalid_value", **fields: Any) -> Wrong:
    """The same fields in both."""
    return Wrong(fields, param, fields, param, code)


def schema(value: Any, inner: str = "") -> Wrong:
    """A structure of JSON."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}
    text = {"format": {"type": "json_schema", "name": "x", "schema": value}}
    return Wrong(
        {"response_format": form},
        f"response_format.json_schema.schema{inner}",
        {"text": text},
        f"text.format.schema{inner}",
    )


def structured(kind: str, value: Any) -> Wrong:
    return both(f"structured_outputs.{kind}", structured_outputs={kind: value})


def tools(*functions: dict[str, Any], inner: str | None = None, **fields: Any) -> Wrong:
    nested = [{"type": "function", "function": one} for one in functions]
    flat = [{"type": "function", **one} for one in functions]
    last = len(functions) - 1
    return Wrong(
        {"tools": nested, **fields},
        "tools" if inner is None else f"tools[{last}].function.{inner}",
        {"tools": flat, **fields},
        "tools" if inner is None else f"tools[{last}].{inner}",
    )


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        value = {"type": "object", "properties": {"a": value}}
    return value


def result(**fields: Any) -> Wrong:
    """The result of a call, after a call that may be wrong."""
    call = {"id": "c1", "arguments": "{}", "answers": "c1"} | fields
    made = {"name": "add", "arguments": call["arguments"]}
    chat = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": call["id"], "function": made}]},
        {"role": "tool", "tool_call_id": call["answers"], "content": "5"},
    ]
    items = [
        {"role": "user", "content": "x"},
        {"type": "function_call", "call_id": call["id"], **made},
        {"type": "function_call_output", "call_id": call["answers"], "output": "5"},
    ]
    if "answers" in fields:
        params = "messages[2].tool_call_id", "input[2].call_id"
    else:
        params = "messages[1].tool_calls[0].function.arguments", "input[1].arguments"
    return Wrong({"messages": chat}, params[0], {"input": items}, params[1])


CASES = {
    # structures
    "a schema with an unknown type": schema({"type": "nonsense"}, ".type"),
    "a schema that no grammar has": schema({"type": "array", "uniqueItems": True}),
    "a schema that is too deep": schema(deep(70)),
    "a reference to nowhere": schema({"$ref": "#/$defs/a"}, ".$ref"),
    "a schema of a megabyte": schema({"enum": ["x" * 1000] * 900}),
    "a schema of 100 KB": schema({"enum": ["x" * 1000] * 100}),
    "a regular expression with an error": structured("regex", "([a-z"),
    "a regular expression that is too long": structured("regex", "a" * 70_000),
    "a grammar with an error": structured("grammar", "root ::= missing"),
    "no choices": structured("choice", []),
    "two structures": both(
        "structured_outputs", structured_outputs={"regex": "a", "choice": ["b"]}
    ),
    # tools
    "a tool without a name": tools({"description": "x"}, inner="name"),
    "a tool with a wrong name": tools({"name": "two words"}, inner="name"),
    "200 tools": tools(*({"name": f"f{index}"} for index in range(200))),
    "parameters that are no schema": tools({"name": "a", "parameters": []}, inner="parameters"),
    "strict parameters that no grammar has": tools(
        {"name": "a", "strict": True, "parameters": {"type": "nonsense"}},
        inner="parameters.type",
    ),
    "a call that must be made without tools": both("tool_choice", tool_choice="required"),
    "a call that must be made, and a structure": replace(
        tools({"name": "a"}, tool_choice="required", structured_outputs={"regex": "a"}),
        chat_param="tool_choice",
        responses_param="tool_choice",
    ),
    "a result of no call": result(answers="c2"),
    "arguments that are no JSON": result(arguments="{"),
    "arguments that are no object": result(arguments="[1]"),
    # sampling
    "10,000 biases": both("logit_bias", logit_bias={str(i): 1 for i in range(10_000)}),
    "a bias of no token": both("logit_bias", logit_bias={"-1": 1}),
    "a bias outside of the vocabulary": both("logit_bias", logit_bias={"999999": 1}),
    "a bias that is too large": both("logit_bias", logit_bias={"1": 101}),
    "a stop token that is negative": both("stop_token_ids[0]", stop_token_ids=[-1]),
    "a stop token outside of the vocabulary": both("stop_token_ids", stop_token_ids=[999_999]),
    "a negative number of tokens": both("min_tokens", min_tokens=-1),
    "more tokens than there may be": Wrong(
        {"min_tokens": 9, "max_tokens": 8},
        "min_tokens",
        {"min_tokens": 9, "max_output_tokens": 8},
        "min_tokens",
    ),
    "a temperature that is no number": both("temperature", temperature="hot"),
    "a seed of 100 bits": both("seed", seed=2**100),
    "too many alternatives": Wrong(
        {"logprobs": True, "top_logprobs": 50}, "top_logprobs", {"top_logprobs": 50}, "top_logprobs"
    ),
    "1000 choices": Wrong({"n": 1000}, "n", {"n": 1}, "n", "unknown_parameter"),
}


def counts(server: Server) -> list[float]:
    """What grows when something is generated."""
    names = ("pascal_responses_total", "pascal_tokens_total", "pascal_engine_steps_total")
    return [server.metric(name) for name in names]


def chat_body(case: Wrong) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}], **(case.chat or {})}


def responses_body(case: Wrong) -> dict[str, Any]:
    return {"input": "x", **(case.responses or {})}


def problem(name: str, error: dict[str, Any], param: str | None, case: Wrong) -> str | None:
    """What is wrong with an error; None: nothing."""
    right = error["param"] == param and error["code"] in {case.code, "invalid_value"}
    return None if right and len(error["message"]) < 700 else f"{name}: {error}, not {param}"


async def test_each_is_named_and_nothing_is_generated(server: Server) -> None:
    before = counts(server)
    problems: list[str | None] = []
    for name, case in CASES.items():
        for path, body, param in (
            ("/v1/chat/completions", chat_body(case), case.chat_param),
            ("/v1/responses", responses_body(case), case.responses_param),
        ):
            status, answer = server.request(path, body)
            assert status == 400, (name, path, answer)
            problems.append(problem(name, answer["error"], param, case))
    async with connect(server.websocket_url, max_size=None) as socket:
        for name, case in CASES.items():
            await socket.send(json.dumps({"type": "response.create", **responses_body(case)}))
            event = await receive(socket)
            assert (event["type"], event["status"]) == ("error", 400), (name, event)
            problems.append(problem(name, event["error"], case.responses_param, case))
    assert list(filter(None, problems)) == []
    assert counts(server) == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_json_does_not_have(server: Server, number: str) -> None:
    body = '{"input": "x", "temperature": %s}' % number  # noqa: UP031 (braces)
    status, answer = server.request("/v1/responses", body.encode())
    assert status == 400
    assert answer["error"]["code"] in ("invalid_json", "invalid_value")
