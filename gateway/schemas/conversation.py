"""The conversation of a request: what clients send becomes the messages of the chat template.

Checks that calls of tools and their results belong together. In chat completions the results
follow the message with the calls. In the Responses API they come anywhere after their calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.schemas.errors import InvalidRequest, convert, joined
from gateway.schemas.items import (
    ITEMS,
    CallOfMessage,
    CallOutputItem,
    CustomCallItem,
    FunctionCallItem,
    InputMessage,
    MessageItem,
    Part,
    ReasoningItem,
)
from gateway.schemas.open_calls import OpenCalls, call_of, quoted
from gateway.schemas.tools import custom_arguments, flat_name
from workers.messages import ChatMessage, ToolCall

_SPOKEN_ROLES = ("assistant", "developer", "system", "user")
_CHAT_ROLES = (*_SPOKEN_ROLES, "tool")
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_THOUGHT_PARTS = frozenset({"text", "reasoning_text", "summary_text"})


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages of a request, and the index of the item with which each one begins."""

    messages: tuple[ChatMessage, ...]
    items: tuple[int, ...]


def of_chat(inputs: list[InputMessage]) -> tuple[ChatMessage, ...]:
    """Convert the messages of chat completions, one by one.

    :raises InvalidRequest: naming the field; also for a call without a result, a result without a
        call, and arguments that are no JSON object.
    """
    messages, calls = [], OpenCalls()
    for index, message in enumerate(inputs):
        where = f"messages[{index}]"
        if message.role != "tool":
            calls.check_none_waits()
        messages.append(_chat_message(message, where, calls))
    calls.check_none_waits()
    return tuple(messages)


def of_items(
    inputs: list[Any], history: tuple[ChatMessage, ...], name: str = "input", *, whole: bool = True
) -> Conversation:
    """Convert the ``input`` of the Responses API.

    As in vLLM, consecutive items of the assistant become one message: the reasoning, the text and
    the calls of one turn.

    :param history: the conversation that it continues; its last calls may wait for results.
    :param name: of the field that has the items.
    :param whole: whether it is to be answered: then no call waits for a result.
    :raises InvalidRequest: as `of_chat`.
    """
    turns, calls = _Turns(), OpenCalls()
    calls.continue_from(history)
    for index, value in enumerate(inputs):
        turns.index = index
        _add_item(value, f"{name}[{index}]", turns, calls)
    if whole:
        calls.check_none_waits()
    return turns.conversation()


# ---- chat completions -------------------------------------------------------------------------


def _chat_message(message: InputMessage, where: str, calls: OpenCalls) -> ChatMessage:
    role = _role(message.role, _CHAT_ROLES, where)
    if message.function_call is not None:
        raise InvalidRequest(
            "'function_call' is not supported; send 'tool_calls'.", param=f"{where}.function_call"
        )
    if message.tool_calls and role != "assistant":
        raise InvalidRequest(
            "Only a message of the assistant has calls.", param=f"{where}.tool_calls"
        )
    if role == "tool":
        return _tool_message(message, where, calls)
    if role != "assistant":
        content = _text(message.content, f"{where}.content")
        return ChatMessage(role=role, content=content, name=message.name)
    made = tuple(
        _call_of_message(call, f"{where}.tool_calls[{index}]", calls)
        for index, call in enumerate(message.tool_calls or ())
    )
    # A message of thoughts, or of calls, may have no content.
    content = message.refusal or ""
    if message.content is not None:
        content = _text(message.content, f"{where}.content")
    return ChatMessage(
        role=role,
        content=content,
        reasoning=message.reasoning or message.reasoning_content or None,
        tool_calls=made,
        name=message.name,
    )


def _tool_message(message: InputMessage, where: str, calls: OpenCalls) -> ChatMessage:
    if message.tool_call_id is None:
        raise InvalidRequest(
            "The result does not say of which call it is.", param=f"{where}.tool_call_id"
        )
    name = calls.answer(message.tool_call_id, f"{where}.tool_call_id")
    return ChatMessage(
        role="tool",
        content=_text(message.content, f"{where}.content"),
        tool_call_id=message.tool_call_id,
        name=message.name or name,
    )


def _call_of_message(call: CallOfMessage, where: str, calls: OpenCalls) -> ToolCall:
    if call.type != "function":
        raise InvalidRequest(
            f"Calls of type {quoted(call.type)} are not supported; only 'function' is.",
            param=f"{where}.type",
        )
    if call.function is None:
        raise InvalidRequest("The call has no 'function'.", param=f"{where}.function")
    calls.make(call.id, call.function.name, f"{where}.id")
    return call_of(call.id, call.function.name, call.function.arguments, f"{where}.function")


# ---- Responses --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Turn:
    """A message as it grows out of items."""

    role: str
    content: str = ""
    reasoning: str | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)
    tool_call_id: str | None = None
    name: str | None = None

    def message(self) -> ChatMessage:
        """The message, now that no item will add to it."""
        return ChatMessage(
            role=self.role,
            content=self.content,
            reasoning=self.reasoning,
            tool_calls=tuple(self.tool_calls),
            tool_call_id=self.tool_call_id,
            name=self.name,
        )


class _Turns:
    """The messages that items make, in order."""

    def __init__(self) -> None:
        self.index = 0  # of the item that is being added
        self._turns: list[_Turn] = []
        self._items: list[int] = []

    def add(self, turn: _Turn) -> _Turn:
        """Begin a message."""
        self._turns.append(turn)
        self._items.append(self.index)
        return turn

    def of_assistant(self, *, without: str = "") -> _Turn:
        """The assistant's message that is the last one, or a new one.

        :param without: a field; if the last message has it, a new one begins.
        """
        last = self._turns[-1] if self._turns else None
        if last is None or last.role != "assistant" or (without and getattr(last, without)):
            return self.add(_Turn("assistant"))
        return last

    def conversation(self) -> Conversation:
        """All messages."""
        return Conversation(tuple(turn.message() for turn in self._turns), tuple(self._items))


def _add_item(value: Any, where: str, turns: _Turns, calls: OpenCalls) -> None:
    kind = value.get("type", "message") if isinstance(value, dict) else "message"
    if not isinstance(kind, str) or kind not in ITEMS:
        raise InvalidRequest(
            f"Items of type {quoted(str(kind))} are not supported.", param=f"{where}.type"
        )
    match convert(value, ITEMS[kind], where):
        case MessageItem(role="assistant") as item:
            text = "" if item.content is None else _text(item.content, f"{where}.content")
            turns.of_assistant(without="content").content = text
        case MessageItem() as item:
            role = _role(item.role, _SPOKEN_ROLES, where)
            text = _text(item.content, f"{where}.content")
            turns.add(_Turn(role, text))
        case ReasoningItem() as item:
            if thoughts := _thoughts(item, where):
                turns.of_assistant(without="reasoning").reasoning = thoughts
        case FunctionCallItem() as item:
            name = flat_name(item.name, item.namespace)
            calls.make(item.call_id, name, f"{where}.call_id")
            call = call_of(item.call_id, name, item.arguments, where)
            turns.of_assistant().tool_calls.append(call)
        case CustomCallItem() as item:
            name = flat_name(item.name, item.namespace)
            calls.make(item.call_id, name, f"{where}.call_id")
            call = call_of(item.call_id, name, custom_arguments(item.input), where)
            turns.of_assistant().tool_calls.append(call)
        case CallOutputItem(call_id=None) as item:
            turns.add(_Turn("user", _without_call(item, where)))
        case CallOutputItem(call_id=str(call_id), output=given):
            name = calls.answer(call_id, f"{where}.call_id")
            text = _text(given, f"{where}.output")
            turns.add(_Turn("tool", text, tool_call_id=call_id, name=name))


def _without_call(item: CallOutputItem, where: str) -> str:
    """The text of a result that belongs to no call, with the name of where it comes from.

    Few templates have a place for it, so the model reads it as a message of the user.
    """
    if not item.name:
        raise InvalidRequest("The result says of no call that it is its.", param=f"{where}.call_id")
    source = ".".join(filter(None, (item.namespace, item.name)))
    return f"{source}:\n{_text(item.output, f'{where}.output')}"


def _thoughts(item: ReasoningItem, where: str) -> str:
    """The text of a reasoning item; of its summary if it has no text of its own."""
    name, parts = ("content", item.content) if item.content else ("summary", item.summary or [])
    texts = []
    for index, part in enumerate(parts):
        if part.type not in _THOUGHT_PARTS or part.text is None:
            raise InvalidRequest(
                f"Parts of type {quoted(part.type)} are not thoughts.",
                param=f"{where}.{name}[{index}].type",
            )
        texts.append(part.text)
    return "\n".join(texts)


# ---- both -------------------------------------------------------------------------------------


def _role(role: str | None, known: tuple[str, ...], where: str) -> str:
    if role not in known:
        raise InvalidRequest(
            f"role must be one of {', '.join(sorted(known))}, not {role!r}.",
            param=f"{where}.role",
        )
    return "system" if role == "developer" else role


def _text(content: str | list[Part] | None, where: str) -> str:
    """The text of a content.

    :param where: its path.
    """
    if content is None:
        raise InvalidRequest(f"There is no {where.rpartition('.')[2]}.", param=where)
    if isinstance(content, str):
        return content
    texts = []
    for index, part in enumerate(content):
        at = joined(where, f"[{index}]")
        if part.type == "refusal" and part.refusal is not None:
            texts.append(part.refusal)
            continue
        if part.type not in _TEXT_PARTS:
            raise InvalidRequest(
                f"Content of type {quoted(part.type)} is not supported; this model reads text.",
                param=f"{at}.type",
            )
        if part.text is None:
            raise InvalidRequest("The part has no text.", param=f"{at}.text")
        texts.append(part.text)
    return "".join(texts)
