"""Checks the tools of a request, and the calls and results in its conversation.

Everything that is wrong with them is found before the prompt is rendered, and named by its field.
Schemas are not compiled here: a hostile one could crash this process. Those that the engine
generates by are tried in another one (`workers.engine.structure`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from workers.errors import RequestRejected
from workers.messages import ChatMessage, ToolChoice

MAX_TOOLS = 512
_NAME = re.compile(r"[\w.:/-]{1,128}")


def check_tools(tools: Sequence[dict[str, Any]], choice: ToolChoice) -> None:
    """Check tools in the form of chat completions.

    :raises RequestRejected: naming the field, such as ``tools[3].function.parameters``.
    """
    if len(tools) > MAX_TOOLS:
        raise _wrong("tools", f"tools must be at most {MAX_TOOLS}, got {len(tools)}")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        name = _checked(tool, f"tools[{index}]")
        if name in names:
            raise _wrong(f"tools[{index}].function.name", f"two tools have the name {name!r}")
        names.add(name)
    if choice.mode == "required" and not tools:
        raise _wrong("tool_choice", "tool_choice asks for a call, and the request has no tools")
    if choice.name is not None and choice.name not in names:
        raise _wrong("tool_choice", f"tool_choice names {choice.name!r}, which is not in tools")


def _checked(tool: dict[str, Any], where: str) -> str:
    """:return: its name."""
    if tool.get("type", "function") != "function":
        raise _wrong(f"{where}.type", f"a tool must be a function, got {tool.get('type')!r}")
    function = tool.get("function")
    if not isinstance(function, dict):
        raise _wrong(f"{where}.function", "a tool must have a function")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _wrong(
            f"{where}.function.name",
            "a tool must have a name of letters, digits, and the signs _ - . : /, at most 128",
        )
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        raise _wrong(f"{where}.function.description", "a description must be a string")
    parameters = function.get("parameters")
    if parameters is None:
        return name
    if not isinstance(parameters, dict):
        raise _wrong(f"{where}.function.parameters", "parameters must be a JSON schema, an object")
    return name


def check_conversation(messages: Sequence[ChatMessage]) -> None:
    """Check calls and their results; :raises RequestRejected: naming ``messages``."""
    made: set[str] = set()
    for index, message in enumerate(messages):
        for call in message.tool_calls:
            if message.role != "assistant":
                raise _wrong("messages", f"message {index}: only an assistant calls tools")
            if not call.name:
                raise _wrong("messages", f"message {index}: a call must have a name")
            if not _is_object(call.arguments):
                raise _wrong(
                    "messages",
                    f"message {index}: the arguments of the call {call.call_id!r} are no JSON "
                    "object",
                )
            made.add(call.call_id)
        if message.role == "tool" and message.tool_call_id not in made:
            raise _wrong(
                "messages",
                f"message {index} is the result of the call {message.tool_call_id!r}, "
                "which was never made",
            )


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments or "{}"), dict)
    except (ValueError, RecursionError):
        return False


def _wrong(param: str, message: str) -> RequestRejected:
    return RequestRejected("invalid_value", message, param)
