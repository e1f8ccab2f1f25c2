"""The Messages API on a real HTTP server, in front of a worker that follows a script."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config import ServerConfig
from tests.gateway.api.test_apis import api
from tests.gateway.api.test_chat_output import CALL, say
from workers.messages import Count, Counted, Finish, Rejected, Turn

HI = [{"role": "user", "content": "hi"}]
ADD = {"name": "add", "description": "adds", "input_schema": {"type": "object", "properties": {}}}
THOUGHT = {"turns": (Turn(at=1, phase="answering"),), "texts": ("hm", "the answer")}


def body(**fields: Any) -> dict[str, Any]:
    return {"max_tokens": 100, "messages": HI, "pacing": False, **fields}


def result_with(part: Any) -> list[dict[str, Any]]:
    """Messages whose last one has the result of a call, of this part."""
    call = {"type": "tool_use", "id": "c", "name": "add", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [part]}
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]


async def events_of(answer: Any) -> list[dict[str, Any]]:
    """The events of a stream, whose names were compared with their types."""
    found = []
    for block in (await answer.text()).strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name.removeprefix("event: ") == event["type"]
        found.append(event)
    return found


async def test_a_whole_message(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        request = body(system=[{"type": "text", "text": "Be kind."}], stop_sequences=["END"])
        asking = asyncio.create_task(client.post("v1/messages", json=request))
        submit = await worker.next_submit()
        assert [(m.role, m.content) for m in submit.messages] == [
            ("system", "Be kind."),
            ("user", "hi"),
        ]
        assert (submit.sampling.max_tokens, submit.sampling.stop) == (100, ("END",))
        await worker.accept(submit, reasoning=True)
        finish = Finish(reason="stop", cached_tokens=2, stop="END")
        await say(worker, submit.request_id, 2, finish=finish, **THOUGHT)
        message = await (await asking).json()
        thinking, text = message["content"]
        assert (thinking["type"], thinking["thinking"]) == ("thinking", "hm")
        assert thinking["signature"]
        assert text == {"type": "text", "text": "the answer"}
        assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")
        assert (message["type"], message["role"], message["id"][:4]) == (
            "message",
            "assistant",
            "msg_",
        )
        usage = message["usage"]
        assert usage["cache_read_input_tokens"] == 2
        assert usage["input_tokens"] == 18
        assert usage["output_tokens"] == 2


async def test_a_stream_has_one_block_after_the_other(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        request = body(tools=[ADD], stream=True)
        asking = asyncio.create_task(client.post("v1/messages", json=request))
        submit = await worker.next_submit()
        (tool,) = submit.tools
        assert tool["function"]["parameters"] == ADD["input_schema"]
        await worker.accept(submit, reasoning=True)
        await say(worker, submit.request_id, 5, **CALL)
        first, ping, *rest = await events_of(await asking)
        assert (first["type"], ping) == ("message_start", {"type": "ping"})
        assert first["message"]["content"] == []
        *blocks, delta, stop = rest
        assert stop == {"type": "message_stop"}
        assert delta["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
        assert delta["usage"]["output_tokens"] == 5
        opened: int | None = None
        texts: dict[int, str] = {}
        for event in blocks:
            if event["type"] == "content_block_start":
                assert opened is None
                opened = event["index"]
                texts[event["index"]] = ""
            assert event["index"] == opened
            if event["type"] == "content_block_stop":
                opened = None
            elif event["type"] == "content_block_delta":
                part = event["delta"]
                texts[event["index"]] += part.get("thinking", part.get("partial_json", ""))
        assert (opened, texts) == (None, {0: "hm", 1: '{"a": 1}'})
        starts = [e["content_block"] for e in blocks if e["type"] == "content_block_start"]
        assert [block["type"] for block in starts] == ["thinking", "tool_use"]
        assert (starts[1]["name"], starts[1]["input"]) == ("add", {})
        assert any(e.get("delta", {}).get("type") == "signature_delta" for e in blocks)


async def test_results_and_thoughts_go_back_to_the_model(tmp_path: Path) -> None:
    call = {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": None}}
    history = [
        *HI,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "text", "text": "I add.", "cache_control": {"type": "ephemeral"}},
                call,
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": [{"type": "text", "text": "3"}],
                },
                {"type": "text", "text": "and now?"},
            ],
        },
    ]
    async with api(tmp_path) as (client, worker, _):
        asking = asyncio.create_task(client.post("v1/messages", json=body(messages=history)))
        submit = await worker.next_submit()
        _, assistant, result, last = submit.messages
        assert (assistant.content, assistant.reasoning) == ("I add.", "hm")
        assert assistant.tool_calls[0].arguments == '{"a":null}'
        assert (result.role, result.content, result.tool_call_id) == ("tool", "3", "c1")
        assert (last.role, last.content) == ("user", "and now?")
        await worker.accept(submit, reasoning=False)
        await say(worker, submit.request_id, 1, texts=("4",))
        assert (await (await asking).json())["stop_reason"] == "end_turn"


async def test_what_is_fixed_in_a_system_prompt_stays_the_same(tmp_path: Path) -> None:
    prompts = []
    async with api(tmp_path) as (client, worker, _):
        for nonce in ("1", "2"):
            billing = f"x-anthropic-billing-header: cc_version=2; cch={nonce};"
            system = [{"type": "text", "text": text} for text in (billing, "Be kind.")]
            asking = asyncio.create_task(client.post("v1/messages", json=body(system=system)))
            submit = await worker.next_submit()
            prompts.append(submit.messages)
            await worker.accept(submit, reasoning=False)
            await say(worker, submit.request_id, 1, texts=("4",))
            await asking
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"nonsense": 1}, "nonsense"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        (
            {"messages": result_with({"type": "text", "text": 5})},
            "messages[2].content[0].content[0].text",
        ),
        ({"messages": result_with("text")}, "messages[2].content[0].content[0].type"),
        ({"tools": [{"name": "a b"}]}, "tools[0].name"),
        ({"tools": [{"name": "web", "type": "web_search_20250305"}]}, "tools[0].type"),
        ({"tools": [ADD], "tool_choice": {"type": "tool", "name": "sub"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        (
            {
                "tools": [{"name": "a", "input_schema": {"type": "no"}, "strict": True}],
            },
            "tools[0].input_schema.type",
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "thinking.budget_tokens"),
        ({"output_config": {"format": {"schema": {"type": 1}}}}, "output_config.format.schema"),
    ],
)
async def test_what_is_wrong_is_named_in_the_form_of_this_api(
    tmp_path: Path, fields: dict[str, Any], param: str
) -> None:
    async with api(tmp_path) as (client, _, _):
        answer = await client.post("v1/messages", json=body(**fields))
        error = await answer.json()
        assert (answer.status, error["type"]) == (400, "error")
        assert error["error"]["type"] == "invalid_request_error"
        assert error["error"]["param"].startswith(param)
        assert param in error["error"]["message"]


async def test_threads_are_refused_so_that_clients_send_everything_instead(tmp_path: Path) -> None:
    """`@anthropic-ai/sdk` continues without a thread only where it finds this code."""
    async with api(tmp_path) as (client, _, _):
        thread = {"type": "continue", "previous_message_id": "msg_1"}
        answer = await client.post("v1/messages", json=body(thread=thread))
        assert answer.status == 400
        details = (await answer.json())["error"]["details"]
        assert details == {"error_code": "thread_unsupported_request"}


async def test_a_stream_that_fails_says_so(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        asking = asyncio.create_task(client.post("v1/messages", json=body(stream=True)))
        submit = await worker.next_submit()
        await worker.accept(submit, reasoning=False)
        await say(worker, submit.request_id, 1, texts=("4",), finish=None)
        answer = await asking
        service.fail_all()
        *_, last = await events_of(answer)
        assert (last["type"], last["error"]["type"]) == ("error", "overloaded_error")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_message_that_is_cancelled_by_its_id_is_no_whole_one(
    tmp_path: Path, stream: bool
) -> None:
    async with api(tmp_path) as (client, worker, service):
        asking = asyncio.create_task(client.post("v1/messages", json=body(stream=stream)))
        submit = await worker.next_submit()
        await worker.accept(submit)
        await worker.tokens(submit.request_id, 0, "a")
        (response_id,) = service._sessions
        cancelling = asyncio.create_task(client.post(f"v1/responses/{response_id}/cancel"))
        await worker.next_cancel()
        await worker.tokens(submit.request_id, 1, finish=Finish(reason="cancelled"))
        await cancelling
        answer = await asking
        if stream:
            *_, error = await events_of(answer)
        else:
            assert answer.status == 499
            error = await answer.json()
        assert (error["type"], error["error"]["code"]) == ("error", "cancelled")


async def test_tokens_are_counted_by_a_worker_that_generates_nothing(tmp_path: Path) -> None:
    request = {"messages": HI, "tools": [ADD], "system": "Be kind."}
    async with api(tmp_path) as (client, worker, service):
        asking = asyncio.create_task(client.post("v1/messages/count_tokens", json=request))
        count = await worker.next()
        assert isinstance(count, Count)
        assert [message.role for message in count.prompt.messages] == ["system", "user"]
        assert count.prompt.tools[0]["function"]["name"] == "add"
        await worker.say(Counted(request_id=count.prompt.request_id, prompt_tokens=17))
        assert await (await asking).json() == {"input_tokens": 17}
        assert not service.cluster.counter._waiting
        wrong = {**request, "model": "another"}
        assert (await client.post("v1/messages/count_tokens", json=wrong)).status == 404


async def test_a_prompt_that_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        asking = asyncio.create_task(client.post("v1/messages/count_tokens", json={"messages": HI}))
        count = await worker.next()
        assert isinstance(count, Count)
        refusal = Rejected(
            request_id=count.prompt.request_id, code="c", message="no", param="messages[0].content"
        )
        await worker.say(refusal)
        answer = await asking
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "messages[0]"
        asking = asyncio.create_task(client.post("v1/messages/count_tokens", json={"messages": HI}))
        assert isinstance(await worker.next(), Count)
        service.cluster.counter.lost("worker-0")
        answer = await asking
        assert (answer.status, (await answer.json())["error"]["type"]) == (503, "overloaded_error")


async def test_a_prompt_that_no_worker_takes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.messages.MAX_TO_WORKER_BYTES", 100)
    async with api(tmp_path) as (client, _, service):
        answer = await client.post("v1/messages/count_tokens", json={"messages": HI})
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (400, "context_length_exceeded")
        assert error["message"].startswith("prompt is too long: ")  # as agents look for it
        assert not service.cluster.counter._waiting


@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_that_the_client_does_not_want_to_see(tmp_path: Path, stream: bool) -> None:
    async with api(tmp_path) as (client, worker, _):
        request = body(stream=stream, thinking={"type": "adaptive", "display": "omitted"})
        asking = asyncio.create_task(client.post("v1/messages", json=request))
        submit = await worker.next_submit()
        await worker.accept(submit, reasoning=True)
        await say(worker, submit.request_id, 2, **THOUGHT)
        answer = await asking
        if stream:
            events = await events_of(answer)
            parts = [event.get("delta", {}).get("type") for event in events]
            assert "thinking_delta" not in parts
            assert {"signature_delta", "text_delta"} <= set(parts)
        else:
            thinking, text = (await answer.json())["content"]
            assert (thinking["thinking"], text["text"]) == ("", "the answer")


async def test_the_key_may_come_in_the_header_of_this_api(tmp_path: Path) -> None:
    async with api(tmp_path, server=ServerConfig(api_keys=("secret",))) as (client, _, _):
        for headers, status in (
            ({}, 401),
            ({"x-api-key": "no"}, 401),
            ({"x-api-key": "secret"}, 400),
        ):
            answer = await client.post("v1/messages", json={}, headers=headers)
            assert answer.status == status
            kind = "authentication_error" if status == 401 else "invalid_request_error"
            assert (await answer.json())["error"]["type"] == kind
