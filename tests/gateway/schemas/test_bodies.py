"""Null means absent, in every field of every body and event."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from gateway.api import admin, websocket
from gateway.config import PacingConfig
from gateway.schemas import bodies, items, messages_body, structure, tools
from gateway.schemas.bodies import ChatBody, ResponsesBody, parse_body, parse_json_object
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.generation import default_targets, from_chat, from_responses
from workers.messages import Sampling

USER = {"role": "user", "content": "x"}
SMALLEST: dict[type, dict[str, Any]] = {
    ResponsesBody: {"input": "x"},
    ChatBody: {"messages": [USER]},
}
OF_OPENAI: dict[type, Any] = {
    ResponsesBody: ResponseCreateParamsBase,
    ChatBody: CompletionCreateParamsBase,
}


def _structs(kind: Any) -> Iterator[type]:
    """The structs that a type is made of, itself included."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
        for inner in get_type_hints(kind, include_extras=True).values():
            yield from _structs(inner)
    elif get_origin(kind) in (Union, types.UnionType, Annotated, list, dict):
        for inner in get_args(kind):
            yield from _structs(inner)


def _every_field() -> list[Any]:
    events = [websocket.PacingUpdate, websocket.Resume, websocket.Cancel, websocket.SocketPing]
    of_tools = [tools.ChatTool, tools.CustomTool, tools.MessagesTool, tools.Namespace]
    choices = [tools.NamedFunction, tools.AllowedToolsOfChat]
    roots: list[type] = [
        ResponsesBody,
        ChatBody,
        messages_body.MessagesBody,
        *events,
        admin.DrainBody,
        admin.DemoBody,
        admin.PolicyBody,
        admin.PlacementBody,
        *of_tools,
        *choices,
        *items.ITEMS.values(),
    ]
    kinds = dict.fromkeys(kind for root in roots for kind in _structs(root))
    return [
        pytest.param(kind, field, id=f"{kind.__name__}.{field.name}")
        for kind in kinds
        for field in msgspec.structs.fields(kind)
    ]


def test_the_walk_finds_what_clients_send() -> None:
    found = {parameter.values[0] for parameter in _every_field()}
    declared = {
        kind
        for module in (bodies, items, messages_body, structure, tools, websocket, admin)
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind.__module__ == module.__name__
        and not kind.__name__.startswith("_")
    }
    assert found == declared


NAMED = {"name": "f"}
VALUES = {  # of required fields
    "messages": [USER],
    "function": NAMED,
    "allowed_tools": {"tools": []},
    "tools": [],
    "schema": {},
    "reasoning_tokens": 1,
    "answer_tokens": 1,
    "response_id": "resp_1",
    "max_tokens": 1,
    "tokens": 1,
    "qoe": 1.0,
    "policy": "slack",
}
OF_KIND: dict[type, dict[str, Any]] = {  # the same, where names have another meaning
    messages_body.Choice: {"type": "auto"},
    messages_body.Thinking: {"type": "adaptive"},
}


@pytest.mark.parametrize(("kind", "field"), _every_field())
def test_null_is_the_same_as_absent(kind: type, field: Any) -> None:
    body = {
        other.name: OF_KIND.get(kind, VALUES).get(other.name, "text")
        for other in msgspec.structs.fields(kind)
        if other.required
    }
    document = parse_json_object(json.dumps({**body, field.name: None}))
    if field.required:
        with pytest.raises(msgspec.ValidationError, match=f"missing required field `{field.name}`"):
            msgspec.convert(document, kind)
    else:
        assert msgspec.convert(document, kind) == msgspec.convert(body, kind)


@pytest.mark.parametrize("kind", [ResponsesBody, ChatBody])
def test_any_field_that_is_null_asks_for_nothing(kind: Any) -> None:
    names = {*OF_OPENAI[kind].__annotations__, "of_some_other_server"} - {*SMALLEST[kind]}
    assert {"functions", "prompt"} & names, "the client's types were not found"
    without = parse_body(dict(SMALLEST[kind]), kind)
    for name in names:
        document = parse_json_object(json.dumps({**SMALLEST[kind], name: None}))
        assert parse_body(document, kind) == without


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_options": {"include_usage": None, "unknown": None}},
        {"pacing": {"tpot_s": None, "unknown": None}},
        {"chat_template_kwargs": {"enable_thinking": None, "thinking": None}},
        {"structured_outputs": {"json": None, "unknown": None}},
        {"metadata": {"a": None}},
        {"messages": [{**USER, "name": None, "tool_calls": None, "refusal": None}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "y": None}]}]},
    ],
)
def test_nor_does_null_within_a_field(fields: dict[str, Any]) -> None:
    body = parse_json_object(json.dumps({**SMALLEST[ChatBody], **fields}))
    assert from_chat(parse_body(body, ChatBody), DEFAULTS).messages[0].content == "x"


DEFAULTS = default_targets(PacingConfig(), {})


@pytest.mark.parametrize(
    "fields", [{"stop": [None]}, {"messages": [None]}, {"messages": None}, {"model": 5}]
)
def test_an_element_of_a_list_is_not_absent_and_what_must_be_there_is_missed(
    fields: dict[str, Any],
) -> None:
    document = parse_json_object(json.dumps({**SMALLEST[ChatBody], **fields}))
    with pytest.raises(InvalidRequest) as caught:
        parse_body(document, ChatBody)
    assert str(caught.value.param).startswith(next(iter(fields)))


def test_a_document_that_is_as_deep_as_can_be_is_walked() -> None:
    deep = '{"a":' * 900 + '{"b":null}' + "}" * 900
    document: Any = parse_json_object(deep)
    for _ in range(900):
        document = document["a"]
    assert document == {}


# ---- bounds, as common clients send them --------------------------------------------------------


def sampling(kind: Any, **fields: Any) -> Sampling:
    body = parse_body({**SMALLEST[kind], **fields}, kind)
    make = from_chat if kind is ChatBody else lambda b, d: from_responses(b, (), d)
    return make(body, DEFAULTS).sampling


def test_minus_one_is_no_bound() -> None:
    assert sampling(ChatBody, max_tokens=-1).max_tokens is None
    assert sampling(ChatBody, max_completion_tokens=-1, max_tokens=5).max_tokens is None
    assert sampling(ChatBody, max_tokens=-1, max_completion_tokens=5).max_tokens == 5
    assert sampling(ResponsesBody, max_output_tokens=-1).max_tokens is None
    assert sampling(ResponsesBody, reasoning={"max_tokens": -1}).thinking_budget is None


def test_no_tokens_at_all_are_refused_with_what_is_allowed() -> None:
    for kind, name in (
        (ChatBody, "max_tokens"),
        (ChatBody, "max_completion_tokens"),
        (ResponsesBody, "max_output_tokens"),
    ):
        with pytest.raises(InvalidRequest, match="at least 1, or -1") as caught:
            sampling(kind, **{name: 0})
        assert caught.value.param == name


def test_as_many_stop_strings_as_editors_send() -> None:
    stop = [f"stop {index}" for index in range(64)]
    assert sampling(ChatBody, stop=stop).stop == tuple(stop)
    with pytest.raises(InvalidRequest, match="64") as caught:
        sampling(ChatBody, stop=[*stop, "one more"])
    assert caught.value.param == "stop"


def test_an_empty_stop_string_stops_nothing() -> None:
    assert sampling(ChatBody, stop="").stop == ()
    assert sampling(ChatBody, stop=["", "END"]).stop == ("END",)
