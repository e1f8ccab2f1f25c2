"""Structures before their requests are queued: what is refused, how long it may take, and where."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from vllm.config import VllmConfig
from vllm.v1.structured_output.request import get_structured_output_key
from xgrammar import Grammar
from xgrammar.testing import _is_grammar_accept_string

from gateway.schemas.errors import InvalidRequest
from gateway.schemas.json_schema import check_schema
from tests.workers.support.harness import MODEL
from tests.workers.support.schemas import schema_of
from workers.engine import structure
from workers.engine.json_schema import overlooked, without_control_characters
from workers.engine.structure import StructureCheck, structured_outputs
from workers.engine.vllm_config import vllm_config
from workers.errors import RequestRejected
from workers.messages import Structure
from workers.policy.phase import Phase
from workers.settings import WorkerSettings

VECTORS = Path(__file__).parents[2] / "vectors"
STARS = "root ::= " + "[a-z ]* " * 3000 + '"!"'
PROPERTIES = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(1500)}}
ENDLESS = frozenset({"many repetitions", "many properties"})
SOME = ("many repetitions", "many levels", "many readings")
HOSTILE = {
    "many repetitions": Structure(kind="grammar", value=STARS),
    "many properties": Structure(kind="json", value=PROPERTIES),
    "much memory": Structure(kind="regex", value="a*" * 20_000),
    "many groups": Structure(kind="regex", value="(" * 20_000 + "a" + ")" * 20_000),
    "many levels": Structure(
        kind="grammar", value="root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000
    ),
    "many readings at once": Structure(kind="regex", value=r"(\w+\s?)*" * 200),
    "many readings": Structure(kind="grammar", value="root ::= s\ns ::= s s | [a-zA-Z0-9 .,]"),
    "nested repetitions": Structure(kind="regex", value="((a{1,1000}){1,1000}){1,1000}"),
    "rules for nothing": Structure(
        kind="grammar",
        value="root ::= r0\n"
        + "\n".join(f"r{i} ::= r{i + 1} r{i + 1} r{i + 1}" for i in range(30))
        + '\nr30 ::= "c" | ""',
    ),
}


@pytest.fixture(scope="module")
def config() -> VllmConfig:
    return vllm_config(
        WorkerSettings(
            instance_id="a", listen="unix:/x", model=str(MODEL), served_model_name="tiny"
        )
    )


@pytest.fixture(scope="module")
def check(config: VllmConfig) -> Iterator[StructureCheck]:
    made = StructureCheck(config)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("json", "no object", "must be an object"),
        ("json", {"type": "nonsense"}, "cannot be compiled"),
        ("json", {"type": "array", "uniqueItems": True}, "'uniqueItems' is not supported"),
        ("json", {"$ref": "#/$defs/missing"}, "cannot be compiled"),
        ("regex", "", "not empty"),
        ("regex", "([a-z", "cannot be compiled"),
        ("regex", "a\0", "NUL"),
        ("regex", "a" * 70_000, "65536 bytes"),
        ("grammar", "root ::= missing", "cannot be compiled"),
        ("grammar", 7, "must be a string"),
        ("choice", [], "must be a list"),
        ("choice", ["a", ""], "must be a list"),
        ("choice", "ab", "must be a list"),
        ("choice", ["a"] * 1025, "at most 1024"),
        ("grammar", "root ::= root", "no text fits it"),
        ("grammar", 'root ::= "a" x\nx ::= x', "cannot go on"),
        ("json", {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "no text fits it"),
    ],
)
async def test_what_is_wrong_names_the_value(
    check: StructureCheck, kind: Any, value: Any, said: str
) -> None:
    with pytest.raises(RequestRejected, match=said) as caught:
        await check.check(Structure(kind=kind, value=value), Phase.ANSWERING)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "structure.value")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("json_object", None),
        ("json", {}),
        ("json", True),
        ("json", {"type": "object", "properties": {"maxLength": {"type": "string"}}}),
        ("regex", "[a-z]+"),
        ("grammar", 'root ::= "yes" | "no"'),
        ("choice", ["yes", 'a "quote"', "naïve"]),
    ],
)
async def test_what_is_right_compiles(check: StructureCheck, kind: Any, value: Any) -> None:
    await check.check(Structure(kind=kind, value=value), Phase.REASONING)


CALLS = json.dumps(
    {
        "type": "structural_tag",
        "format": {
            "type": "tag",
            "begin": "<tool_call>",
            "content": {"type": "json_schema", "json_schema": {"type": "object"}},
            "end": "</tool_call>",
        },
    }
)
SUM = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("kind", "value", "fits", "other"),
    [
        ("json", SUM, '{"n": 7}', '{"n": "7"}'),
        ("json", SUM, '{"n":7}', '{"n":  7}'),
        ("json_object", None, '{"n": "7"}', "7"),
        ("choice", ["yes", "no"], "no", "maybe"),
        ("regex", "[a-c]+", "abba", "abbd"),
        ("grammar", 'root ::= "x" | "y"', "y", "z"),
    ],
)
async def test_a_call_or_an_answer_of_a_form(
    check: StructureCheck, kind: Any, value: Any, fits: str, other: str
) -> None:
    either = {"calls": CALLS, "answer": {"kind": kind, "value": value}}
    structure = Structure(kind="structural_tag", value=either)
    await check.check(structure, Phase.ANSWERING)
    grammar = Grammar.from_structural_tag(str(structured_outputs(structure).structural_tag))
    assert _is_grammar_accept_string(grammar, fits)
    assert _is_grammar_accept_string(grammar, '<tool_call>{"a": 1}</tool_call>')
    assert not _is_grammar_accept_string(grammar, other)


async def test_what_the_grammar_would_not_see_is_refused_beside_calls_too(
    check: StructureCheck,
) -> None:
    answer = {"kind": "json", "value": {"type": "array", "uniqueItems": True}}
    structure = Structure(kind="structural_tag", value={"calls": CALLS, "answer": answer})
    assert "'uniqueItems' is not" in (await refused(check, structure)).message


async def test_a_schema_that_nests_too_deeply_is_refused(check: StructureCheck) -> None:
    schema: Any = {"type": "string"}
    for _ in range(900):
        schema = {"items": schema}
    with pytest.raises(RequestRejected) as caught:
        await check.check(Structure(kind="json", value=schema), Phase.ANSWERING)
    assert caught.value.param == "structure.value"


async def test_a_model_that_thinks_needs_a_parser(check: StructureCheck) -> None:
    config = check._config
    parser = config.structured_outputs_config.reasoning_parser
    config.structured_outputs_config.reasoning_parser = ""
    try:
        blind = StructureCheck(config)
    finally:
        config.structured_outputs_config.reasoning_parser = parser
    await blind.check(Structure(kind="json_object"), Phase.ANSWERING)
    with pytest.raises(RequestRejected, match="no reasoning parser") as caught:
        await blind.check(Structure(kind="json_object"), Phase.REASONING)
    assert caught.value.param == "structure"


@pytest.fixture
def hasty(config: VllmConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[StructureCheck]:
    """One with less time."""
    monkeypatch.setattr(structure, "QUICK_S", 0.2)
    monkeypatch.setattr(structure, "COMPILE_S", 0.6)
    made = StructureCheck(config)
    yield made
    made.close()


@pytest.mark.parametrize("names", [SOME, pytest.param(tuple(HOSTILE), marks=pytest.mark.long)])
async def test_nothing_ends_but_the_trial_and_what_is_quick_does_not_wait(
    hasty: StructureCheck, names: tuple[str, ...]
) -> None:
    hostile = {name: asyncio.create_task(refused(hasty, HOSTILE[name])) for name in names}
    for number in range(4):
        await hasty.check(Structure(kind="regex", value=f"a{number}"), Phase.ANSWERING)
    assert not all(task.done() for task in hostile.values())
    said = {name: await task for name, task in hostile.items()}
    for name, rejection in said.items():
        assert (rejection.code, rejection.param) == ("invalid_value", "structure.value"), name
    for name in ENDLESS & said.keys():
        assert "to compile" in said[name].message, name
    await hasty.check(Structure(kind="regex", value="b"), Phase.ANSWERING)


async def test_what_was_found_out_is_remembered(check: StructureCheck) -> None:
    right = Structure(kind="regex", value="[a-f]{3}")
    wrong = Structure(kind="regex", value="([a-f")
    await check.check(right, Phase.ANSWERING)
    first = await refused(check, wrong)
    host = check._host
    try:
        check._host = None  # type: ignore[assignment]
        await check.check(right, Phase.ANSWERING)
        assert (await refused(check, wrong)).message == first.message
    finally:
        check._host = host


async def test_without_a_process_for_it_no_structure_is_accepted(config: VllmConfig) -> None:
    alone = StructureCheck(config)
    os.kill(alone._host._process.pid or 0, signal.SIGKILL)
    await asyncio.to_thread(alone._host._process.join)
    rejection = await refused(alone, Structure(kind="json_object"))
    assert (rejection.code, rejection.param) == ("internal_error", "structure")
    alone.close()


async def test_the_process_for_it_ends_with_its_worker(config: VllmConfig) -> None:
    alone = StructureCheck(config)
    alone.close()
    await asyncio.to_thread(alone._host._process.join, 10)
    assert alone._host._process.exitcode == 0


async def refused(check: StructureCheck, structure: Structure) -> RequestRejected:
    with pytest.raises(RequestRejected) as caught:
        await check.check(structure, Phase.ANSWERING)
    return caught.value


def test_the_bytes_of_all_tokens_are_known(check: StructureCheck) -> None:
    vocabulary = check.vocabulary()
    assert b" and" in vocabulary
    assert b"</think>" in vocabulary
    assert set(range(256)) == {token[0] for token in vocabulary if len(token) == 1}


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)


@given(TEXTS, st.integers(0, 4), st.integers(0, 4))
def test_the_pattern_says_what_the_bounds_say(text: str, least: int, more: int) -> None:
    assume(not text.endswith("\n"))  # which Python's `$` passes over
    bounds = {"type": "string", "minLength": least, "maxLength": least + more}
    changed = jsonschema.Draft202012Validator(without_control_characters(bounds))
    plain = not any(c in '"\\' or ord(c) < 0x20 for c in text)
    within = jsonschema.Draft202012Validator(bounds).is_valid(text)
    assert changed.is_valid(text) == (plain and within)


def test_only_bounds_of_strings_are_changed() -> None:
    data = {"type": "string", "maxLength": 3}  # as data it stays
    for schema in (
        {"enum": [data]},
        {"const": data},
        {"type": "object", "properties": {"a": {"type": "integer"}}, "default": data},
        {"type": "string", "maxLength": 3, "pattern": "^a*$"},
        {"type": "integer", "maxLength": 3},
        {"type": "object", "required": ["maxLength"], "properties": {"type": {"const": 1}}},
    ):
        assert without_control_characters(schema) == schema
    nested = {"properties": {"a": {"anyOf": [{"items": data}]}}, "$defs": {"b": data}}
    text = json.dumps(without_control_characters(nested))
    assert text.count("pattern") == 2
    assert "maxLength" not in text
    assert nested["$defs"] == {"b": data}  # what was given is not touched
    for seed in range(50):
        without_control_characters(schema_of(seed))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"not": {"type": "null"}}, "'not' is"),
        ({"properties": {"a": {"if": {}, "then": {}}}}, "'properties.a.if' is"),
        ({"anyOf": [{}, {"type": "array", "uniqueItems": True}]}, r"'anyOf\[1\].uniqueItems' is"),
        ({"minimum": 3}, "'minimum' needs a 'type', 'number'"),
        ({"type": "string", "anyOf": [{"maxLength": 2}]}, "'type' is not supported beside 'anyOf'"),
        ({"type": "object", "required": ["a"]}, "'required' names 'a'"),
        ({"$ref": "#anchor"}, "'[$]ref' must be a path"),
        ({"oneOf": [{"type": "null"}, {}]}, "'oneOf' has a schema that everything fits"),
        ({"type": "object", "required": 5}, "value of a wrong kind"),
        ({"type": "object", "properties": 5, "required": ["a"]}, "value of a wrong kind"),
    ],
)
def test_what_the_grammar_would_not_see_is_refused(schema: Any, said: str) -> None:
    with pytest.raises(RequestRejected, match=said) as caught:
        structured_outputs(Structure(kind="json", value=schema))
    assert caught.value.param == "structure.value"


def test_schemas_as_libraries_write_them_are_taken() -> None:
    union = {"oneOf": [{"$ref": "#/$defs/a"}, {"type": "null"}], "discriminator": {}, "title": "U"}
    schema = {
        "$defs": {"a": {"type": "object", "properties": {"k": {"const": 1}}, "required": ["k"]}},
        "properties": {
            "u": union,
            "n": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "default": None},
            "t": {"type": "object", "oneOf": [{"type": "object", "properties": {}}]},
            "e": {"type": ["integer", "null"], "maximum": 7, "multipleOf": False},
        },
        "required": ["u"],
    }
    assert overlooked(schema) is None
    for seed in range(200):
        assert overlooked(schema_of(seed)) is None, seed


@pytest.mark.long
def test_what_grammars_of_the_public_suite_allow_is_valid(check: StructureCheck) -> None:
    """Values that are drawn at random; the suite is in `tests/vectors`."""
    cases = json.loads((VECTORS / "json_schema_suite.json").read_text(encoding="utf-8"))
    taken = 0
    for case in cases:
        structure = Structure(kind="json", value=case["schema"])
        try:
            if isinstance(case["schema"], dict):
                check_schema(case["schema"], "schema")  # as the gateway does
            check._compile(structure)
        except (InvalidRequest, RequestRejected):
            continue
        taken += 1
        validator = jsonschema.Draft202012Validator(case["schema"])
        for seed in range(6):
            text = drawn(check, structure, seed)
            if text is not None:
                assert validator.is_valid(json.loads(text)), (case["name"], text)
    assert taken >= 130, taken


def drawn(check: StructureCheck, structure: Structure, seed: int) -> str | None:
    """A random output by a grammar; None if it does not end in time."""
    rng, backend = random.Random(seed), check._get_backend()
    grammar = backend.compile_grammar(*get_structured_output_key(structured_outputs(structure)))
    ends = set(grammar.ctx.tokenizer_info.stop_token_ids)
    closes = {check.vocabulary().index(sign) for sign in (b'"', b"}", b"]", b"0", b"1")}
    mask, data = backend.allocate_token_bitmask(1), b""
    for _ in range(300):
        grammar.fill_bitmask(mask, 0)
        allowed = set(
            numpy.unpackbits(mask.numpy().view(numpy.uint8), bitorder="little").nonzero()[0]
        )
        if allowed & ends and (not allowed - ends or rng.random() < 0.5):
            return data.decode()
        choice = allowed & closes if allowed & closes and rng.random() < 0.4 else allowed - ends
        token = int(rng.choice(sorted(choice)))
        assert grammar.accept_tokens("drawn", [token])
        data += check.vocabulary()[token]
    return None


def test_an_empty_schema_is_no_missing_one() -> None:
    assert structured_outputs(Structure(kind="json", value={})).json == "{}"
