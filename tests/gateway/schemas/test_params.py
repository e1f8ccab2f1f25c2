"""The worker's names of fields, as errors of each API show them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import PacingConfig
from gateway.schemas.bodies import ChatBody, ResponsesBody, parse_body
from gateway.schemas.generation import Generation, default_targets, from_chat, from_responses
from workers.messages import ChatMessage, Sampling, Submit

DEFAULTS = default_targets(PacingConfig(), {})
TOOL = {"name": "f", "parameters": {"type": "object"}}


def responses(**fields: Any) -> Generation:
    body = parse_body({"input": "x", **fields}, ResponsesBody)
    return from_responses(body, (), DEFAULTS)


def chat(**fields: Any) -> Generation:
    body = parse_body({"messages": [{"role": "user", "content": "x"}], **fields}, ChatBody)
    return from_chat(body, DEFAULTS)


CALLS = [
    {"role": "user", "content": "x"},
    {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "y"},
]


@pytest.mark.parametrize(
    ("fields", "param", "expected"),
    [
        ({}, None, None),
        ({}, "messages", "messages"),
        ({}, "messages[0].content", "messages[0].content"),
        (
            {"messages": CALLS},
            "messages[1].tool_calls[0].arguments",
            "messages[1].tool_calls[0].function.arguments",
        ),
        ({"messages": CALLS}, "messages[1].tool_calls[0].call_id", "messages[1].tool_calls[0].id"),
        ({}, "sampling.max_tokens", "max_completion_tokens"),
        ({"max_tokens": 5}, "sampling.max_tokens", "max_tokens"),
        ({}, "sampling.top_p", "top_p"),
        ({}, "sampling.logit_bias", "logit_bias"),
        ({"logprobs": True}, "sampling.logprobs", "logprobs"),
        ({"logprobs": True, "top_logprobs": 3}, "sampling.logprobs", "top_logprobs"),
        ({"thinking_token_budget": 5}, "sampling.thinking_budget", "thinking_token_budget"),
        ({"reasoning": {"max_tokens": 5}}, "sampling.thinking_budget", "reasoning.max_tokens"),
        ({"tools": [{"type": "function", "function": TOOL}]}, "tools", "tools"),
        (
            {"tools": [{"type": "function", "function": TOOL}]},
            "tools[0].function.parameters",
            "tools[0].function.parameters",
        ),
        ({}, "tools[3]", "tools"),
        ({}, "tool_choice", "tool_choice"),
        ({}, "template.mode", "chat_template_kwargs.mode"),
        ({}, "template", "chat_template_kwargs"),
        ({"reasoning_effort": "low"}, "effort", "reasoning_effort"),
        ({"reasoning": {"effort": "low"}}, "effort", "reasoning.effort"),
        ({"reasoning_effort": "none"}, "thinking", "reasoning_effort"),
        ({"enable_thinking": False}, "thinking", "enable_thinking"),
        ({"reasoning": {"enabled": False}}, "thinking", "reasoning.enabled"),
        (
            {"chat_template_kwargs": {"enable_thinking": False}},
            "thinking",
            "chat_template_kwargs.enable_thinking",
        ),
        ({"response_format": {"type": "json_object"}}, "structure", "response_format"),
        ({"structured_outputs": {"regex": "a"}}, "structure", "structured_outputs.regex"),
        ({"structured_outputs": {"regex": "a"}}, "structure.value", "structured_outputs.regex"),
        ({}, "sampling", None),
        ({}, "tool_choice.name", "tool_choice"),
        ({"forced_lengths": {"reasoning_tokens": 1, "answer_tokens": 1}}, *["forced_lengths"] * 2),
        ({}, *["forced_lengths.call_tokens"] * 2),
    ],
)
def test_chat_completions(fields: dict[str, Any], param: str | None, expected: str | None) -> None:
    assert chat(**fields).public_param(param) == expected


@pytest.mark.parametrize(
    ("fields", "param", "expected"),
    [
        ({}, "messages", "input"),
        ({"instructions": "Be brief."}, "messages[0].content", "instructions"),
        ({}, "messages[0].content", "input[0]"),
        ({}, "messages[7].content", "input"),
        ({}, "sampling.max_tokens", "max_output_tokens"),
        ({}, "sampling.min_tokens", "min_tokens"),
        ({"include": ["message.output_text.logprobs"]}, "sampling.logprobs", "include"),
        (
            {"tools": [{"type": "function", **TOOL}]},
            "tools[0].function.parameters",
            "tools[0].parameters",
        ),
        ({"reasoning": {"effort": "low"}}, "effort", "reasoning.effort"),
        ({"reasoning": {"effort": "none"}}, "thinking", "reasoning.effort"),
        (
            {"text": {"format": {"type": "json_schema", "schema": {}}}},
            "structure",
            "text.format.schema",
        ),
        ({"text": {"format": {"type": "json_object"}}}, "structure", "text.format"),
    ],
)
def test_responses(fields: dict[str, Any], param: str | None, expected: str | None) -> None:
    assert responses(**fields).public_param(param) == expected


def test_no_field_that_a_worker_may_name_is_unknown_to_the_api() -> None:
    """Sampling parameters keep their names, so each has to be a field of the body."""
    of_link = {*Submit.__struct_fields__, *(f"sampling.{f}" for f in Sampling.__struct_fields__)}
    of_gateway = {"request_id", "pace", "known_token_ids", "ticket", "sampling", "prefixes"}
    of_gateway.add("x_request_id")
    for generation, kind in ((chat(), ChatBody), (responses(), ResponsesBody)):
        for name in of_link - of_gateway:
            public = str(generation.public_param(name)).partition(".")[0]
            assert public in kind.__struct_fields__, name


def test_what_is_read_counts_calls_thoughts_and_tools() -> None:
    assert (chat().input_characters, chat().prompt_tokens_guess) == (1, 8)
    with_calls = chat(messages=CALLS)
    assert with_calls.input_characters == 1 + len("f{}") + 1
    with_tools = chat(tools=[{"type": "function", "function": TOOL}])
    assert with_tools.input_characters == 1 + with_tools.tools_bytes
    assert with_tools.prompt_tokens_guess == 8 + with_tools.tools_bytes // 4
    history = ChatMessage(role="assistant", content="", reasoning="t" * 400)
    body = parse_body({"input": "x"}, ResponsesBody)
    assert from_responses(body, (history,), DEFAULTS).prompt_tokens_guess == 8 + 8 + 100
