"""What clients ask for reaches the worker, and what the worker refuses is named as they sent it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.config import LimitsConfig
from tests.gateway.api.test_apis import STOP, api, receive
from tests.gateway.support.scripted_worker import ScriptedWorker
from workers.messages import ChatMessage, Rejected, Structure, Submit, ToolCall, ToolChoice

PARAMETERS = {"type": "object", "properties": {"a": {"type": "number", "default": None}}}
ADD = {"name": "add", "description": "Adds.", "parameters": PARAMETERS}
SCHEMA = {"type": "object", "required": ["a"]}
COMMON: dict[str, Any] = {
    "parallel_tool_calls": False,
    "chat_template_kwargs": {"mode": "deep"},
    "thinking_token_budget": 64,
    "logit_bias": {"5": -3},
    "min_tokens": 2,
    "stop_token_ids": [9],
    "top_logprobs": 2,
}
CHAT = {
    **COMMON,
    "messages": [
        {"role": "user", "content": "x"},
        {
            "role": "assistant",
            "reasoning": "Add.",
            "tool_calls": [{"id": "c1", "function": {"name": "add", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ],
    "tools": [{"type": "function", "function": ADD}],
    "reasoning_effort": "high",
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    "logprobs": True,
}
RESPONSES = {
    **COMMON,
    "input": [
        {"role": "user", "content": "x"},
        {
            "type": "reasoning",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Add."}],
        },
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "2"},
    ],
    "tools": [{"type": "function", **ADD}],
    "reasoning": {"effort": "high"},
    "text": {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}},
    "include": ["message.output_text.logprobs"],
}


def check(submit: Submit) -> None:
    call = ToolCall(call_id="c1", name="add", arguments='{"a": 1}')
    assert submit.messages == (
        ChatMessage(role="user", content="x"),
        ChatMessage(role="assistant", content="", reasoning="Add.", tool_calls=(call,)),
        ChatMessage(role="tool", content="2", tool_call_id="c1", name="add"),
    )
    assert submit.tools == ({"type": "function", "function": ADD},)
    assert submit.tool_choice == ToolChoice(parallel=False)
    assert (submit.template, submit.effort, submit.thinking) == ({"mode": "deep"}, "high", None)
    assert submit.structure == Structure(kind="json", value=SCHEMA)
    sampling = submit.sampling
    assert (sampling.thinking_budget, sampling.logit_bias) == (64, {5: -3.0})
    assert (sampling.min_tokens, sampling.stop_token_ids, sampling.logprobs) == (2, (9,), 2)


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/responses", RESPONSES)]
)
async def test_a_request_over_http_reaches_the_worker_whole(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with api(tmp_path) as (client, worker, _):
        asking = asyncio.create_task(client.post(path, json=body))
        submit = await worker.next_submit()
        check(submit)
        await worker.accept(submit)
        await worker.tokens(submit.request_id, 0, "{}", finish=STOP)
        assert (await asking).status == 200


async def test_a_request_over_websocket_reaches_the_worker_whole(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _), client.ws_connect("/v1/responses") as socket:
        await socket.send_json({"type": "response.create", **RESPONSES})
        submit = await worker.next_submit()
        check(submit)
        await worker.accept(submit)
        await worker.tokens(submit.request_id, 0, "{}", finish=STOP)
        await receive(socket, "response.completed")


@pytest.mark.parametrize(
    ("path", "body", "param", "expected"),
    [
        ("/v1/chat/completions", CHAT, "structure", "response_format.json_schema.schema"),
        ("/v1/responses", RESPONSES, "structure", "text.format.schema"),
        ("/v1/chat/completions", CHAT, "effort", "reasoning_effort"),
        ("/v1/responses", RESPONSES, "effort", "reasoning.effort"),
        ("/v1/responses", RESPONSES, "template.mode", "chat_template_kwargs.mode"),
        ("/v1/responses", RESPONSES, "tools[0].function.name", "tools[0].name"),
        ("/v1/responses", RESPONSES, "messages[2].content", "input[3]"),
    ],
)
async def test_a_refusal_of_the_worker_names_the_field_as_it_was_sent(
    tmp_path: Path, path: str, body: dict[str, Any], param: str, expected: str
) -> None:
    async with api(tmp_path) as (client, worker, _):
        error = await refused(client, worker, path, body, param)
        assert (error["code"], error["param"]) == ("invalid_value", expected)


async def refused(
    client: ClientSession, worker: ScriptedWorker, path: str, body: dict[str, Any], param: str
) -> dict[str, Any]:
    asking = asyncio.create_task(client.post(path, json=body))
    submit = await worker.next_submit()
    rejected = Rejected(
        request_id=submit.request_id, code="invalid_value", message="No.", param=param
    )
    await worker.say(rejected)
    async with await asking as answer:
        assert answer.status == 400
        error: dict[str, Any] = (await answer.json())["error"]
        return error


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {**CHAT, "tools": [{"type": "function"}]}, "tools[0].function"),
        (
            "/v1/chat/completions",
            {**CHAT, "tools": [*CHAT["tools"]] * 200},
            "tools",
        ),
        ("/v1/responses", {**RESPONSES, "input": RESPONSES["input"][:3]}, "input[2].call_id"),
        ("/v1/responses", {**RESPONSES, "text": {"format": {"type": "x"}}}, "text.format.type"),
    ],
)
async def test_what_is_refused_reaches_no_worker(
    tmp_path: Path, path: str, body: dict[str, Any], param: str
) -> None:
    async with (
        api(tmp_path, limits=LimitsConfig(max_requests=1)) as (client, worker, _),
        client.post(path, json=body) as answer,
    ):
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == param
        assert worker.unread() == 0
