"""Conversations that clients send back: calls, their results, and thoughts."""

from __future__ import annotations

from typing import Any

import pytest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.utils import construct_chat_messages_with_tool_call

from gateway.config import PacingConfig
from gateway.schemas.bodies import ChatBody, ResponsesBody, parse_body
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.generation import Generation, default_targets, from_chat, from_responses
from workers.messages import ChatMessage, ToolCall

DEFAULTS = default_targets(PacingConfig(), {})
USER = {"role": "user", "content": "x"}


def chat(*messages: Any) -> Generation:
    return from_chat(parse_body({"messages": list(messages)}, ChatBody), DEFAULTS)


def responses(*items: Any, history: tuple[ChatMessage, ...] = ()) -> Generation:
    return from_responses(parse_body({"input": list(items)}, ResponsesBody), history, DEFAULTS)


def calling(*ids: str, arguments: Any = "{}", **fields: Any) -> dict[str, Any]:
    calls = [
        {"id": one, "type": "function", "function": {"name": "f", "arguments": arguments}}
        for one in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls, **fields}


def result(call_id: str, **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "623", **fields}


def call(call_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}", **fields}


def output(call_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": "623", **fields}


def thoughts(text: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": content}


def said(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": content}


CALL = ToolCall(call_id="c1", name="f", arguments="{}")
RESULT = ChatMessage(role="tool", content="623", tool_call_id="c1", name="f")


def test_calls_results_and_thoughts_of_chat() -> None:
    messages = chat(
        USER,
        calling("c1", reasoning_content="Let me see."),
        result("c1"),
        {"role": "assistant", "content": "623.", "reasoning": "a", "reasoning_content": "b"},
        USER,
    ).messages
    assert messages[1] == ChatMessage(
        role="assistant", content="", reasoning="Let me see.", tool_calls=(CALL,)
    )
    assert messages[2] == RESULT
    assert messages[3] == ChatMessage(role="assistant", content="623.", reasoning="a")


def test_the_items_of_one_turn_become_one_message() -> None:
    generation = responses(
        USER,
        thoughts("Let me see."),
        said("I look it up."),
        call("c1"),
        call("c2", arguments=""),
        output("c1"),
        output("c2", output=[{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]),
        thoughts("Now I know."),
        said("623."),
    )
    second = ToolCall(call_id="c2", name="f", arguments="{}")
    assert generation.messages == (
        ChatMessage(role="user", content="x"),
        ChatMessage(
            role="assistant",
            content="I look it up.",
            reasoning="Let me see.",
            tool_calls=(CALL, second),
        ),
        RESULT,
        ChatMessage(role="tool", content="ab", tool_call_id="c2", name="f"),
        ChatMessage(role="assistant", content="623.", reasoning="Now I know."),
    )
    assert generation.public_param("messages[3].content") == "input[6]"


def test_thoughts_may_be_a_summary_or_be_encrypted() -> None:
    summary = [{"type": "summary_text", "text": text} for text in ("a", "b")]
    turns = responses(
        USER, {"type": "reasoning", "summary": summary}, {"type": "message", **USER}
    ).messages
    assert turns[1] == ChatMessage(role="assistant", content="", reasoning="a\nb")
    hidden = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    assert [m.role for m in responses(USER, hidden, said("y")).messages] == ["user", "assistant"]


ORDERS = {
    "one turn": [thoughts("t"), said("s"), call("a"), output("a")],
    "text after a call": [call("a"), said("s"), output("a")],
    "thoughts after a text": [said("s"), thoughts("t"), call("a"), output("a")],
    "thoughts between two calls": [
        *(thoughts("t"), call("a"), thoughts("u"), call("b"), output("a"), output("b"))
    ],
    "two texts": [said("s"), said("u"), USER],
    "calls one by one": [call("a"), output("a"), call("b"), output("b"), said("s")],
    "a custom tool": [
        {"type": "custom_tool_call", "call_id": "a", "name": "f", "input": 'say "x"'},
        {"type": "custom_tool_call_output", "call_id": "a", "output": "ok"},
    ],
    "a namespace": [call("a", namespace="crm"), output("a")],
}


@pytest.mark.parametrize("name", ORDERS)
def test_items_are_merged_as_in_vllm(name: str) -> None:
    items = [USER, *ORDERS[name]]
    request = ResponsesRequest.model_validate({"model": "m", "input": items})
    assert not isinstance(request.input, str)
    theirs = construct_chat_messages_with_tool_call(request.input)
    assert [_plain(message) for message in responses(*items).messages] == [
        _theirs(dict(message)) for message in theirs
    ]


def _plain(message: ChatMessage) -> tuple[Any, ...]:
    calls = [(one.call_id, one.name, one.arguments) for one in message.tool_calls]
    return message.role, message.content, message.reasoning, calls, message.tool_call_id


def _theirs(message: dict[str, Any]) -> tuple[Any, ...]:
    calls = [
        (one["id"], one["function"]["name"], one["function"]["arguments"].replace('": "', '":"'))
        if isinstance(one, dict) and isinstance(one["function"], dict)
        else (one["id"], one["function"].name, one["function"].arguments.replace('": "', '":"'))
        for one in message.get("tool_calls") or ()
    ]
    content, reasoning = message.get("content") or "", message.get("reasoning")
    return message["role"], content, reasoning, calls, message.get("tool_call_id")


HISTORY = (
    ChatMessage(role="user", content="x"),
    ChatMessage(role="assistant", content="", tool_calls=(CALL,)),
)


def test_results_continue_a_conversation() -> None:
    generation = responses(output("c1"), history=HISTORY)
    assert generation.messages == (*HISTORY, RESULT)
    assert generation.public_param("messages[1].tool_calls[0].arguments") == "previous_response_id"
    assert generation.public_param("messages[2].content") == "input[0]"
    with pytest.raises(InvalidRequest, match="'c1' of the tool 'f' has no result") as caught:
        responses(USER, history=HISTORY)
    assert caught.value.param == "input"
    assert responses(USER, history=(*HISTORY, RESULT)).messages[2:] == (
        RESULT,
        ChatMessage(role="user", content="x"),
    )


def test_an_id_may_come_again_once_it_has_its_result() -> None:
    turns = (calling("c1"), result("c1"))
    assert len(chat(USER, *turns, *turns).messages) == 5
    items = (call("c1"), output("c1"))
    assert len(responses(USER, *items, *items).messages) == 5


def test_a_refusal_and_the_name_of_a_speaker_are_kept() -> None:
    messages = chat(
        {**USER, "name": "Ada"},
        {"role": "assistant", "content": None, "refusal": "I cannot."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ).messages
    assert messages[0].name == "Ada"
    assert [message.content for message in messages[1:]] == ["I cannot.", "No."]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([USER, result("c1")], "messages[1].tool_call_id"),
        ([USER, calling("c1"), result("c2")], "messages[2].tool_call_id"),
        ([USER, calling("c1"), result("c1"), result("c1")], "messages[3].tool_call_id"),
        ([USER, calling("c1"), {"role": "tool", "content": "x"}], "messages[2].tool_call_id"),
        ([USER, calling("c1")], "messages[1].tool_calls[0].id"),
        ([USER, calling("c1", "c2"), result("c1"), USER], "messages[1].tool_calls[1].id"),
        ([USER, calling("c1"), USER, result("c1")], "messages[1].tool_calls[0].id"),
        ([USER, calling("c1", "c1"), result("c1")], "messages[1].tool_calls[1].id"),
        ([USER, calling(""), result("")], "messages[1].tool_calls[0].id"),
        (
            [USER, calling("c1", arguments="{"), result("c1")],
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            [USER, calling("c1", arguments="[1]"), result("c1")],
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            [USER, calling("c1", arguments="[" * 5000), result("c1")],
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            [USER, calling("c1", arguments={"a": 1}), result("c1")],
            "messages[1].tool_calls[0].function.arguments",
        ),
        ([{**calling("c1"), "role": "user", "content": "x"}], "messages[0].tool_calls"),
        (
            [{"role": "assistant", "tool_calls": [{"id": "c1", "type": "custom"}]}],
            "messages[0].tool_calls[0].type",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"id": "c1"}]}],
            "messages[0].tool_calls[0].function",
        ),
        ([USER, calling("c1"), result("c1", content=None)], "messages[2].content"),
        (
            [USER, calling("c1"), result("c1", content=[{"type": "image_url"}])],
            "messages[2].content[0].type",
        ),
        ([{"role": "assistant", "function_call": {"name": "f"}}], "messages[0].function_call"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[0].role"),
    ],
)
def test_a_wrong_conversation_of_chat_is_refused_by_name(messages: list[Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(*messages)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ({"name": "goal_objective", "namespace": "agent"}, "agent.goal_objective"),
        ({"name": "goal_objective"}, "goal_objective"),
    ],
)
def test_what_codex_tells_without_a_call_is_read_as_the_users(
    source: dict[str, str], shown: str
) -> None:
    """openai/codex#42067: servers that ask for a `call_id` refuse the rest of the task."""
    told = {"type": "function_call_output", "id": "fco_1", **source, "output": "south"}
    found = responses(USER, call("c1"), output("c1"), told).messages
    assert [message.role for message in found] == ["user", "assistant", "tool", "user"]
    assert found[-1] == ChatMessage(role="user", content=f"{shown}:\nsouth")


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([USER, output("c1")], "input[1].call_id"),
        ([USER, {"type": "function_call_output", "output": "x"}], "input[1].call_id"),
        ([USER, {"type": "function_call_output", "name": "", "output": "x"}], "input[1].call_id"),
        ([USER, {"type": "function_call_output", "name": "g"}], "input[1].output"),
        ([USER, call("c1"), USER], "input[1].call_id"),
        ([USER, call("c1"), call("c1"), output("c1")], "input[2].call_id"),
        ([USER, call("c1", arguments="{"), output("c1")], "input[1].arguments"),
        ([USER, call("c1", arguments={}), output("c1")], "input[1].arguments"),
        ([USER, call("c1", name=""), output("c1")], "input[1].name"),
        ([USER, call("c1"), output("c1", output=5)], "input[2].output"),
        ([USER, {"type": "function_call", "call_id": "c1"}], "input[1].name"),
        ([USER, call("c1"), {"type": "function_call_output", "call_id": "c1"}], "input[2].output"),
        (
            [USER, call("c1"), output("c1", output=[{"type": "input_image"}])],
            "input[2].output[0].type",
        ),
        (
            [USER, {"type": "reasoning", "content": [{"type": "image"}]}],
            "input[1].content[0].type",
        ),
        ([{"type": "web_search_call", "id": "ws_1"}], "input[0].type"),
        ([result("c1")], "input[0].role"),
    ],
)
def test_a_wrong_conversation_of_responses_is_refused_by_name(items: list[Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        responses(*items)
    assert caught.value.param == param
