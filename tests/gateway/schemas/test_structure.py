"""Structured output in the forms of both APIs and of vLLM, and the check of JSON schemas."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import jsonschema
import pytest

from gateway.config import PacingConfig
from gateway.schemas.bodies import ChatBody, ResponsesBody, parse_body, parse_json_object
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.generation import default_targets, from_chat, from_responses
from gateway.schemas.json_schema import MOST_BYTES, MOST_LEVELS, check_schema
from workers.messages import Structure

DEFAULTS = default_targets(PacingConfig(), {})
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
AS_JSON = Structure(kind="json", value=SCHEMA)


def of_chat(**fields: Any) -> Structure | None:
    body = parse_body({"messages": [{"role": "user", "content": "x"}], **fields}, ChatBody)
    return from_chat(body, DEFAULTS).structure


def of_responses(**fields: Any) -> Structure | None:
    return from_responses(
        parse_body({"input": "x", **fields}, ResponsesBody), (), DEFAULTS
    ).structure


def test_text_is_no_structure() -> None:
    assert of_chat() is of_chat(response_format={"type": "text"}) is None
    assert of_chat(structured_outputs={"json_object": False}) is None
    assert of_responses(text={}) is of_responses(text={"format": {"type": "text"}}) is None


def test_json_and_schemas() -> None:
    named = {"name": "sum", "schema": SCHEMA, "strict": True}
    assert of_chat(response_format={"type": "json_object"}) == Structure(kind="json_object")
    assert of_chat(response_format={"type": "json_schema", "json_schema": named}) == AS_JSON
    assert of_responses(text={"format": {"type": "json_object"}}) == Structure(kind="json_object")
    assert of_responses(text={"format": {"type": "json_schema", **named}}) == AS_JSON


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"json": SCHEMA}, AS_JSON),
        ({"json": '{"type": "null"}'}, Structure(kind="json", value={"type": "null"})),
        ({"json_object": True}, Structure(kind="json_object")),
        ({"regex": "[ab]+"}, Structure(kind="regex", value="[ab]+")),
        ({"choice": ["yes", "no"]}, Structure(kind="choice", value=["yes", "no"])),
        ({"grammar": 'root ::= "a"'}, Structure(kind="grammar", value='root ::= "a"')),
    ],
)
def test_constraints_of_vllm(outputs: dict[str, Any], expected: Structure) -> None:
    assert of_chat(structured_outputs=outputs) == expected
    assert of_responses(structured_outputs=outputs) == expected


def test_null_is_a_value_within_a_schema_alone() -> None:
    text = (
        b'{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema",'
        b'"json_schema":{"name":null,"schema":{"properties":{"a":{"const":null}}}}}}'
    )
    body = parse_body(parse_json_object(text), ChatBody)
    structure = from_chat(body, DEFAULTS).structure
    assert structure is not None
    assert structure.value == {"properties": {"a": {"const": None}}}


def wrapped(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


DEEP: dict[str, Any] = {}
for _ in range(MOST_LEVELS // 2):
    DEEP = {"properties": {"a": DEEP}}
AT = "response_format.json_schema"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, f"{AT}.schema"),
        (wrapped([]), f"{AT}.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            f"{AT}.name",
        ),
        (wrapped({"type": "int"}), f"{AT}.schema.type"),
        (wrapped({"properties": {"a": {"type": "int"}}}), f"{AT}.schema.properties.a.type"),
        (wrapped({"properties": {"a": 5}}), f"{AT}.schema.properties.a"),
        (wrapped({"anyOf": [{}, {"required": "a"}]}), f"{AT}.schema.anyOf[1].required"),
        (wrapped({"items": {"$ref": "#/$defs/no"}}), f"{AT}.schema.items.$ref"),
        (wrapped({"$ref": "https://example.org/a.json"}), f"{AT}.schema.$ref"),
        # Python converts no text of so many digits to a number.
        (
            wrapped({"anyOf": [{}], "not": {"$ref": "#/anyOf/" + "9" * 5000}}),
            f"{AT}.schema.not.$ref",
        ),
        (wrapped(DEEP), f"{AT}.schema"),
        (wrapped({"description": "x" * MOST_BYTES}), f"{AT}.schema"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "[1]"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": {"type": 5}}}, "structured_outputs.json.type"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a", ""]}}, "structured_outputs.choice[1]"),
        ({"structured_outputs": {"regex": ""}}, "structured_outputs.regex"),
        (
            {"structured_outputs": {"whitespace_pattern": " "}},
            "structured_outputs.whitespace_pattern",
        ),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "structured_outputs",
        ),
        ({"guided_json": SCHEMA}, "guided_json"),
    ],
)
def test_a_wrong_structure_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        of_chat(**fields)
    assert caught.value.param == param


def test_the_responses_api_has_names_of_its_own() -> None:
    for form, param in (
        ({"type": "json_schema"}, "text.format.schema"),
        ({"type": "json_schema", "schema": {"type": "x"}}, "text.format.schema.type"),
        ({"type": "grammar"}, "text.format.type"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            of_responses(text={"format": form})
        assert caught.value.param == param


def test_a_constraint_of_an_earlier_vllm_is_told_its_new_name() -> None:
    with pytest.raises(InvalidRequest, match=r"Send 'structured_outputs\.json' instead"):
        of_chat(guided_json=SCHEMA)


# ---- against a validator of the whole standard -------------------------------------------------

VALUES: list[Any] = [
    *(None, True, False, 0, 1, 1.0, -1, 0.5, "", "a", "string", "object", "^a+$"),
    *([], ["a"], ["string", "null"], [1], {}, {"a": {}}, {"a": True}, {"a": 5}, [{}], [True, {}]),
]
KEYWORDS = """
    type properties patternProperties $defs definitions dependentSchemas additionalProperties
    contains else if not propertyNames then unevaluatedItems unevaluatedProperties items allOf
    anyOf oneOf prefixItems required enum const default exclusiveMaximum exclusiveMinimum maximum
    minimum multipleOf maxContains maxItems maxLength maxProperties minContains minItems minLength
    minProperties format pattern title description x-own
""".split()


def drawn(chance: random.Random, depth: int = 3) -> Any:
    """A schema, or something like one."""
    if not depth or chance.random() < 0.1:
        return chance.choice(VALUES)
    schema: dict[str, Any] = {}
    for keyword in chance.sample(KEYWORDS, chance.randint(0, 3)):
        match chance.randrange(4):
            case 0:
                schema[keyword] = chance.choice(VALUES)
            case 1:
                schema[keyword] = {name: drawn(chance, depth - 1) for name in "ab"}
            case 2:
                schema[keyword] = [drawn(chance, depth - 1)]
            case _:
                schema[keyword] = drawn(chance, depth - 1)
    return schema


def refused(schema: dict[str, Any]) -> bool:
    try:
        check_schema(schema, "schema")
    except InvalidRequest:
        return True
    return False


def test_no_schema_is_refused_that_a_validator_accepts() -> None:
    chance, validator = random.Random(16), jsonschema.Draft202012Validator
    seen = {(True, True): 0, (False, True): 0, (False, False): 0}
    for _ in range(1500):
        schema = {"type": "object", "properties": {"a": drawn(chance)}}
        theirs = not validator(validator.META_SCHEMA).is_valid(schema)
        ours = refused(schema)
        assert theirs or not ours, schema
        seen[ours, theirs] += 1
    assert seen[False, False] > 100
    assert seen[True, True] > 0.9 * (seen[True, True] + seen[False, True])


def test_references_are_followed_as_pointers_say() -> None:
    schema = {
        "$defs": {"a/b": {"type": "null"}, "c d": {"anyOf": [{}, {"type": "null"}]}},
        "properties": {
            "e": {"$ref": "#/$defs/a~1b"},
            "f": {"$ref": "#/$defs/c%20d/anyOf/1"},
            "g": {"$ref": "#"},
            "$ref": {"type": "string"},
        },
    }
    check_schema(schema, "schema")
    for wrong in ("#/$defs/a/b", "#/$defs/c d/anyOf/2", "#/$defs/c d/anyOf/x"):
        assert refused({**schema, "$ref": wrong})


def test_drafts_of_other_years_are_accepted() -> None:
    check_schema({"exclusiveMinimum": True, "items": [{"type": "null"}], "nullable": True}, "s")


def test_long_names_are_not_copied_into_a_path_for_each_keyword() -> None:
    many = {str(number): {"type": "null"} for number in range(3000)}
    tracemalloc.start()
    try:
        check_schema({"properties": {"n" * 100_000: {"properties": many}}}, "schema")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10_000_000  # copies would be 300 MB
