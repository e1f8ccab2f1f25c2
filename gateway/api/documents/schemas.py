"""JSON schemas of bodies, messages and answers, from the types that the code has of them.

Bodies get what their types cannot say: a null field counts as absent, an item and a tool have a
form by their ``type``, and some fields are accepted with one value only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeAlias

import msgspec

from gateway.api.admin import DemoBody, DrainBody, PlacementBody, PolicyBody
from gateway.api.documents import chat, messages, objects, operators, plain
from gateway.api.documents.events import Pong, ResponseEvent, StreamId
from gateway.api.documents.frames import Follow, OperationsFrame, Rank
from gateway.api.websocket import PING, Cancel, PacingUpdate, Resume, SocketPing
from gateway.history.references import REFERENCE
from gateway.schemas import tools
from gateway.schemas.bodies import ChatBody, ResponsesBody, neutral_fields
from gateway.schemas.conversation_bodies import ConversationUpdate, NewConversation, NewItems
from gateway.schemas.items import ITEMS
from gateway.schemas.messages_body import IGNORED, MessagesBody
from gateway.schemas.plain.bodies import CompletionsBody, TextBody, TokensBody

Schema: TypeAlias = dict[str, Any]

_PLACE = "#/components/schemas/"
_NULL: Schema = {"type": "null"}

CREATE, RESUME, CANCEL, PACING = (
    "response.create",
    "response.resume",
    "response.cancel",
    "response.pacing.update",
)
# The other messages that a client sends on a WebSocket, by their ``type``.
MESSAGES: Mapping[str, type[msgspec.Struct]] = {
    RESUME: Resume,
    CANCEL: Cancel,
    PACING: PacingUpdate,
    PING: SocketPing,
}
# What a viewer of the operations page asks for, by its ``type``.
ASKS: Mapping[str, type[Follow | Rank]] = {"follow": Follow, "rank": Rank}
_BODIES = (
    ResponsesBody,
    ChatBody,
    MessagesBody,
    CompletionsBody,
    TextBody,
    TokensBody,
    NewConversation,
    ConversationUpdate,
    NewItems,
    DemoBody,
    DrainBody,
    PolicyBody,
    PlacementBody,
    *MESSAGES.values(),
    *ASKS.values(),
    *ITEMS.values(),
    tools.Function,
    tools.CustomTool,
    tools.Namespace,
    tools.ChatTool,
    tools.MessagesTool,
    tools.NamedTool,
    tools.NamedFunction,
    tools.AllowedTools,
    tools.AllowedToolsOfChat,
)
# Unions with a name of their own.
_UNIONS: Mapping[str, Any] = {
    "ListedItem": objects.ListedItem,
    "ResponseEvent": ResponseEvent,
    "OperationsFrame": OperationsFrame,
    "MessagesEvent": messages.MessagesEvent,
}
_ANSWERS = (
    objects.Error,
    Pong,
    objects.MessagesError,
    objects.Response,
    objects.BrokenResponse,
    objects.DeletedResponse,
    objects.InputTokens,
    objects.ItemList,
    objects.Conversation,
    objects.DeletedConversation,
    operators.Model,
    operators.ModelList,
    operators.Version,
    operators.Health,
    operators.Readiness,
    operators.InstanceState,
    operators.InstanceList,
    operators.InstancePolicy,
    operators.Demo,
    operators.Policies,
    operators.Placement,
    chat.ChatChunk,
    chat.ChatCompletion,
    messages.TokenCount,
    messages.WrittenMessage,
    plain.Completion,
    plain.CompletionChunk,
    plain.Tokens,
    plain.TextOfTokens,
)


def reference(name: str) -> Schema:
    """A reference to a schema among the components."""
    return {"$ref": f"{_PLACE}{name}"}


def name_of(kind: Any) -> str:
    """The name of the component for a type: a class, one of the named unions, or its name."""
    if isinstance(kind, str):
        return kind
    named = next((name for name, union in _UNIONS.items() if union == kind), None)
    return named or str(kind.__name__)


@cache
def components() -> Mapping[str, Schema]:
    """All schemas by name. They are shared: nobody may change them."""
    found = _bodies()
    for name, schema in _answers().items():
        if name in found:
            raise ValueError(f"a body and an answer have the name {name}")
        found[name] = schema
    return dict(sorted(found.items()))


def used(roots: Iterable[Any], known: Mapping[str, Schema]) -> dict[str, Schema]:
    """The schemas to which these parts of a document lead, directly or not."""
    found: dict[str, Schema] = {}
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            at = value.get("$ref")
            if isinstance(at, str) and at.startswith(_PLACE):
                name = at.removeprefix(_PLACE)
                if name not in found:
                    found[name] = known[name]
                    waiting.append(known[name])
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return dict(sorted(found.items()))


# ---- answers ----------------------------------------------------------------------------------


def _answers() -> dict[str, Schema]:
    schemas, found = _generated([*_ANSWERS, *_UNIONS.values()])
    # msgspec knows no unions of classes without tags.
    found["ChatEvent"] = {"anyOf": [reference("ChatChunk"), reference("Error")]}
    found["CompletionEvent"] = {"anyOf": [reference("CompletionChunk"), reference("Error")]}
    wholes = [reference("Response"), reference("BrokenResponse")]
    found["Failed"]["properties"]["response"] = {"anyOf": wholes}
    return {**found, **dict(zip(_UNIONS, schemas[len(_ANSWERS) :], strict=True))}


def _generated(kinds: Iterable[Any]) -> tuple[tuple[Schema, ...], dict[str, Schema]]:
    schemas, found = msgspec.json.schema_components(kinds, ref_template=f"{_PLACE}{{name}}")
    return tuple(map(_readable, schemas)), {name: _readable(one) for name, one in found.items()}


def _readable(schema: Any) -> Any:
    """A schema with descriptions in Markdown, and without defaults that say nothing."""
    if isinstance(schema, list):
        return [_readable(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.replace("``", "`")
        if key == "description" and isinstance(value, str)
        else _readable(value)
        for key, value in schema.items()
        if not (key == "default" and value is None)
    }


# ---- bodies -----------------------------------------------------------------------------------


def _bodies() -> dict[str, Schema]:
    found = _generated(_BODIES)[1]
    neutral = {name: {"const": value} for name, value in neutral_fields().items()}
    for name in ("ResponsesBody", "ChatBody", "CompletionsBody", "TextBody", "TokensBody"):
        found[name]["properties"] = neutral | found[name]["properties"]
    found["MessagesBody"]["properties"] |= {name: {} for name in sorted(IGNORED)}
    found |= _forms()
    for name, fields in _fields().items():
        found[name]["properties"] |= fields
    found["ResponsesBody"]["required"] = ["input"]
    for type_, kind in MESSAGES.items():
        found[kind.__name__]["properties"] |= {"type": {"const": type_}, "stream_id": stream_id()}
    for schema in found.values():
        _allow_nulls(schema)
    count = found["TokenCountBody"] = dict(found["MessagesBody"])
    count["title"], count["description"] = "TokenCountBody", "A body without `max_tokens`."
    count["required"] = [name for name in count["required"] if name != "max_tokens"]
    found["TokenizeBody"] = _tokenize(found["TextBody"], found["ChatBody"])
    found["Create"] = _create(found["ResponsesBody"])
    return found


def _tokenize(*bodies: Schema) -> Schema:
    """A text or a conversation, and whether the names of its tokens are wanted."""
    names = {"return_token_strs": _or_null({"type": "boolean"})}
    wanted = [{**body, "properties": {**body["properties"], **names}} for body in bodies]
    return {"title": "TokenizeBody", "anyOf": wanted}


def _create(body: Schema) -> Schema:
    """The message that starts a response: its body, and what belongs to the socket."""
    own = {
        "type": {"const": CREATE},
        "stream_id": _or_null(stream_id()),
        "generate": {"anyOf": [{"const": True}, _NULL]},
    }
    return {
        **body,
        "title": "Create",
        "description": "`response.create`: the fields of a body, and those of the socket.",
        "properties": {**body["properties"], **own},
        "required": ["type", *body["required"]],
    }


def stream_id() -> Schema:
    """The schema of the name of a stream."""
    return _generated([StreamId])[0][0]


def _fields() -> dict[str, dict[str, Schema]]:
    """The forms of fields whose type is left open, since they are checked by their ``type``."""

    def listed(name: str, **bounds: int) -> Schema:
        return {"type": "array", "items": reference(name), **bounds}

    most = {"maxItems": tools.MOST_TOOLS}
    items = {"items": reference("InputItem")}
    text = {"type": "string"}
    return {
        "ResponsesBody": {
            "input": {"anyOf": [text, listed("InputItem", minItems=1)]},
            "tools": listed("ResponsesTool", **most),
            "tool_choice": reference("ToolChoice"),
        },
        "ChatBody": {
            "tools": listed("ChatTool", **most),
            "tool_choice": reference("ToolChoiceOfChat"),
        },
        "MessagesBody": {"tools": listed("MessagesTool", **most)},
        "Namespace": {"tools": listed("FlatTool")},
        "NewConversation": {"items": _items_of(NewConversation) | items},
        "NewItems": {"items": _items_of(NewItems) | items},
    }


def _items_of(kind: type[msgspec.Struct]) -> Schema:
    """The schema of ``items``, with its bound."""
    schema: Schema = _generated([kind])[1][kind.__name__]["properties"]["items"]
    return schema


def _forms() -> dict[str, Schema]:
    """What a field with a ``type`` may hold."""
    items = [
        _typed(kind.__name__, type_, optional=type_ == "message") for type_, kind in ITEMS.items()
    ]
    referred = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "type": {"const": REFERENCE}},
        "required": ["id"],
    }
    function, custom = _typed("Function", "function"), _typed("CustomTool", "custom")
    modes = {"enum": ["none", "auto", "required"]}
    return {
        "ItemReference": referred,
        "InputItem": {"anyOf": [*items, reference("ItemReference")]},
        "FlatTool": {"anyOf": [function, custom]},
        "ResponsesTool": {"anyOf": [function, custom, _typed("Namespace", "namespace")]},
        "ToolChoice": {
            "anyOf": [
                modes,
                _typed("NamedTool", "function"),
                _typed("NamedTool", "custom"),
                _typed("AllowedTools", "allowed_tools"),
            ]
        },
        "ToolChoiceOfChat": {
            "anyOf": [
                modes,
                _typed("NamedFunction", "function"),
                _typed("AllowedToolsOfChat", "allowed_tools"),
            ]
        },
    }


def _typed(name: str, type_: str, *, optional: bool = False) -> Schema:
    """An object of the component ``name`` that has this ``type``."""
    tag: Schema = {"const": type_}
    if optional:
        return {
            "allOf": [reference(name), {"properties": {"type": _or_null(tag)}}],
        }
    return {"allOf": [reference(name), {"properties": {"type": tag}, "required": ["type"]}]}


def _allow_nulls(schema: Schema) -> None:
    """A null field counts as absent, known or not."""
    needed = schema.get("required", ())
    for name, value in schema.get("properties", {}).items():
        if name not in needed:
            schema["properties"][name] = _or_null(_within(value))
    if schema.get("additionalProperties") is False:
        schema["additionalProperties"] = _NULL


def _within(value: Schema) -> Schema:
    """The same for the values of an object without declared fields."""
    if isinstance(inner := value.get("additionalProperties"), dict) and inner:
        return {**value, "additionalProperties": _or_null(inner)}
    if "anyOf" in value:
        return {**value, "anyOf": [_within(one) for one in value["anyOf"]]}
    return value


def _or_null(value: Schema) -> Schema:
    if not value or _NULL in value.get("anyOf", ()):
        return value
    return {"anyOf": [value, _NULL]}
