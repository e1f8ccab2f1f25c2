"""Schemas as xgrammar should see them, and what it would not see in them. Pure.

xgrammar ignores some keywords, and others in some places. The output would not fit the schema then,
so `overlooked` finds them.

xgrammar builds the grammar of a string with ``minLength`` or ``maxLength`` from any characters but
quotes, backslashes and line breaks. So a model could write a raw tab, which no JSON parser takes.
A pattern says the same without control characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

# Keywords whose values are schemas, lists of them, or schemas by name. Other values are data.
_ONE = (
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
)
_SEVERAL = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_NAMED = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
_BOUNDS = ("minLength", "maxLength")
_CHARACTER = r'[^"\\\x00-\x1f]'


def without_control_characters(schema: Schema) -> Schema:
    """The schema with a pattern in the place of every bound on the length of a string."""
    result = dict(schema)
    for key, value in schema.items():
        if key in _ONE and isinstance(value, dict):
            result[key] = without_control_characters(value)
        elif key in _SEVERAL and isinstance(value, list):
            result[key] = [_inner(item) for item in value]
        elif key in _NAMED and isinstance(value, dict):
            result[key] = {name: _inner(item) for name, item in value.items()}
    bounds = [result.get(bound) for bound in _BOUNDS]
    if (
        _may_be_string(result.get("type"))
        and any(bound is not None for bound in bounds)
        and all(bound is None or (type(bound) is int and bound >= 0) for bound in bounds)
        and not {"pattern", "format", "enum", "const"} & result.keys()
    ):
        least, most = bounds
        result = {key: value for key, value in result.items() if key not in _BOUNDS}
        result["pattern"] = f"^{_CHARACTER}{{{least or 0},{'' if most is None else most}}}$"
    return result


# Keywords that xgrammar ignores everywhere, or where vLLM does not refuse them.
_IGNORED = frozenset(
    "$dynamicRef contains dependentRequired dependentSchemas else if maxContains minContains "
    "multipleOf not then uniqueItems".split()
)
# Those that it ignores where the schema does not say the type that they are about.
_ABOUT = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), "number"),
    **dict.fromkeys(("minLength", "maxLength", "pattern"), "string"),
    **dict.fromkeys(("minItems", "maxItems"), "array"),
    **dict.fromkeys(("maxProperties", "minProperties", "propertyNames", "required"), "object"),
}
_SAYS = {"properties": "object", "items": "array", "prefixItems": "array"}  # as good as the type
# Beside these it ignores what else the schema demands.
_CHOICES = ("$ref", "allOf", "anyOf", "oneOf")
_DEMANDS_NOTHING = frozenset(
    "$anchor $comment $defs $id $schema default definitions deprecated description discriminator "
    "examples format nullable readOnly title writeOnly".split()
)


def overlooked(schema: Schema, at: str = "") -> str | None:
    """The first thing in a schema that xgrammar would not see, with its path, or None.

    It takes ``oneOf`` for ``anyOf``, which is right where no value fits two of them.

    :raises TypeError: a keyword has a value of a wrong kind, as `AttributeError` says, too.
    """
    for keyword in schema:
        if keyword in _IGNORED and schema[keyword] is not False:
            return f"'{at}{keyword}' is not supported"
    if not f"{schema.get('$ref', '#')}/".startswith("#/"):
        return f"'{at}$ref' must be a path: '#/...'"
    if any(one is True or one == {} for one in schema.get("oneOf", [])):
        return f"'{at}oneOf' has a schema that everything fits"
    if (beside := _beside(schema)) is not None:
        return f"'{at}{beside[0]}' is not supported beside '{beside[1]}'"
    kinds = schema.get("type", [])
    types = {kinds} if isinstance(kinds, str) else set(kinds)
    types |= {kind for keyword, kind in _SAYS.items() if keyword in schema}
    types |= {"number"} if "integer" in types else set()
    for keyword, kind in _ABOUT.items():
        if keyword in schema and kind not in types:
            return f"'{at}{keyword}' needs a 'type', {kind!r}"
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in properties:
            return f"'{at}required' names {name[:64]!r}, which is not in 'properties'"
    if len(schema.get("patternProperties", {})) > (0 if properties else 1):
        return f"'{at}patternProperties' is not supported beside other properties"
    for path, inner in _schemas_in(schema, at):
        if (found := overlooked(inner, path)) is not None:
            return found
    return None


def _beside(schema: Schema) -> tuple[str, str] | None:
    """A keyword that is ignored beside a choice, and that choice."""
    choices = [keyword for keyword in _CHOICES if keyword in schema]
    for choice in choices:
        for keyword in schema.keys() - _DEMANDS_NOTHING - {choice}:
            inner = schema[choice] if isinstance(schema[choice], list) else []
            said = bool(inner) and all(isinstance(one, dict) and "type" in one for one in inner)
            if keyword != "type" or not said:
                return keyword, choice
    return None


def _schemas_in(schema: Schema, at: str) -> Iterator[tuple[str, Schema]]:
    for key, value in schema.items():
        if key in _ONE and isinstance(value, dict):
            yield f"{at}{key}.", value
        elif key in _SEVERAL and isinstance(value, list):
            yield from (
                (f"{at}{key}[{index}].", inner)
                for index, inner in enumerate(value)
                if isinstance(inner, dict)
            )
        elif key in _NAMED and isinstance(value, dict):
            yield from (
                (f"{at}{key}.{name[:64]}.", inner)
                for name, inner in value.items()
                if isinstance(inner, dict)
            )


def _may_be_string(kind: Any) -> bool:
    return kind == "string" or (isinstance(kind, list) and "string" in kind)


def _inner(value: Any) -> Any:
    return without_control_characters(value) if isinstance(value, dict) else value
