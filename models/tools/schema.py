"""Tools and calls in Qwen3's format: the block of the system prompt, a call, a result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TOOL_CALL, END_TOOL_CALL = "<tool_call>", "</tool_call>"
TOOL_RESPONSE, END_TOOL_RESPONSE = "<tool_response>", "</tool_response>"

HEAD = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TAIL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    f"within {TOOL_CALL}{END_TOOL_CALL} XML tags:\n{TOOL_CALL}\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n' + END_TOOL_CALL
)

Value = str | int | float
_PURPOSES = {
    "calculator": "math", "add": "add", "subtract": "subtract", "multiply": "multiply",
    "divide": "divide", "converter": "units", "clock": "time", "other": "other",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a tool. `slot` says what a task puts there, whatever the name."""

    name: str
    slot: str
    type: str = "string"
    description: str | None = None
    required: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    def schema(self) -> dict[str, Any]:
        """The JSON schema of the parameter."""
        described = {"description": self.description} if self.description else {}
        return {"type": self.type, **described, **self.extra}


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool. `role` says what it does ("calculator", "add", "clock"), whatever its name."""

    name: str
    role: str
    description: str
    parameters: tuple[Parameter, ...] = ()

    @property
    def purpose(self) -> str:
        """What the tool is for, in one word, as the model names it while it thinks."""
        return self.role.split(" ")[1] if self.role.startswith("lookup ") else _PURPOSES[self.role]

    def definition(self) -> dict[str, Any]:
        """The tool as a chat completion request has it."""
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {p.name: p.schema() for p in self.parameters},
            "required": [p.name for p in self.parameters if p.required],
        }
        function = {"name": self.name, "description": self.description, "parameters": schema}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool with its arguments, and what the tool returns."""

    name: str
    arguments: Mapping[str, Value]
    result: str

    def text(self) -> str:
        """The call as the model writes it."""
        arguments = json.dumps(dict(self.arguments), ensure_ascii=False)
        name = json.dumps(self.name, ensure_ascii=False)
        return f'{TOOL_CALL}\n{{"name": {name}, "arguments": {arguments}}}\n{END_TOOL_CALL}'


def arguments_of(tool: Tool, values: Mapping[str, Value]) -> dict[str, Value]:
    """The arguments of a call: the value of each parameter's slot, in the tool's order."""
    return {p.name: values[p.slot] for p in tool.parameters if p.slot in values}


def responses(results: Sequence[str]) -> str:
    """The content of the user turn that brings the results of one turn's calls."""
    return "\n".join(f"{TOOL_RESPONSE}\n{text}\n{END_TOOL_RESPONSE}" for text in results)


def system_block(tools: Sequence[Tool]) -> str:
    """What the chat template writes into the system prompt for these tools."""
    lines = [json.dumps(tool.definition(), ensure_ascii=False) for tool in tools]
    return "\n".join([HEAD, *lines]) + TAIL
