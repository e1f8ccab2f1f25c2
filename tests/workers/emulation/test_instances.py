"""Values for schemas, judged by a validator of JSON Schema."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.emulation.instances import NoInstance, instance_of

# Of tools and of structured answers that people use.
SCHEMAS: list[Any] = [
    True,
    {},
    {"type": "object"},
    {"type": "string", "minLength": 12, "maxLength": 20},
    {"type": "string", "maxLength": 2},
    {"type": "string", "format": "date"},
    {"enum": ["celsius", "fahrenheit", 3, None]},
    {"const": {"a": [1]}},
    {"type": "integer", "minimum": 3, "maximum": 5},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "multipleOf": 7, "minimum": 50, "maximum": 60},
    {"type": "integer", "maximum": -5},
    {"type": "number", "minimum": 0.25, "maximum": 0.75},
    {"type": "number", "minimum": -3.5},
    {"type": ["null", "boolean"]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3},
    {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"oneOf": [{"required": ["a"], "properties": {"a": {"type": "string"}}}]},
    {
        "allOf": [
            {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "string"}}, "required": ["b"]},
        ],
        "type": "object",
    },
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "number"},
                    "next": {"$ref": "#/$defs/node"},
                },
                "required": ["value"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "size": {"type": "integer", "minimum": 1}},
        "required": ["kind", "colour"],
        "additionalProperties": {"type": "boolean"},
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
def test_values_fit_their_schemas(schema: Any) -> None:
    for seed in range(40):
        value = instance_of(schema, random.Random(seed))
        jsonschema.validate(value, schema)
        assert json.loads(json.dumps(value)) == value


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#"},
        {"type": "array", "items": {"enum": [1]}, "uniqueItems": True, "minItems": 2},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    ],
)
def test_a_schema_without_a_value_is_said_to_have_none(schema: Any) -> None:
    with pytest.raises(NoInstance):
        instance_of(schema, random.Random(0))


_leaves = st.sampled_from([schema for schema in SCHEMAS[2:17] if schema is not True])
_nested = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "maxItems": 3}, inner),
        st.builds(
            lambda parts, required: {
                "type": "object",
                "properties": parts,
                "required": [name for name in parts if name in required],
            },
            st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
            st.sets(st.sampled_from("abcd")),
        ),
    ),
    max_leaves=8,
)


@given(_nested, st.integers(0, 1000))
def test_values_fit_schemas_inside_schemas(schema: Any, seed: int) -> None:
    jsonschema.validate(instance_of(schema, random.Random(seed)), schema)
