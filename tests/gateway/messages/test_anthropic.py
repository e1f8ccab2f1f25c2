"""The `anthropic` package against a real server with the embedded model."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic import Anthropic, BadRequestError

from tests.gateway.test_tool_loops import CHAIN, CHAIN_RESULT, FUNCTION, MODEL, calculated
from tests.support.server import Server

pytestmark = pytest.mark.engine

TOOL: Any = {
    "name": FUNCTION["name"],
    "description": FUNCTION["description"],
    "input_schema": FUNCTION["parameters"],
}


def client(server: Server) -> Anthropic:
    return Anthropic(base_url=server.url, api_key="none", max_retries=0)


def spoken(server: Server, stream: bool, **fields: Any) -> Any:
    """A message, as the package puts it together."""
    greedy = {"temperature": 0}  # newer packages have no name for it
    body: Any = {"model": MODEL, "max_tokens": 1000, "extra_body": greedy, **fields}
    if not stream:
        return client(server).messages.create(**body)
    with client(server).messages.stream(**body) as events:
        return events.get_final_message()


@pytest.mark.parametrize("stream", [False, True])
def test_three_steps_with_a_tool(server: Server, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": CHAIN}]
    for _ in range(3):
        message = spoken(server, stream, messages=messages, tools=[TOOL])
        assert message.stop_reason == "tool_use"
        assert message.content[0].type == "thinking"
        (call,) = [block for block in message.content if block.type == "tool_use"]
        result = calculated(f'{{"expression": "{call.input["expression"]}"}}')
        messages += [
            {"role": "assistant", "content": [block.model_dump() for block in message.content]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call.id, "content": result}],
            },
        ]
    message = spoken(server, stream, messages=messages, tools=[TOOL])
    assert message.stop_reason == "end_turn"
    assert CHAIN_RESULT in message.content[-1].text
    assert message.usage.cache_read_input_tokens > 0


def test_thinking_stop_sequences_and_counts(server: Server) -> None:
    asked: list[Any] = [{"role": "user", "content": "What is 348 + 275?"}]
    message = spoken(server, False, messages=asked, thinking={"type": "disabled"})
    assert [block.type for block in message.content] == ["text"]
    counted = client(server).messages.count_tokens(model=MODEL, messages=asked)
    usage = message.usage
    used = usage.input_tokens + usage.cache_read_input_tokens
    assert 0 < counted.input_tokens <= used  # a template may add marks of empty thoughts
    stopped = spoken(server, True, messages=asked, stop_sequences=["623"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "623")
    cut = spoken(server, True, messages=asked, max_tokens=3)
    assert cut.stop_reason == "max_tokens"
    with pytest.raises(BadRequestError, match="messages"):
        spoken(server, False, messages=[])
