"""A seeded generator of JSON schemas whose values end: objects, arrays, bounds, patterns, refs.

It stays within what xgrammar takes; `tests.workers.kv.test_exact` has a model write values.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

NAMES = ("name", "id", "size", "tags", "city", "price", "when", "ok", "parent", "a b", "größe")
WORDS = ("red", "green", "blue", "x-1", "naïve", "two words", 'a "quote"', "")
PATTERNS = (
    "^[a-z]{2,6}$",
    "^[A-Z][0-9]{3}$",
    "^(yes|no|maybe)$",
    "^[0-9]{2}-[0-9]{2}$",
    r"^\d{1,4}(\.\d)?$",
)
FORMATS = ("date", "uuid", "ipv4")
# Values of it are long enough to be disturbed in the middle.
RECORD: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 12},
        "numbers": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 999},
            "minItems": 8,
            "maxItems": 8,
        },
        "kind": {"enum": ["sum", "difference", "something else"]},
    },
    "required": ["name", "numbers", "kind"],
    "additionalProperties": False,
}


def schema_of(seed: int) -> Schema:
    """Schema number ``seed``; the same one everywhere."""
    return _Generator(random.Random(seed)).whole()


class _Generator:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._defined: list[str] = []

    def whole(self) -> Schema:
        definitions = {}
        for name in ("point", "kind")[: self._rng.randrange(3)]:
            definitions[name] = self._value(2)
            self._defined.append(name)
        schema = self._object(0) if self._rng.random() < 0.8 else self._value(0)
        return schema | {"$defs": definitions} if definitions else schema

    def _value(self, depth: int) -> Schema:
        kinds: list[Callable[[int], Schema]] = [
            self._integer,
            self._number,
            self._string,
            self._enum,
            self._simple,
        ]
        if depth < 3:
            kinds += [self._object, self._array, self._any_of]
        if self._defined:
            kinds.append(self._ref)
        return self._rng.choice(kinds)(depth)

    def _object(self, depth: int) -> Schema:
        names = self._rng.sample(NAMES, self._rng.randrange(1, 5 - depth))
        required = [name for name in names if self._rng.random() < 0.7]
        return {
            "type": "object",
            "properties": {name: self._value(depth + 1) for name in names},
            "required": required,
            "additionalProperties": False,
        }

    def _array(self, depth: int) -> Schema:
        least = self._rng.randrange(3)
        return {
            "type": "array",
            "items": self._value(depth + 1),
            "minItems": least,
            "maxItems": least + self._rng.randrange(3),
        }

    def _any_of(self, depth: int) -> Schema:
        return {"anyOf": [self._value(depth + 1) for _ in range(self._rng.randrange(2, 4))]}

    def _ref(self, _: int) -> Schema:
        return {"$ref": f"#/$defs/{self._rng.choice(self._defined)}"}

    def _integer(self, _: int) -> Schema:
        low = self._rng.randrange(-1000, 1000)
        high = low + self._rng.randrange(1, 5000)
        if self._rng.random() < 0.3:
            return {"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": high + 2}
        return {"type": "integer", "minimum": low, "maximum": high}

    def _number(self, _: int) -> Schema:
        low = self._rng.randrange(-20, 20)
        return {"type": "number", "minimum": low, "maximum": low + self._rng.randrange(1, 50)}

    def _string(self, _: int) -> Schema:
        match self._rng.randrange(3):
            case 0:
                return {"type": "string", "pattern": self._rng.choice(PATTERNS)}
            case 1:
                return {"type": "string", "format": self._rng.choice(FORMATS)}
            case _:
                least = self._rng.randrange(3)
                return {
                    "type": "string",
                    "minLength": least,
                    "maxLength": least + self._rng.randrange(1, 8),
                }

    def _enum(self, _: int) -> Schema:
        if self._rng.random() < 0.2:
            return {"const": self._rng.choice(WORDS)}
        values: list[Any] = self._rng.sample(WORDS, 3)
        if self._rng.random() < 0.3:
            values += [1, None, True]
        return {"enum": values}

    def _simple(self, _: int) -> Schema:
        return {"type": self._rng.choice(["boolean", "null", ["boolean", "null"]])}
