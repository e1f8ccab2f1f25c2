"""JSON that is nested deep is refused where a client sends it, with the name of the field."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.schemas.bodies import parse_json_object
from gateway.schemas.errors import InvalidRequest, convert
from gateway.schemas.json_schema import MOST_LEVELS, check_depth
from gateway.schemas.messages import from_messages
from gateway.schemas.messages_body import MessagesBody
from tests.gateway.schemas.test_params import DEFAULTS, chat, responses
from workers.errors import RequestRejected
from workers.formats.tools import check_conversation
from workers.messages import ChatMessage, ToolCall


def nested(levels: int) -> dict[str, Any]:
    """An object with so many levels, itself included."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def text(levels: int) -> str:
    return '{"a":' * (levels - 1) + "{}" + "}" * (levels - 1)


def test_the_bound_is_exact_for_objects_and_lists() -> None:
    lists: Any = []
    for _ in range(MOST_LEVELS - 1):
        lists = [lists]
    right: tuple[Any, ...] = (nested(MOST_LEVELS), lists, "text", 1, None, [])
    for value in right:
        check_depth(value, "It", "x")
    wrong: tuple[Any, ...] = ({"a": nested(MOST_LEVELS)}, [lists])
    for value in wrong:
        with pytest.raises(InvalidRequest, match="It is nested more than 64 levels") as caught:
            check_depth(value, "It", "x")
        assert caught.value.param == "x"


def test_a_body_that_is_nested_too_deep_to_be_read_is_no_broken_json() -> None:
    with pytest.raises(InvalidRequest, match="too many levels") as caught:
        parse_json_object(text(100_000))
    assert caught.value.code == "invalid_value"


def with_call(arguments: str) -> list[dict[str, Any]]:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "y"},
    ]


@pytest.mark.parametrize("levels", [MOST_LEVELS + 1, 300])
def test_arguments_and_options_name_their_field(levels: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(messages=with_call(text(levels)))
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"
    chat(messages=with_call(text(MOST_LEVELS)))
    for make in (chat, responses):
        with pytest.raises(InvalidRequest) as caught:
            make(chat_template_kwargs={"x": nested(levels)})
        assert caught.value.param == "chat_template_kwargs"
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": text(levels)}
    result = {"type": "function_call_output", "call_id": "c", "output": "y"}
    with pytest.raises(InvalidRequest) as caught:
        responses(input=[call, result])
    assert caught.value.param == "input[0].arguments"


def test_the_input_of_a_call_of_messages_names_its_field() -> None:
    def body(levels: int) -> MessagesBody:
        use = {"type": "tool_use", "id": "c", "name": "f", "input": nested(levels)}
        result = {"type": "tool_result", "tool_use_id": "c", "content": "y"}
        messages = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ]
        return convert({"max_tokens": 9, "messages": messages}, MessagesBody)

    from_messages(body(MOST_LEVELS), DEFAULTS)
    with pytest.raises(InvalidRequest) as caught:
        from_messages(body(MOST_LEVELS + 1), DEFAULTS)
    assert caught.value.param == "messages[1].content[0].input"


def test_a_worker_names_arguments_that_it_cannot_read() -> None:
    call = ToolCall(call_id="c", name="f", arguments=text(100_000))
    with pytest.raises(RequestRejected) as caught:
        check_conversation([ChatMessage(role="assistant", content="", tool_calls=(call,))])
    assert caught.value.param == "messages"
