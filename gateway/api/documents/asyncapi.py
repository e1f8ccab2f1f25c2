"""The AsyncAPI document of the WebSockets: the messages of a client, and what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, get_args

from gateway.api.auth import SUBPROTOCOL
from gateway.api.documents.events import Pong, ResponseEvent
from gateway.api.documents.frames import OperationsFrame
from gateway.api.documents.openapi import info
from gateway.api.documents.operations import SLO
from gateway.api.documents.schemas import (
    ASKS,
    CREATE,
    MESSAGES,
    components,
    reference,
    stream_id,
    used,
)

Json: TypeAlias = dict[str, Any]

ASYNCAPI = "3.0.0"
ADDRESS = "/v1/responses"
WATCHING = "/admin/ops"
_CHANNEL = "responses"
_OPERATIONS = "operations"


def asyncapi(*, needs_key: bool) -> Json:
    """The document.

    :param needs_key: whether keys are configured; without them, every client may use the API.
    """
    known = dict(components())
    sent = {CREATE: "Create"} | {type_: kind.__name__ for type_, kind in MESSAGES.items()}
    events = {type_: kind.__name__ for type_, kind in _events().items()}
    for name in events.values():  # on a socket they name their stream
        fields = {**known[name]["properties"], "stream_id": stream_id()}
        known[name] = {**known[name], "properties": fields}
    messages = {type_: _message(type_, name, known) for type_, name in (sent | events).items()}
    frames = {type_: _message(type_, name, known) for type_, name in _frames().items()}
    asks = {type_: _message(type_, kind.__name__, known) for type_, kind in ASKS.items()}
    watched: Json = {"$ref": f"#/channels/{_OPERATIONS}"}
    channel: Json = {"$ref": f"#/channels/{_CHANNEL}"}

    def of_channel(types: Mapping[str, Any], channel: Json = channel) -> list[Json]:
        return [{"$ref": f"{channel['$ref']}/messages/{type_}"} for type_ in types]

    text = (
        "The WebSockets of the Responses API and of the operations page. Each text message is "
        "one JSON object. "
        f"A browser may send its key as the subprotocol `openai-insecure-api-key.KEY` next to "
        f"`{SUBPROTOCOL}`."
    )
    secured: Json = {}
    if needs_key:
        secured["security"] = [{"$ref": "#/components/securitySchemes/bearer"}]
    return {
        "asyncapi": ASYNCAPI,
        "info": info(text),
        "defaultContentType": "application/json",
        "channels": {
            _CHANNEL: {
                "address": ADDRESS,
                "messages": {
                    type_: {"$ref": f"#/components/messages/{type_}"} for type_ in messages
                },
                "bindings": {"ws": {"method": "GET", "headers": _headers()}},
            },
            _OPERATIONS: {
                "address": WATCHING,
                "messages": {
                    type_: {"$ref": f"#/components/messages/{type_}"} for type_ in frames | asks
                },
                "bindings": {"ws": {"method": "GET"}},
            },
        },
        "operations": {
            "ask": {
                "action": "receive",
                "summary": "What a client sends.",
                "channel": channel,
                "messages": of_channel(sent),
                **secured,
            },
            "answer": {
                "action": "send",
                "summary": "What a client gets.",
                "channel": channel,
                "messages": of_channel(events),
                **secured,
            },
            "watch": {
                "action": "send",
                "summary": "What a viewer of the operations page gets.",
                "channel": watched,
                "messages": of_channel(frames, watched),
                **secured,
            },
            "look": {
                "action": "receive",
                "summary": "What a viewer of the operations page may ask for.",
                "channel": watched,
                "messages": of_channel(asks, watched),
                **secured,
            },
        },
        "components": {
            "messages": messages | frames | asks,
            "schemas": used([messages, frames, asks], known),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _events() -> dict[str, Any]:
    """The events, by their ``type``."""
    return {kind.__struct_config__.tag: kind for kind in (*get_args(ResponseEvent), Pong)}


def _frames() -> dict[str, str]:
    """The names of what a viewer gets, by their ``type``."""
    return {kind.__struct_config__.tag: kind.__name__ for kind in get_args(OperationsFrame)}


def _message(type_: str, name: str, known: Mapping[str, Json]) -> Json:
    return {
        "name": type_,
        "title": name,
        "summary": known[name]["description"],
        "payload": reference(name),
    }


def _headers() -> Json:
    return {
        "type": "object",
        "properties": {one.name: {**one.schema, "description": one.summary} for one in SLO},
    }
