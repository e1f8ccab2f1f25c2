"""The events and objects of OpenAI's Responses API, as plain dictionaries.

Pure functions of their arguments; `gateway.response.session` decides when an event is due. Names
and order of fields follow the public API; ``docs/reference/api.md`` lists our additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import orjson

from gateway.schemas.tools import ToolName

Json = dict[str, Any]
Text: TypeAlias = str | orjson.Fragment  # a fragment is a JSON string already
ItemStatus = Literal["in_progress", "completed", "incomplete"]

REASONING_DELTA = "response.reasoning_text.delta"
SUMMARY_DELTA = "response.reasoning_summary_text.delta"  # instead, if a summary was asked for
ANSWER_DELTA = "response.output_text.delta"
CALL_DELTA = "response.function_call_arguments.delta"
CUSTOM_CALL_DELTA = "response.custom_tool_call_input.delta"
PONG = "pong"
COMPLETED = "response.completed"
INCOMPLETE = "response.incomplete"
FAILED = "response.failed"


def reasoning_item(
    item_id: str, text: Text | None, status: ItemStatus = "in_progress", *, summary: bool = False
) -> Json:
    """The output item of the reasoning; ``text`` is None while the item is only announced.

    :param summary: whether the text is the item's summary, not its content.
    """
    parts = [] if text is None else [reasoning_part(text, summary=summary)]
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": parts if summary else [],
        "content": [] if summary else parts,
        "status": status,
    }


def message_item(
    item_id: str,
    text: Text | None,
    status: ItemStatus = "in_progress",
    logprobs: Sequence[Text] = (),
) -> Json:
    """The output item of the answer; ``text`` is None while the item is only announced."""
    content = [] if text is None else [answer_part(text, logprobs)]
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "content": content,
        "status": status,
    }


def reasoning_part(text: Text, *, summary: bool = False) -> Json:
    """Part of the content, or of the summary, of the reasoning item."""
    return {"type": "summary_text" if summary else "reasoning_text", "text": text}


def call_item(
    item_id: str,
    call_id: str,
    tool: ToolName,
    arguments: Text,
    status: ItemStatus = "in_progress",
) -> Json:
    """The output item of a call, in the words of the client."""
    item: Json = {
        "id": item_id,
        "type": "custom_tool_call" if tool.custom else "function_call",
        "call_id": call_id,
        "name": tool.name,
        "input" if tool.custom else "arguments": arguments,
        "status": status,
    }
    return item if tool.namespace is None else {**item, "namespace": tool.namespace}


def answer_part(text: Text, logprobs: Sequence[Text] = ()) -> Json:
    """Content part of the message item."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def item_event(index: int, item: Json, **extra: Any) -> Json:
    """Fields of ``response.output_item.added`` and ``.done``."""
    return {"output_index": index, "item": item, **extra}


def part_event(item_id: str, index: int, part: Json) -> Json:
    """Fields of ``response.content_part.added`` and ``.done``."""
    return {"item_id": item_id, "output_index": index, "content_index": 0, "part": part}


def summary_event(item_id: str, index: int, **fields: Any) -> Json:
    """Fields of the events of a summary, which has one part."""
    return {"item_id": item_id, "output_index": index, "summary_index": 0, **fields}


def text_done_event(item_id: str, index: int, text: Text, **extra: Any) -> Json:
    """Fields of ``response.reasoning_text.done`` and ``response.output_text.done``."""
    return {"item_id": item_id, "output_index": index, "content_index": 0, "text": text, **extra}


def call_done_event(item_id: str, index: int, tool: ToolName, arguments: Text) -> Json:
    """Fields of ``response.function_call_arguments.done``, or of a custom tool's event."""
    event: Json = {"item_id": item_id, "output_index": index}
    if tool.custom:
        return {**event, "input": arguments}
    return {**event, "name": tool.name, "arguments": arguments}


def usage(input_tokens: int, cached_tokens: int, output_tokens: int, reasoning_tokens: int) -> Json:
    """The ``usage`` object."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": input_tokens + output_tokens,
    }


def pong(stream_id: str | None = None, ahead: int | None = None) -> Json:
    """The answer to a ping.

    :param ahead: how many requests wait before the one that was asked about.
    """
    event: Json = {"type": PONG}
    if ahead is not None:
        event["ahead"] = ahead
    if stream_id is not None:
        event["stream_id"] = stream_id
    return event


def error_event(error: Json, status: int, stream_id: str | None = None) -> Json:
    """An error event outside of a response."""
    event: Json = {"type": "error", "status": status, "error": error}
    if stream_id is not None:
        event["stream_id"] = stream_id
    return event
