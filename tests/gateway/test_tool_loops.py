"""Tool loops of the `openai` package against a real server with the embedded model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from openai import OpenAI

from tests.support.models import CALLS_IN_THOUGHTS, renamed
from tests.support.server import Server

pytestmark = pytest.mark.engine

MODEL = "tiny-reasoner"
NAME = "calculator"
FUNCTION: dict[str, Any] = {
    "name": NAME,
    "description": "Calculates an arithmetic expression.",
    "parameters": {
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "The expression."}},
        "required": ["expression"],
    },
}
CHAIN = "Add 71 and 18, then multiply by 6, then subtract 34."
CHAIN_RESULT = "500"
PAIR = "What is 7129 + 5418? And what is 64 * 12?"


def client(server: Server) -> Any:
    return OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def calculated(arguments: str) -> str:
    """What the tool returns."""
    expression = json.loads(arguments)["expression"]
    assert set(expression) <= set("0123456789.+-*/() ")
    return f"{eval(expression):g}"


class Spoken:
    """One turn of the model, in the form of chat completions."""

    def __init__(self, completion: Any) -> None:
        (choice,) = completion.choices
        self.finish = choice.finish_reason
        self.message = choice.message.model_dump(exclude_none=True)


def streamed(chunks: Any) -> dict[str, Any]:
    """The message that the chunks of a stream make, as a client puts it together."""
    message: dict[str, Any] = {"role": "assistant", "content": "", "reasoning": ""}
    calls: dict[int, dict[str, Any]] = {}
    finish = None
    for chunk in chunks:
        (choice,) = chunk.choices
        delta = choice.delta
        message["content"] += delta.content or ""
        message["reasoning"] += (delta.model_extra or {}).get("reasoning") or ""
        for part in delta.tool_calls or []:
            call = calls.setdefault(
                part.index, {"id": part.id, "type": "function", "function": {"arguments": ""}}
            )
            if part.function.name:
                call["function"]["name"] = part.function.name
            call["function"]["arguments"] += part.function.arguments or ""
        finish = choice.finish_reason or finish
    assert finish == ("tool_calls" if calls else "stop")
    if calls:
        message["tool_calls"] = list(calls.values())
    return message


@pytest.mark.parametrize("stream", [False, True])
def test_three_steps_over_chat_completions(server: Server, stream: bool) -> None:
    tools: Any = [{"type": "function", "function": FUNCTION}]
    messages: list[Any] = [{"role": "user", "content": CHAIN}]
    steps = 0
    while True:
        answer = client(server).chat.completions.create(
            model=MODEL, messages=messages, tools=tools, temperature=0, stream=stream
        )
        message = streamed(answer) if stream else Spoken(answer).message
        messages.append(message)
        calls = message.get("tool_calls") or []
        if not calls:
            break
        steps += 1
        assert steps < 6
        for call in calls:
            assert call["function"]["name"] == NAME
            content = calculated(call["function"]["arguments"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})
    assert steps == 3
    assert CHAIN_RESULT in message["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_three_steps_over_responses(server: Server, stream: bool) -> None:
    fields: dict[str, Any] = {
        "model": MODEL,
        "tools": [{"type": "function", **FUNCTION}],
        "temperature": 0,
        "extra_body": {"pacing": False},
    }
    api = client(server).responses
    inputs: Any = CHAIN
    steps = 0
    while True:
        if stream:
            with api.stream(input=inputs, **fields) as events:
                pieces = [e.delta for e in events if "arguments.delta" in e.type]
                response = events.get_final_response()
        else:
            pieces = []
            response = api.create(input=inputs, **fields)
        calls = [item for item in response.output if item.type == "function_call"]
        if stream:
            assert "".join(pieces) == "".join(call.arguments for call in calls)
        if not calls:
            break
        steps += 1
        assert steps < 6
        fields["previous_response_id"] = response.id
        inputs = [
            {
                "type": "function_call_output",
                "call_id": call.call_id,
                "output": calculated(call.arguments),
            }
            for call in calls
        ]
    assert steps == 3
    assert CHAIN_RESULT in response.output_text


@pytest.mark.long
def test_calls_that_open_inside_the_thoughts(server: Server, tmp_path: Path) -> None:
    """Nothing but a call ends these thoughts, so that the other server gives the answer."""
    model = renamed(tmp_path / MODEL, CALLS_IN_THOUGHTS)
    tools: Any = [{"type": "function", "function": FUNCTION}]
    with Server(tmp_path, workers=1, extra=(f"--model={model}",)) as inside:
        for stream in (False, True):
            messages: list[Any] = [{"role": "user", "content": CHAIN}]
            message: dict[str, Any] = {}
            for asked in (inside, inside, inside, server):
                answer = client(asked).chat.completions.create(
                    model=MODEL, messages=messages, tools=tools, temperature=0, stream=stream
                )
                message = streamed(answer) if stream else Spoken(answer).message
                messages.append(message)
                if asked is server:
                    break
                assert message["reasoning"]
                assert not message.get("content")
                (call,) = message["tool_calls"]
                content = calculated(call["function"]["arguments"])
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})
            assert CHAIN_RESULT in message["content"]


def test_two_calls_in_one_turn(server: Server) -> None:
    tools: Any = [{"type": "function", "function": FUNCTION}]
    messages: list[Any] = [{"role": "user", "content": PAIR}]
    create = client(server).chat.completions.create
    first = Spoken(create(model=MODEL, messages=messages, tools=tools, temperature=0))
    assert first.finish == "tool_calls"
    calls = first.message["tool_calls"]
    assert len(calls) == 2
    assert len({call["id"] for call in calls}) == 2
    results = [calculated(call["function"]["arguments"]) for call in calls]
    assert results == ["12547", "768"]
    messages.append(first.message)
    for call, result in zip(calls, results, strict=True):
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    last = Spoken(create(model=MODEL, messages=messages, tools=tools, temperature=0))
    assert last.finish == "stop"
    assert all(result in last.message["content"] for result in results)


def test_only_one_call_where_the_client_takes_no_more(server: Server) -> None:
    completion = client(server).chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": PAIR}],
        tools=[{"type": "function", "function": FUNCTION}],
        parallel_tool_calls=False,
        temperature=0,
    )
    assert len(Spoken(completion).message["tool_calls"]) == 1


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": NAME}}])
def test_a_call_that_must_be_made_is_made(server: Server, choice: Any) -> None:
    """With arguments of the schema, because the tool is strict."""
    parameters = {**FUNCTION["parameters"], "additionalProperties": False}
    function = {**FUNCTION, "parameters": parameters, "strict": True}
    completion = client(server).chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is 12 + 30?"}],
        tools=[{"type": "function", "function": function}],
        tool_choice=choice,
        temperature=0,
        max_completion_tokens=400,
    )
    (call,) = Spoken(completion).message["tool_calls"]
    assert call["function"]["name"] == NAME
    assert isinstance(json.loads(call["function"]["arguments"])["expression"], str)


def test_no_call_where_none_is_allowed(server: Server) -> None:
    completion = client(server).chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is 348 + 275?"}],
        tools=[{"type": "function", "function": FUNCTION}],
        tool_choice="none",
        temperature=0,
    )
    spoken = Spoken(completion)
    assert ("tool_calls" in spoken.message, spoken.finish) == (False, "stop")
    assert "623" in spoken.message["content"]


@pytest.mark.parametrize("strict", [True, False])
def test_beside_tools_the_model_calls_or_answers_in_the_form(server: Server, strict: bool) -> None:
    parameters = {**FUNCTION["parameters"], "additionalProperties": False}
    form = {
        "type": "object",
        "properties": {"done": {"type": "boolean"}},
        "required": ["done"],
        "additionalProperties": False,
    }
    fields: Any = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is 348 + 275?"}],
        "tools": [
            {
                "type": "function",
                "function": {**FUNCTION, "parameters": parameters, "strict": strict},
            }
        ],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": form}},
        "temperature": 0,
        "max_completion_tokens": 400,
    }
    asked = Spoken(client(server).chat.completions.create(**fields))
    (call,) = asked.message["tool_calls"]
    assert (call["function"]["name"], "content" in asked.message) == (NAME, False)
    assert calculated(call["function"]["arguments"]) == "623"
    # The model does not call where a bias keeps it from opening a call.
    asking = Request(
        f"{server.url}/tokenize", b'{"prompt": "<tool_call>", "add_special_tokens": false}'
    )
    with urlopen(asking) as answer:
        (opener,) = json.load(answer)["tokens"]
    told = Spoken(client(server).chat.completions.create(**fields, logit_bias={str(opener): -100}))
    assert ("tool_calls" in told.message, told.finish) == (False, "stop")
    assert isinstance(json.loads(told.message["content"])["done"], bool)


def test_an_answer_in_a_form_and_several_choices(server: Server) -> None:
    api = client(server)
    schema = {
        "type": "object",
        "properties": {"larger": {"enum": ["left", "right"]}},
        "required": ["larger"],
        "additionalProperties": False,
    }
    response = api.responses.create(
        model=MODEL,
        input="Which is larger, 34 or 71?",
        text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}},
        temperature=0,
    )
    assert json.loads(response.output_text)["larger"] in ("left", "right")
    assert [item.type for item in response.output] == ["reasoning", "message"]
    completion = api.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is 348 + 275?"}],
        n=3,
        seed=7,
        logprobs=True,
        top_logprobs=2,
    )
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    for choice in completion.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content
        text = b"".join(bytes(one.bytes or []) for one in choice.logprobs.content).decode()
        assert text.strip() == (choice.message.content or "").strip()
        assert all(len(one.top_logprobs) == 2 for one in choice.logprobs.content)
