"""The input items of a response and the items of a conversation, as clients list them.

They are kept without their ids, which follow from what they belong to and from their places.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.schemas.errors import convert
from gateway.schemas.items import (
    ITEMS,
    CallOutputItem,
    CustomCallItem,
    FunctionCallItem,
    MessageItem,
    Part,
    ReasoningItem,
)

Item = dict[str, Any]

_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "fc",
    "custom_tool_call_output": "fco",
}


def encoded(items: list[Any]) -> bytes:
    """Input items that were checked, in the form of the API, as a JSON array."""
    return msgspec.json.encode([public(item) for item in items])


def with_ids(items: bytes, response_id: str) -> list[Item]:
    """Input items of a response, from `encoded`."""
    number = response_id.removeprefix("resp_")
    found = msgspec.json.decode(items, type=list[Item])
    return [{"id": item_id(item, f"{number}_i{n}"), **item} for n, item in enumerate(found)]


def item_id(item: Item, rest: str) -> str:
    """The id of an item."""
    return f"{_PREFIXES[item['type']]}_{rest}"


def public(value: Item) -> Item:
    """An item that was checked, in the form of the API, without its id."""
    kind = value.get("type", "message")
    item: Item
    match convert(value, ITEMS[kind]):
        case MessageItem(role=role, content=content):
            assistant = role == "assistant"
            parts = _parts(content, "output_text" if assistant else "input_text")
            item = {"type": kind, "role": role, "content": parts}
        case ReasoningItem() as thoughts:
            item = {
                "type": kind,
                "summary": _parts(thoughts.summary, "summary_text"),
                "content": _parts(thoughts.content, "reasoning_text"),
            }
            if (sealed := value.get("encrypted_content")) is not None:
                item["encrypted_content"] = sealed
        case FunctionCallItem() as call:
            item = _call(kind, call, "arguments", call.arguments)
        case CustomCallItem() as call:
            item = _call(kind, call, "input", call.input)
        case CallOutputItem(output=output) as result:
            text = output if isinstance(output, str) else _parts(output, "input_text")
            item = {"type": kind, **_source(result), "output": text}
        case other:
            raise AssertionError(other)
    return {**item, "status": "completed"}


def _call(kind: str, call: FunctionCallItem | CustomCallItem, field: str, text: str) -> Item:
    item = {"type": kind, "call_id": call.call_id, "name": call.name, field: text}
    return item if call.namespace is None else {**item, "namespace": call.namespace}


def _source(result: CallOutputItem) -> Item:
    """Of which call a result is, or else where it comes from."""
    if result.call_id is not None:
        return {"call_id": result.call_id}
    named = {"name": result.name, "namespace": result.namespace}
    return {field: text for field, text in named.items() if text is not None}


def _parts(content: str | list[Part] | None, kind: str) -> list[Item]:
    if isinstance(content, str):
        content = [Part(type=kind, text=content)]
    parts: list[Item] = []
    for part in content or ():
        if part.refusal is not None:
            parts.append({"type": "refusal", "refusal": part.refusal})
        elif kind == "output_text":
            parts.append({"type": kind, "text": part.text, "annotations": [], "logprobs": []})
        else:
            parts.append({"type": kind, "text": part.text})
    return parts
