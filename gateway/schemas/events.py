"""The events and objects of OpenAI's Responses API, as plain dictionaries.

Pure functions of their arguments; `gateway.response.session` decides when an event is due. Names
and order of fields follow the public API; ``docs/reference/api.md`` lists our additions.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import orjson

Json = dict[str, Any]
Text: TypeAlias = str | orjson.Fragment  # a fragment is a JSON string already
ItemStatus = Literal["in_progress", "completed", "incomplete"]

REASONING_DELTA = "response.reasoning_text.delta"
ANSWER_DELTA = "response.output_text.delta"
COMPLETED = "response.completed"
INCOMPLETE = "response.incomplete"
FAILED = "response.failed"


def reasoning_item(item_id: str, text: Text | None, status: ItemStatus = "in_progress") -> Json:
    """The output item of the reasoning; ``text`` is None while the item is only announced."""
    content = [] if text is None else [reasoning_part(text)]
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": [],
        "content": content,
        "status": status,
    }


def message_item(item_id: str, text: Text | None, status: ItemStatus = "in_progress") -> Json:
    """The output item of the answer; ``text`` is None while the item is only announced."""
    content = [] if text is None else [answer_part(text)]
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "content": content,
        "status": status,
    }


def reasoning_part(text: Text) -> Json:
    """Content part of the reasoning item."""
    return {"type": "reasoning_text", "text": text}


def answer_part(text: Text) -> Json:
    """Content part of the message item."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def item_event(index: int, item: Json, **extra: Any) -> Json:
    """Fields of ``response.output_item.added`` and ``.done``."""
    return {"output_index": index, "item": item, **extra}


def part_event(item_id: str, index: int, part: Json) -> Json:
    """Fields of ``response.content_part.added`` and ``.done``."""
    return {"item_id": item_id, "output_index": index, "content_index": 0, "part": part}


def text_done_event(item_id: str, index: int, text: Text, **extra: Any) -> Json:
    """Fields of ``response.reasoning_text.done`` and ``response.output_text.done``."""
    return {"item_id": item_id, "output_index": index, "content_index": 0, "text": text, **extra}


def usage(input_tokens: int, cached_tokens: int, output_tokens: int, reasoning_tokens: int) -> Json:
    """The ``usage`` object."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": input_tokens + output_tokens,
    }


def error_event(error: Json, status: int, stream_id: str | None = None) -> Json:
    """An error event outside of a response."""
    event: Json = {"type": "error", "status": status, "error": error}
    if stream_id is not None:
        event["stream_id"] = stream_id
    return event
