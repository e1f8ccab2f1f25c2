"""Requests of Anthropic's Messages API in the gateway's own form."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.schemas import tools
from gateway.schemas.errors import InvalidRequest, convert
from gateway.schemas.generation import Generation, Targets, forced_lengths_of, targets_of
from gateway.schemas.json_schema import check_depth, check_schema
from gateway.schemas.messages_body import Block, Message, MessagesBody, Thinking
from gateway.schemas.open_calls import OpenCalls, call_of, quoted
from gateway.schemas.structure import Found
from workers.messages import ChatMessage, Sampling, Structure

_ROLES = ("assistant", "system", "user")
# The worker's names of fields, and those of this API.
_NAMES = {
    "effort": "output_config.effort",
    "forced_lengths.call_tokens": "forced_lengths.call_tokens",
    "sampling.max_tokens": "max_tokens",
    "sampling.stop": "stop_sequences",
    "sampling.thinking_budget": "thinking.budget_tokens",
    "structure": "output_config.format.schema",
    "thinking": "thinking.type",
}


def from_messages(body: MessagesBody, defaults: Targets) -> Generation:
    """Convert a body.

    :raises InvalidRequest: naming the field.
    """
    messages, places = _conversation(body)
    asked = _structure(body)
    found = tools.of_messages(body.tools, _choice_of(body), parallel=_parallel(body))
    if asked is not None and found.choice.mode == "required":
        raise InvalidRequest(
            f"'tool_choice' asks for a call, and '{asked[1]}' for an answer.", param="tool_choice"
        )
    thinking = body.thinking or Thinking("adaptive")
    budget = thinking.budget_tokens if thinking.type == "enabled" else None
    if budget is not None and budget >= body.max_tokens:
        raise InvalidRequest(
            f"'thinking.budget_tokens' must be less than 'max_tokens', {body.max_tokens}.",
            param="thinking.budget_tokens",
        )
    return Generation(
        messages=messages,
        sampling=Sampling(
            max_tokens=body.max_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k or None,
            stop=tuple(text for text in body.stop_sequences or () if text),
            thinking_budget=budget,
        ),
        targets=targets_of(body.pacing, defaults),
        thinking={"enabled": True, "disabled": False}.get(thinking.type),
        effort=None if body.output_config is None else body.output_config.effort,
        tools=found.definitions,
        tools_bytes=found.size_bytes,
        tool_choice=found.choice,
        tool_names=found.names,
        tool_sources=found.sources,
        structure=None if asked is None else asked[0],
        forced_lengths=forced_lengths_of(body.forced_lengths, found, asked),
        user=None if body.metadata is None else body.metadata.user_id,
        store=False,
        resumable=False,
        messages_param="messages",
        message_items=places,
        before_items="system",
        tool_fields=((".function", ""), (".parameters", ".input_schema")),
        names=_NAMES,
    )


def _parallel(body: MessagesBody) -> bool:
    return not (body.tool_choice is not None and body.tool_choice.disable_parallel_tool_use)


def _choice_of(body: MessagesBody) -> str | dict[str, Any] | None:
    """``tool_choice`` in the form of the Responses API."""
    choice = body.tool_choice
    if choice is None or choice.type in ("auto", "none"):
        return None if choice is None else choice.type
    if choice.type == "any":
        return "required"
    if choice.name is None:
        raise InvalidRequest("The choice names no tool.", param="tool_choice.name")
    return {"type": "function", "name": choice.name}


def _structure(body: MessagesBody) -> Found | None:
    form = None if body.output_config is None else body.output_config.format
    if form is None:
        return None
    at = _NAMES["structure"]
    check_schema(form.schema, at)
    return Structure(kind="json", value=form.schema), at


def _conversation(body: MessagesBody) -> tuple[tuple[ChatMessage, ...], tuple[int, ...]]:
    """The messages for the template, and the index of the body's message that each came from.

    The system prompt, which is not one of the body's messages, has no index.
    """
    messages: list[ChatMessage] = []
    if system := _system(body.system):
        messages.append(ChatMessage(role="system", content=system))
    places, calls = [], OpenCalls()
    for index, message in enumerate(body.messages):
        new = _messages_of(message, f"messages[{index}]", calls)
        messages += new
        places += [index] * len(new)
    calls.check_none_waits()
    return tuple(messages), tuple(places)


def _system(system: str | list[Block] | None) -> str:
    if isinstance(system, str) or system is None:
        texts = [system or ""]
    else:
        texts = [_text(block, f"system[{index}]") for index, block in enumerate(system)]
    return "\n\n".join(filter(None, texts))


def _messages_of(message: Message, where: str, calls: OpenCalls) -> list[ChatMessage]:
    if message.role not in _ROLES:
        raise InvalidRequest(
            f"role must be one of {', '.join(_ROLES)}, not {quoted(message.role)}.",
            param=f"{where}.role",
        )
    content = message.content
    blocks = [Block("text", text=content)] if isinstance(content, str) else content
    if message.role == "assistant":
        calls.check_none_waits()
        return [_of_assistant(blocks, where, calls)]
    results, texts = [], []
    for index, block in enumerate(blocks):
        at = f"{where}.content[{index}]"
        if block.type == "tool_result" and message.role == "user":
            results.append(_result(block, at, calls))
        else:
            texts.append(_text(block, at))
    calls.check_none_waits()
    if texts or not results:
        text = "\n\n".join(text for text in texts if text)
        return [*results, ChatMessage(role=message.role, content=text)]
    return results


def _of_assistant(blocks: list[Block], where: str, calls: OpenCalls) -> ChatMessage:
    texts, thoughts, made = [], [], []
    for index, block in enumerate(blocks):
        at = f"{where}.content[{index}]"
        match block.type:
            case "thinking":
                thoughts.append(block.thinking or "")
            case "redacted_thinking":
                pass  # nobody but its own server can read it
            case "tool_use":
                name = block.name or ""
                calls.make(block.id or "", name, f"{at}.id")
                check_depth(block.input, "The input", f"{at}.input")
                arguments = msgspec.json.encode(block.input or {}).decode()
                made.append(call_of(block.id or "", name, arguments, at))
            case _:
                texts.append(_text(block, at))
    return ChatMessage(
        role="assistant",
        content="".join(texts),
        reasoning="\n".join(filter(None, thoughts)) or None,
        tool_calls=tuple(made),
    )


def _result(block: Block, where: str, calls: OpenCalls) -> ChatMessage:
    call_id = block.tool_use_id
    if call_id is None:
        raise InvalidRequest(
            "The result does not say of which call it is.", param=f"{where}.tool_use_id"
        )
    name = calls.answer(call_id, f"{where}.tool_use_id")
    content = block.content
    if isinstance(content, list):
        parts = [
            _text(convert(part, Block, f"{where}.content[{index}]"), f"{where}.content[{index}]")
            if isinstance(part, dict) and isinstance(part.get("type"), str)
            else _no_block(f"{where}.content[{index}]")
            for index, part in enumerate(content)
        ]
        content = "".join(parts)
    return ChatMessage(role="tool", content=content or "", tool_call_id=call_id, name=name)


def _no_block(where: str) -> str:
    raise InvalidRequest("This is no block: it has no type.", param=f"{where}.type")


def _text(block: Block, where: str) -> str:
    if block.type != "text":
        raise InvalidRequest(
            f"Blocks of type {quoted(block.type)} are not supported here; this model reads text.",
            param=f"{where}.type",
        )
    if block.text is None:
        raise InvalidRequest("The block has no text.", param=f"{where}.text")
    return block.text
