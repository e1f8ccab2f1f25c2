"""Conversations: bodies of turns, and whole runs against scripted servers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from bench.load.command import result_of
from bench.load.conversation import Conversation, next_due_s
from bench.load.plan import Planned, ToolResult, plan_requests, text_prompt, warmup_plan
from bench.load.prompts import Prompt
from bench.load.record import Call, Event, Item, ResponseRecord
from bench.load.runner import LoadRun
from bench.load.transport.interface import ServerError
from tests.bench.support.flags import options
from tests.bench.support.results import record_of
from tests.bench.support.scripted import Reply, ScriptedServer, good
from tests.bench.support.scripted_http import ScriptedHttp, chats

AT_ONCE = ("--request-rate", "inf")


async def figures(base_url: str, *flags: str) -> dict[str, Any]:
    chosen = options("--base-url", base_url, *AT_ONCE, *flags)
    load = LoadRun(chosen, "scripted")
    await load.drive(plan_requests(chosen), warmup_plan(chosen))
    return result_of(load, chosen) | {"turns_not_sent": load.turns_not_sent}


async def refuses(reply: Reply) -> None:
    await reply.send("error", status=429, error={"code": "overloaded", "message": "no room"})


def test_turns_are_drawn_from_the_seed() -> None:
    flags = ("--num-prompts=50", "--turns=1-4", "--think-time=1s-3s")
    plan = plan_requests(options(*flags))
    assert plan == plan_requests(options(*flags))
    turns = [sum(p.conversation == number for p in plan) for number in range(50)]
    assert set(turns) == {1, 2, 3, 4}
    assert [planned.index for planned in plan] == list(range(len(plan)))
    for planned in plan:
        assert (planned.think_s == 0.0) is (planned.turn == 0)
        assert planned.turn == 0 or 1.0 <= planned.think_s <= 3.0


def test_the_next_question_comes_after_the_last_token_was_released() -> None:
    record = record_of()  # the last token at 10.9, the end at 11.0
    assert next_due_s(record, 5.0) == pytest.approx(15.9)
    assert next_due_s(record, 0.0) == 11.0
    nothing = record_of((), status="incomplete")
    assert next_due_s(nothing, 5.0) == 16.0


def test_a_chat_tells_the_history_and_a_response_names_the_one_before() -> None:
    record = record_of()
    for api, is_resent in (("chat-sse", True), ("responses-sse", False)):
        chosen = options("--api", api, "--num-prompts=1", "--turns=2")
        first, second = plan_requests(chosen)
        conversation = Conversation(chosen, "m")
        begun = conversation.body(first)
        conversation.answered(record)
        body = conversation.body(second)
        question = second.prompt.messages[0].content
        if is_resent:
            roles = [message["role"] for message in body["messages"]]
            assert roles == ["user", "assistant", "user"]
            assert body["messages"][1]["content"] == "xxx"
            assert body["messages"][2]["content"] == question
            assert len(begun["messages"]) == 1
        else:
            assert body["previous_response_id"] == "resp_1"
            assert body["input"] == [{"role": "user", "content": question}]
            assert "previous_response_id" not in begun


def test_calls_and_results_are_told_in_the_form_of_the_api() -> None:
    function = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": function}]
    begin = Planned(0, 0.0, text_prompt("What is 1 + 1?"), None)
    result = Planned(1, 0.0, Prompt(()), None, results=(ToolResult("call_1", "2"),))
    record = record_of()
    item = Item("function_call", call_id="call_1", name="add", arguments="{}")
    call = Call(item)
    call.deltas.append("{}")
    record.calls.append(call)
    for api in ("chat-sse", "responses-ws"):
        conversation = Conversation(options("--api", api), "m", tools)
        begun = conversation.body(begin)
        conversation.answered(record)
        body = conversation.body(result)
        if api == "chat-sse":
            assert begun["tools"] == body["tools"] == tools
            made = {"name": "add", "arguments": "{}"}
            called = {"id": "call_1", "type": "function", "function": made}
            assert body["messages"] == [
                {"role": "user", "content": "What is 1 + 1?"},
                {"role": "assistant", "content": "xxx", "tool_calls": [called]},
                {"role": "tool", "tool_call_id": "call_1", "content": "2"},
            ]
        else:
            assert begun["tools"] == body["tools"] == [{"type": "function", **function}]
            assert body["previous_response_id"] == "resp_1"
            assert body["input"] == [
                {"type": "function_call_output", "call_id": "call_1", "output": "2"}
            ]


def test_thoughts_are_sent_back_for_agents_only() -> None:
    thought = ResponseRecord()
    thought.receive(Event("response.reasoning_text.delta", 0, delta="Hm."), 1.0)
    for tools, told in (((), False), (({"type": "function", "function": {"name": "a"}},), True)):
        conversation = Conversation(options("--api=chat-sse"), "m", tools)
        conversation.answered(thought)
        (message,) = conversation.body(Planned(0, 0.0, Prompt(()), None))["messages"]
        assert (message.get("reasoning_content") == "Hm.") is told


def test_a_server_without_extensions_is_sent_none() -> None:
    chosen = options("--api=chat-sse", "--no-extensions", "--num-prompts=1", "--max-tokens=9")
    body = Conversation(chosen, "m").body(plan_requests(chosen)[0])
    assert set(body) == {"model", "messages", "stream", "stream_options", "max_tokens"}


async def test_conversations_over_the_websocket() -> None:
    async with ScriptedServer().running() as server:
        run = await figures(server.base_url, "--num-prompts=3", "--turns=3")
    assert (run["completed"], run["turns_not_sent"]) == (9, 0)
    assert [turn["requests"] for turn in run["by_turn"]] == [3, 3, 3]
    assert run["by_turn"][2]["ttft_s"]["mean"] is not None
    assert sum("previous_response_id" in body for body in server.requests) == 6
    for number in range(3):
        turns = [r for r in run["requests"] if r["conversation"] == number]
        for before, after in pairwise(turns):
            assert after["scheduled_s"] >= before["ended_s"]
            assert after["lateness_s"] >= 0.0


async def test_conversations_over_chat_completions() -> None:
    async with ScriptedHttp(chats).running() as server:
        run = await figures(server.base_url, "--api=chat-sse", "--num-prompts=2", "--turns=2")
    assert (run["completed"], run["failed"]) == (4, 0)
    assert sorted(len(body["messages"]) for body in server.requests) == [1, 1, 3, 3]


async def test_thinking_takes_its_time() -> None:
    flags = ("--num-prompts=1", "--turns=2", "--think-time=120ms")
    async with ScriptedServer().running() as server:
        run = await figures(server.base_url, *flags)
    first, second = run["requests"]
    last_s = first["sent_s"] + first["ttft_s"] + sum(first["itl_s"])
    assert second["scheduled_s"] == pytest.approx(last_s + 0.12, abs=1e-5)
    assert second["sent_s"] >= second["scheduled_s"]


async def test_a_failed_turn_ends_its_conversation() -> None:
    async with ScriptedServer(good, refuses).running() as server:
        run = await figures(server.base_url, "--num-prompts=1", "--turns=4")
    assert (run["completed"], run["failed"], run["turns_not_sent"]) == (1, 1, 2)


async def test_warm_ups_are_sent_first_and_not_measured() -> None:
    async with ScriptedServer().running() as server:
        run = await figures(server.base_url, "--num-prompts=2", "--num-warmups=3")
    assert (run["completed"], len(run["requests"])) == (2, 2)
    names = [body["stream_id"] for body in server.requests]
    assert [name.startswith("warm-up") for name in names] == [True] * 3 + [False] * 2
    assert len({str(body["input"]) for body in server.requests}) == 5


async def test_warm_ups_that_all_fail_are_the_end() -> None:
    async with ScriptedServer(refuses).running() as server:
        with pytest.raises(ServerError, match="every warm-up request failed: error 429"):
            await figures(server.base_url, "--num-warmups=2")
    assert len(server.requests) == 2
