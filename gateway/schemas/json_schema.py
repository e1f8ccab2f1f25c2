"""Checks JSON schemas that clients send, and how deep other JSON is, without any engine.

This finds what is wrong by the rules of JSON Schema alone, and where. Whether an engine can
generate by a schema is known when its worker compiles it. Written by hand because validators check
a schema against the schema of schemas: 2 milliseconds for each kilobyte, which is too long for the
thread that delivers tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import unquote

import msgspec

from gateway.schemas.errors import InvalidRequest

MOST_BYTES = 256 * 1024  # of one schema, as JSON
MOST_LEVELS = 64  # of objects and lists within each other; vLLM's bound

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_SCHEMAS = frozenset(  # keywords whose value is a schema
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_SCHEMAS_BY_NAME = frozenset(
    {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)
_LISTS_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NUMBERS = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"})
_COUNTS = frozenset(
    {
        "maxContains",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minContains",
        "minItems",
        "minLength",
        "minProperties",
    }
)
_TEXTS = frozenset({"$ref", "format", "pattern"})


def check_depth(value: Any, what: str, where: str) -> None:
    """Check how deep a decoded value is nested: what reads it later calls itself for each level.

    :param what: its name in the message, as the subject of a sentence.
    :param where: its path within the body.
    :raises InvalidRequest: it is nested too deep.
    """
    level = [value] if _nests(value) else []
    for _ in range(MOST_LEVELS):
        level = [inner for outer in level for inner in _values(outer) if _nests(inner)]
        if not level:
            return
    raise InvalidRequest(f"{what} is nested more than {MOST_LEVELS} levels deep.", param=where)


def check_size(schema: Any, where: str) -> None:
    """Check that a decoded schema is neither too large nor too deep.

    :param where: its path within the body.
    :raises InvalidRequest: it is.
    """
    size = len(msgspec.json.encode(schema))
    if size > MOST_BYTES:
        raise InvalidRequest(
            f"The schema has {size} bytes; at most {MOST_BYTES} are accepted.", param=where
        )
    check_depth(schema, "The schema", where)


def check_schema(schema: dict[str, Any], where: str) -> None:
    """Check a decoded schema, its size included.

    :param where: its path within the body.
    :raises InvalidRequest: it breaks a rule of JSON Schema; the error names the keyword.
    """
    check_size(schema, where)
    waiting: list[tuple[Any, _Place]] = [(schema, _Place(None, where))]
    while waiting:
        inner, place = waiting.pop()
        if isinstance(inner, bool):
            continue
        if not isinstance(inner, dict):
            place.refuse("must be a schema: an object, or true or false")
        for keyword, value in inner.items():
            at = _Place(place, f".{keyword}")
            _check_keyword(keyword, value, at)
            if keyword == "$ref":
                _check_reference(schema, value, at)
            waiting.extend(_inner_schemas(keyword, value, at))


class _Place:
    """Where a value stands. Its path is only made for a refusal: names may be long."""

    __slots__ = ("_outer", "_step")

    def __init__(self, outer: _Place | None, step: str) -> None:
        self._outer = outer
        self._step = step

    def refuse(self, what: str) -> NoReturn:
        """Raise the refusal of the value."""
        steps, place = [], self._outer
        while place is not None:
            steps.append(place._step)
            place = place._outer
        path = "".join((*reversed(steps), self._step))
        raise InvalidRequest(f"'{path}' {what}.", param=path)


def _check_keyword(keyword: str, value: Any, at: _Place) -> None:
    """Check the form of a keyword's value, but not the schemas in it."""
    if keyword == "type":
        names = value if isinstance(value, list) and value else [value]
        if any(not isinstance(name, str) or name not in _TYPES for name in names):
            at.refuse(f"must be one of {', '.join(sorted(_TYPES))}, or a list of these")
    elif keyword in _SCHEMAS_BY_NAME:
        if not isinstance(value, dict):
            at.refuse("must be an object")
    elif keyword in _LISTS_OF_SCHEMAS:
        if not isinstance(value, list) or not value:
            at.refuse("must be a list that is not empty")
    elif keyword == "required":
        if not isinstance(value, list) or any(not isinstance(name, str) for name in value):
            at.refuse("must be a list of strings")
    elif keyword == "enum":
        if not isinstance(value, list):
            at.refuse("must be a list")
    elif keyword in _NUMBERS:  # exclusive bounds of draft 4 are true or false
        if not isinstance(value, int | float):
            at.refuse("must be a number")
    elif keyword in _COUNTS:
        whole = isinstance(value, int | float) and not isinstance(value, bool)
        if not whole or value < 0 or value != int(value):
            at.refuse("must be a whole number, at least 0")
    elif keyword in _TEXTS and not isinstance(value, str):
        at.refuse("must be a string")


def _inner_schemas(keyword: str, value: Any, at: _Place) -> Iterator[tuple[Any, _Place]]:
    if keyword in _SCHEMAS_BY_NAME:
        yield from ((inner, _Place(at, f".{name}")) for name, inner in value.items())
    elif keyword in _LISTS_OF_SCHEMAS or (keyword == "items" and isinstance(value, list)):
        yield from ((inner, _Place(at, f"[{index}]")) for index, inner in enumerate(value))
    elif keyword in _SCHEMAS:
        yield value, at


def _check_reference(schema: dict[str, Any], reference: str, at: _Place) -> None:
    """Check that a reference leads to something within the schema."""
    if not reference.startswith("#"):
        at.refuse("must lead to a place within the schema: '#/...'")
    if not reference.startswith("#/"):
        return  # the schema itself, or an anchor
    target: Any = schema
    for step in unquote(reference[2:]).split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and name in target:
            target = target[name]
        elif isinstance(target, list) and _is_index(name, target):
            target = target[int(name)]
        else:
            at.refuse(f"leads nowhere: {reference[:64]!r}")


def _is_index(text: str, values: list[Any]) -> bool:
    """Whether a step of a reference leads to an element of a list."""
    # Python converts no text of thousands of digits.
    return text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(values)


def _values(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _nests(value: Any) -> bool:
    return isinstance(value, dict | list)
