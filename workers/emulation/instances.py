"""A value that fits a JSON schema, for output that no model writes.

Follows the parts of JSON Schema that tools and structured answers use: types, properties, items,
enumerations, bounds, local references, and the first possibility of a choice. Does not follow
``pattern`` and ``not``. Pure: chance comes from the caller.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

_DEPTH = 6  # beyond it, only what a schema requires
_DEEPEST = 40  # a schema that requires itself has no value
_WORDS = ("red", "green", "blue", "north", "south", "spring", "paper", "river")
# Values of formats that others check.
_FORMATS = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "reader@example.org",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.org/",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
}


class NoInstance(ValueError):
    """No value was found that fits the schema."""


def instance_of(schema: Any, rng: random.Random) -> Any:
    """Draw a value; :raises NoInstance: if the schema has none that can be found."""
    return _Drawing(schema, rng).draw(schema, 0)


class _Drawing:
    def __init__(self, root: Any, rng: random.Random) -> None:
        self._root = root
        self._rng = rng

    def draw(self, schema: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise NoInstance("the schema requires itself")
        if schema is False:
            raise NoInstance("the schema allows nothing")
        if not isinstance(schema, Mapping):
            return self._rng.choice(_WORDS)
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._rng.choice(list(schema["enum"]))
        kind = _type_of(schema)
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._string(schema)
            case "integer" | "number":
                return self._number(schema, whole=kind == "integer")
            case "boolean":
                return self._rng.random() < 0.5
            case _:
                return None

    def _resolved(self, schema: Schema) -> Schema:
        """The schema with its references and choices replaced by what they lead to."""
        merged = dict(schema)
        for _ in range(_DEEPEST):
            parts: list[Any] = []
            if "$ref" in merged:
                parts.append(self._target(merged.pop("$ref")))
            for name in ("anyOf", "oneOf"):
                parts += merged.pop(name, [])[:1]
            parts += merged.pop("allOf", [])
            if not parts:
                return merged
            for part in parts:
                if part is False:
                    raise NoInstance("the schema allows nothing")
                if isinstance(part, Mapping):
                    merged = _both(merged, part)
        raise NoInstance("its references have no end")

    def _target(self, reference: str) -> Any:
        found = self._root
        for name in reference.lstrip("#").strip("/").split("/"):
            key = name.replace("~1", "/").replace("~0", "~")
            if key:
                found = found[key] if isinstance(found, Mapping) and key in found else None
        if found is None:
            raise NoInstance(f"{reference} leads nowhere")
        return found

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        value: dict[str, Any] = {}
        properties = schema.get("properties", {})
        for name, part in properties.items():
            if name in required or (depth < _DEPTH and self._rng.random() < 0.5):
                value[name] = self.draw(part, depth + 1)
        for name in sorted(required - properties.keys()):
            value[name] = self.draw(schema.get("additionalProperties", True), depth + 1)
        return value

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        first = list(schema.get("prefixItems", ()))
        items = schema.get("items", True)
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", max(least, 3))
        if items is False:
            most = min(most, len(first))
        count = least if depth >= _DEPTH else self._rng.randint(least, max(least, most))
        value: list[Any] = []
        for place in range(count):
            part = first[place] if place < len(first) else items
            drawn = self.draw(part, depth + 1)
            if schema.get("uniqueItems") and drawn in value:
                if len(value) >= least:
                    break
                drawn = self._other(part, value, depth)
            value.append(drawn)
        return value

    def _other(self, schema: Any, value: list[Any], depth: int) -> Any:
        for _ in range(100):
            drawn = self.draw(schema, depth + 1)
            if drawn not in value:
                return drawn
        raise NoInstance("too few different items")

    def _string(self, schema: Schema) -> str:
        text = _FORMATS.get(schema.get("format", ""))
        if text is not None:
            return text
        text = self._rng.choice(_WORDS)
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        while len(text) < least:
            text += " " + self._rng.choice(_WORDS)
        return text[: max(least, len(text)) if most is None else most]

    def _number(self, schema: Schema, *, whole: bool) -> float:
        step = schema.get("multipleOf", 1)
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        if low is None:
            low = 0 if high is None else min(0, high - 100 * step)
        if high is None:
            high = low + 100 * step
        least = -int(-low // step)
        most = int(high // step)
        if "exclusiveMinimum" in schema and least * step <= schema["exclusiveMinimum"]:
            least += 1
        if "exclusiveMaximum" in schema and most * step >= schema["exclusiveMaximum"]:
            most -= 1
        if least > most:
            if whole or "multipleOf" in schema:
                raise NoInstance("its bounds leave no number")
            return float(low + high) / 2
        value = self._rng.randint(least, most) * step
        return int(value) if whole else float(value)


def _type_of(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list | tuple):
        kind = next((one for one in kind if one != "null"), "null")
    if kind is not None:
        return str(kind)
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _both(one: Schema, other: Schema) -> dict[str, Any]:
    merged = {**other, **one}
    if "properties" in one and "properties" in other:
        merged["properties"] = {**other["properties"], **one["properties"]}
    if "required" in one and "required" in other:
        merged["required"] = [*other["required"], *one["required"]]
    return merged
