"""The tools of a request: both APIs' forms become the one that chat templates get.

As in vLLM, a custom tool of the Responses API, whose input is free text, is shown to the model as a
function with one string; a tool of a namespace as ``NAMESPACE__NAME``. `Tools.names` tells which
calls are to be shown to the client in their own form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.schemas.errors import InvalidRequest, convert
from gateway.schemas.json_schema import check_schema, check_size
from workers.messages import ToolChoice

MOST_TOOLS = 128
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME_RULE = "1 to 64 letters, digits, '_' or '-'"
_ANY_TOOL = ToolChoice()
_INPUT = "input"  # the one parameter of a custom tool
# Arguments that end inside of it, or after it; what is there of an escape at the end is left out.
_BEGUN_INPUT = re.compile(
    r"""\s*\{\s*"input"\s*:\s*"
    ((?: [^"\\]
       | \\[^u]
       | \\u(?![dD][89abAB])[0-9a-fA-F]{4}
       | \\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}
    )*)
    (?: \\[^"]{0,10} | "\s* )?""",
    re.VERBOSE | re.DOTALL,
)


class Function(msgspec.Struct, frozen=True):
    """A function tool: flat in the Responses API, in ``function`` in chat completions."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None  # a JSON schema; None: the function has none
    strict: bool | None = None


class ChatTool(msgspec.Struct, frozen=True):
    """A tool of chat completions."""

    function: Function


class InputFormat(msgspec.Struct, frozen=True):
    """``format`` of a custom tool; only ``text`` is supported."""

    type: str


class CustomTool(msgspec.Struct, frozen=True):
    """A tool of the Responses API whose input is free text."""

    name: str
    description: str | None = None
    format: InputFormat | None = None


class Namespace(msgspec.Struct, frozen=True):
    """Tools of the Responses API under a common name."""

    name: str
    tools: list[Any]


class MessagesTool(msgspec.Struct, frozen=True):
    """A tool of the Messages API."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class NamedTool(msgspec.Struct, frozen=True):
    """A tool that a ``tool_choice`` names."""

    name: str
    namespace: str | None = None


class NamedFunction(msgspec.Struct, frozen=True):
    """The same, in chat completions."""

    function: NamedTool


class AllowedTools(msgspec.Struct, frozen=True):
    """A ``tool_choice`` among some of the tools; in chat completions within ``allowed_tools``."""

    tools: list[Any]
    mode: str = "auto"


class AllowedToolsOfChat(msgspec.Struct, frozen=True):
    """The same, in chat completions."""

    allowed_tools: AllowedTools


@dataclass(frozen=True, slots=True)
class ToolName:
    """How the client knows a tool that the model knows by another name, or in another form."""

    name: str
    namespace: str | None = None
    custom: bool = False  # its calls have an ``input`` instead of ``arguments``


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of a request.

    ``definitions`` are in the form of chat completions; ``sources`` are their paths in the body.
    """

    definitions: tuple[dict[str, Any], ...] = ()
    choice: ToolChoice = _ANY_TOOL
    sources: tuple[str, ...] = ()
    names: Mapping[str, ToolName] = field(default_factory=dict)
    size_bytes: int = 0  # of the definitions, as JSON


def flat_name(name: str, namespace: str | None) -> str:
    """The name by which the model knows a tool."""
    return name if namespace is None else f"{namespace}__{name}"


def custom_arguments(text: str) -> str:
    """The arguments, as JSON, of a call of a custom tool with this input."""
    return msgspec.json.encode({_INPUT: text}).decode()


def custom_input(arguments: str) -> str:
    """The input of a call of a custom tool: what `custom_arguments` got.

    Of arguments that are cut off, it is what there is of it. Arguments in another form are returned
    as the model wrote them.
    """
    try:
        decoded = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return _begun_input(arguments)
    if not isinstance(decoded, dict) or not isinstance(decoded.get(_INPUT), str):
        return arguments
    return str(decoded[_INPUT])


def _begun_input(arguments: str) -> str:
    """The same for arguments that end inside of the input."""
    begun = _BEGUN_INPUT.fullmatch(arguments)
    if begun is None:
        return arguments
    try:
        text: str = msgspec.json.decode(f'"{begun[1]}"')
    except msgspec.DecodeError:
        return arguments
    return text


def of_chat(tools: list[Any] | None, choice: Any, parallel: bool | None) -> Tools:
    """Convert ``tools``, ``tool_choice`` and ``parallel_tool_calls`` of chat completions.

    :raises InvalidRequest: naming the field.
    """
    found = _Found()
    for index, value in enumerate(_bounded(tools)):
        where = f"tools[{index}]"
        _check_type(value, where, ("function",), "function")
        tool = convert(value, ChatTool, where)
        found.add_function(tool.function, f"{where}.function", where)
    return found.tools(choice, parallel, of_chat=True)


def of_responses(tools: list[Any] | None, choice: Any, parallel: bool | None) -> Tools:
    """Convert the same fields of the Responses API.

    :raises InvalidRequest: naming the field.
    """
    found = _Found()
    for index, value in enumerate(_bounded(tools)):
        where = f"tools[{index}]"
        kind = _check_type(value, where, ("function", "custom", "namespace"))
        if kind != "namespace":
            found.add_of_responses(kind, value, where, None)
            continue
        namespace = convert(value, Namespace, where)
        for inner, tool in enumerate(namespace.tools):
            at = f"{where}.tools[{inner}]"
            inner_kind = _check_type(tool, at, ("function", "custom"))
            found.add_of_responses(inner_kind, tool, at, namespace.name)
    return found.tools(choice, parallel, of_chat=False)


def of_messages(tools: list[Any] | None, choice: Any, *, parallel: bool) -> Tools:
    """Convert ``tools`` of the Messages API.

    :param choice: as ``tool_choice`` of the Responses API.
    :raises InvalidRequest: naming the field.
    """
    found = _Found(schema="input_schema")
    for index, value in enumerate(_bounded(tools)):
        where = f"tools[{index}]"
        _check_type(value, where, ("custom",), "custom")
        tool = convert(value, MessagesTool, where)
        function = Function(tool.name, tool.description, tool.input_schema, tool.strict)
        found.add_function(function, where, where)
    return found.tools(choice, parallel, of_chat=False)


class _Found:
    """Tools as they are found.

    :param schema: the API's name for the schema of a tool.
    """

    def __init__(self, schema: str = "parameters") -> None:
        self._schema = schema
        self._definitions: dict[str, dict[str, Any]] = {}
        self._sources: list[str] = []
        self._names: dict[str, ToolName] = {}

    def add_of_responses(
        self, kind: str, value: dict[str, Any], where: str, namespace: str | None
    ) -> None:
        if kind == "function":
            self.add_function(convert(value, Function, where), where, where, namespace)
        else:
            self._add_custom(convert(value, CustomTool, where), where, namespace)

    def add_function(
        self, function: Function, at: str, source: str, namespace: str | None = None
    ) -> None:
        """Add a function.

        :param at: path of its fields.
        :param source: path of the tool.
        """
        definition: dict[str, Any] = {"name": _flat(function.name, namespace, at)}
        if function.description is not None:
            definition["description"] = function.description
        parameters = function.parameters
        if parameters is None:
            parameters = {"type": "object", "properties": {}}
        check_size(parameters, f"{at}.{self._schema}")
        definition["parameters"] = parameters
        if function.strict is not None:
            definition["strict"] = function.strict
        self._add(definition, at, source)
        if namespace is not None:
            self._names[definition["name"]] = ToolName(function.name, namespace)

    def _add_custom(self, tool: CustomTool, where: str, namespace: str | None) -> None:
        if tool.format is not None and tool.format.type != "text":
            raise InvalidRequest(
                "Custom tools with a grammar are not supported by this server.",
                param=f"{where}.format",
                code="unsupported_value",
            )
        definition: dict[str, Any] = {"name": _flat(tool.name, namespace, where)}
        if tool.description is not None:
            definition["description"] = tool.description
        text = {"type": "string", "description": "The freeform text payload for this tool."}
        definition["parameters"] = {
            "type": "object",
            "properties": {_INPUT: text},
            "required": [_INPUT],
            "additionalProperties": False,
        }
        self._add(definition, where, where)
        self._names[definition["name"]] = ToolName(tool.name, namespace, custom=True)

    def _add(self, definition: dict[str, Any], at: str, source: str) -> None:
        name = definition["name"]
        if name in self._definitions:
            raise InvalidRequest(f"Two tools have the name '{name}'.", param=f"{at}.name")
        if len(self._definitions) >= MOST_TOOLS:
            raise InvalidRequest(_too_many(), param="tools")
        self._definitions[name] = {"type": "function", "function": definition}
        self._sources.append(source)

    def tools(self, choice: Any, parallel: bool | None, *, of_chat: bool) -> Tools:
        """All tools, with the choice that the client leaves to the model.

        The engine generates by the parameters of a strict tool, and of one that must be called. So
        these have to be a right schema; others are only shown to the model.
        """
        allowed, mode, name = _choice(choice, of_chat, self._definitions.keys())
        if mode == "required" and not self._definitions:
            raise InvalidRequest("There is no tool to choose: 'tools' is empty.", param=_CHOICE)
        if not self._definitions:
            return Tools()
        kept = [
            (definition, source)
            for (known, definition), source in zip(
                self._definitions.items(), self._sources, strict=True
            )
            if known in allowed
        ]
        for definition, source in kept:
            function = definition["function"]
            if function.get("strict") or (mode == "required" and name in (None, function["name"])):
                at = f"{source}.function" if of_chat else source
                check_schema(function["parameters"], f"{at}.{self._schema}")
        definitions = tuple(definition for definition, _ in kept)
        return Tools(
            definitions=definitions,
            choice=ToolChoice(mode=mode, name=name, parallel=parallel is not False),
            sources=tuple(source for _, source in kept),
            names=self._names,
            size_bytes=len(msgspec.json.encode(definitions)),
        )


def _flat(name: str, namespace: str | None, at: str) -> str:
    """The name by which the model knows a tool; both names are checked."""
    for one in (name, flat_name(name, namespace)):
        if not _NAME.fullmatch(one):
            raise InvalidRequest(
                f"The name of a tool must be {_NAME_RULE}, not {one[:80]!r}.", param=f"{at}.name"
            )
    return one


def _bounded(tools: list[Any] | None) -> list[Any]:
    if tools is not None and len(tools) > MOST_TOOLS:
        raise InvalidRequest(f"{_too_many()} There are {len(tools)}.", param="tools")
    return tools or []


def _too_many() -> str:
    return f"At most {MOST_TOOLS} tools are accepted."


def _check_type(value: Any, where: str, known: tuple[str, ...], default: str | None = None) -> str:
    if not isinstance(value, dict):
        raise InvalidRequest(f"'{where}': Expected object.", param=where)
    kind = value.get("type", default)
    if isinstance(kind, str) and kind in known:
        return kind
    if kind is None:
        raise InvalidRequest(f"The tool has no type: {', '.join(known)}.", param=f"{where}.type")
    raise InvalidRequest(
        f"Tools of type {str(kind)[:64]!r} are not supported by this server; it passes tools of "
        f"the client to the model: {', '.join(known)}.",
        param=f"{where}.type",
        code="unsupported_value",
    )


# ---- tool_choice ------------------------------------------------------------------------------

_CHOICE = "tool_choice"
_MODES = ("none", "auto", "required")


def _choice(choice: Any, of_chat: bool, names: Any) -> tuple[Any, Any, str | None]:
    """The names that are allowed, the mode, and the one name that must be called."""
    if choice is None:
        return names, "auto", None
    if isinstance(choice, str):
        if choice not in _MODES:
            raise InvalidRequest(
                f"'{_CHOICE}' must be {', '.join(_MODES)}, or an object that names a tool, not "
                f"{choice[:64]!r}.",
                param=_CHOICE,
            )
        return names, choice, None
    if not isinstance(choice, dict):
        raise InvalidRequest(f"'{_CHOICE}' must be a string or an object.", param=_CHOICE)
    if choice.get("type") == "allowed_tools":
        return _allowed(choice, of_chat, names)
    return names, "required", _named(choice, _CHOICE, of_chat, names)


def _named(choice: Any, where: str, of_chat: bool, names: Any) -> str:
    """The tool that an object names."""
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind != "function" and (of_chat or kind != "custom"):
        raise InvalidRequest(
            f"'{where}' names no tool of the client.",
            param=f"{where}.type" if isinstance(choice, dict) else where,
        )
    if of_chat:
        named, path = convert(choice, NamedFunction, where).function, f"{where}.function.name"
    else:
        named, path = convert(choice, NamedTool, where), f"{where}.name"
    name = flat_name(named.name, named.namespace)
    if name not in names:
        raise InvalidRequest(f"No tool has the name {name[:64]!r}.", param=path)
    return name


def _allowed(choice: dict[str, Any], of_chat: bool, names: Any) -> tuple[Any, Any, str | None]:
    """The same for a choice among some of the tools."""
    if of_chat:
        where = f"{_CHOICE}.allowed_tools"
        allowed = convert(choice, AllowedToolsOfChat, _CHOICE).allowed_tools
    else:
        where, allowed = _CHOICE, convert(choice, AllowedTools, _CHOICE)
    if allowed.mode not in ("auto", "required"):
        raise InvalidRequest(
            f"'{where}.mode' must be auto or required, not {allowed.mode[:64]!r}.",
            param=f"{where}.mode",
        )
    if not allowed.tools:
        raise InvalidRequest(f"'{where}.tools' is empty.", param=f"{where}.tools")
    chosen = {
        _named(tool, f"{where}.tools[{index}]", of_chat, names)
        for index, tool in enumerate(allowed.tools)
    }
    return chosen, allowed.mode, None
