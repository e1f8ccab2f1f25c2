"""Messages of chat completions, and items of the Responses API, as clients send them.

A field that is not declared here is ignored: clients send back what other servers added, such as
``id``, ``status`` and ``annotations``.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Part(msgspec.Struct, frozen=True):
    """One part of a content."""

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionOfCall(msgspec.Struct, frozen=True):
    """``function`` of a call in a message."""

    name: str
    arguments: str = ""


class CallOfMessage(msgspec.Struct, frozen=True):
    """A call that the assistant made, in a message of chat completions."""

    id: str
    type: str = "function"
    function: FunctionOfCall | None = None


class InputMessage(msgspec.Struct, frozen=True):
    """One message of chat completions."""

    role: str | None = None
    content: str | list[Part] | None = None
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # another name for `reasoning`, which wins
    refusal: str | None = None
    tool_calls: list[CallOfMessage] | None = None
    tool_call_id: str | None = None
    function_call: Any = None  # of an earlier form of the API; refused


class MessageItem(msgspec.Struct, frozen=True):
    """A message of the Responses API, of the client or sent back."""

    role: str | None = None
    content: str | list[Part] | None = None


class ReasoningItem(msgspec.Struct, frozen=True):
    """Thoughts that are sent back."""

    content: list[Part] | None = None
    summary: list[Part] | None = None  # used if there is no content


class FunctionCallItem(msgspec.Struct, frozen=True):
    """A call that the model made, sent back."""

    call_id: str
    name: str
    arguments: str = ""
    namespace: str | None = None


class CustomCallItem(msgspec.Struct, frozen=True):
    """A call of a custom tool, sent back."""

    call_id: str
    name: str
    input: str = ""
    namespace: str | None = None


class CallOutputItem(msgspec.Struct, frozen=True):
    """The result of a call; without a ``call_id``, what the client itself has to say.

    Codex tells so what its user wants of a task: no model called for it.
    """

    call_id: str | None = None
    output: str | list[Part] | None = None
    name: str | None = None  # of where it comes from; used without a call alone
    namespace: str | None = None


# The items that are understood, by their ``type``.
ITEMS: dict[str, type[msgspec.Struct]] = {
    "message": MessageItem,
    "reasoning": ReasoningItem,
    "function_call": FunctionCallItem,
    "function_call_output": CallOutputItem,
    "custom_tool_call": CustomCallItem,
    "custom_tool_call_output": CallOutputItem,
}
