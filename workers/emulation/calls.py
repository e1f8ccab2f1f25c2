"""Calls of tools that no model writes: for emulated devices, and for load of exact lengths.

A call names one of the request's own tools, and its arguments fit the tool's schema. The text is
Qwen's: a JSON object between ``<tool_call>`` and ``</tool_call>``. Pure: chance comes from the
caller.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from workers.emulation.instances import NoInstance, instance_of
from workers.messages import ToolChoice
from workers.policy.phase import CALL_END, CALL_START

Tool: TypeAlias = Mapping[str, Any]  # in the form of chat completions
Encode: TypeAlias = Callable[[str], Sequence[int]]  # text to token ids, without special tokens

# Of the requests that may call a tool, so many do: tasks take 4 rounds on average.
_CALLS = 0.75
_TWO_CALLS = 0.2
_FILLER = " and so on"  # makes a text argument longer
_SPACE = " "


class CallTooShort(ValueError):
    """No call has so few tokens."""


def drawn_calls(tools: Sequence[Tool], choice: ToolChoice, rng: random.Random) -> str:
    """The text of one call, or two where they may be parallel; empty where none is made."""
    if choice.mode == "none" or not tools:
        return ""
    if choice.mode == "auto" and rng.random() >= _CALLS:
        return ""
    calls = [_call(_chosen(tools, choice, rng), rng)]
    if choice.parallel and rng.random() < _TWO_CALLS:
        calls.append(_call(_chosen(tools, choice, rng), rng))
    return "\n".join(calls)


def call_of_length(
    tokens: int, tools: Sequence[Tool], choice: ToolChoice, encode: Encode, rng: random.Random
) -> tuple[int, ...]:
    """The tokens of a call, exactly so many, with the markers around it.

    :raises CallTooShort: it takes more; the message says how many.
    """
    tool = _chosen(tools, choice, rng)
    head, tail = _parts(tool, rng)
    first, last = tuple(encode(head)), tuple(encode(tail))
    missing = tokens - len(first) - len(last)
    if missing < 0:
        raise CallTooShort(f"a call of {_name(tool)} takes at least {tokens - missing} tokens")
    # White space is no part of any value; in a text argument words do as well.
    filler = tuple(encode(_FILLER if head.endswith(_OPEN_TEXT) else _SPACE))
    return first + (filler * (missing // len(filler) + 1))[:missing] + last


_OPEN_TEXT = "so it goes"  # the end of a text argument that takes more words


def _parts(tool: Tool, rng: random.Random) -> tuple[str, str]:
    """The text of a call before and after the place where it can be made longer."""
    arguments = _arguments(tool, rng)
    text = _call_text(_name(tool), arguments)
    long = next((name for name in arguments if _takes_text(tool, name)), None)
    if long is not None:
        text = _call_text(_name(tool), arguments | {long: _OPEN_TEXT})
        place = text.index(_OPEN_TEXT) + len(_OPEN_TEXT)
    else:
        place = text.rindex("}", 0, text.rindex("}"))  # inside the arguments
    return text[:place], text[place:]


def _takes_text(tool: Tool, name: str) -> bool:
    """Whether any text is a value of this parameter."""
    schema = _parameters(tool).get("properties", {}).get(name)
    return (
        isinstance(schema, Mapping)
        and schema.keys() <= {"type", "description", "title"}
        and (schema.get("type") == "string")
    )


def _call(tool: Tool, rng: random.Random) -> str:
    return _call_text(_name(tool), _arguments(tool, rng))


def _call_text(name: str, arguments: Mapping[str, Any]) -> str:
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{CALL_START}\n{call}\n{CALL_END}"


def _arguments(tool: Tool, rng: random.Random) -> dict[str, Any]:
    try:
        drawn = instance_of(_parameters(tool), rng)
    except NoInstance:
        return {}
    return drawn if isinstance(drawn, dict) else {}


def _chosen(tools: Sequence[Tool], choice: ToolChoice, rng: random.Random) -> Tool:
    named = [tool for tool in tools if _name(tool) == choice.name]
    return rng.choice(named or list(tools))


def _name(tool: Tool) -> str:
    return str(_function(tool).get("name", ""))


def _parameters(tool: Tool) -> Mapping[str, Any]:
    parameters = _function(tool).get("parameters")
    return {"type": "object"} | dict(parameters) if isinstance(parameters, Mapping) else {}


def _function(tool: Tool) -> Mapping[str, Any]:
    function = tool.get("function")
    return function if isinstance(function, Mapping) else {}
