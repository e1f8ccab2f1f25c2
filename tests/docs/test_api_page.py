"""The page of the API names what the code can say to a client, and its examples are accepted."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from gateway.api import websocket
from gateway.api.admin import DemoBody, DrainBody, PlacementBody, PolicyBody
from gateway.api.connections import HEADER_BYTES
from gateway.config import Config
from gateway.schemas import bodies, conversation_bodies, json_schema
from gateway.schemas.bodies import MOST_STOP_STRINGS, ChatBody, ResponsesBody, parse_body
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.plain.bodies import (
    DEFAULT_TOKENS,
    MOST_COMPLETIONS,
    parse_completions,
    parse_tokens,
)
from gateway.schemas.tools import MOST_TOOLS
from tests.docs.support.pages import Excerpt, code_blocks, text_of
from tests.gateway.response.test_endings import ENDINGS
from tests.gateway.support.sessions import make_session

PAGE = "docs/reference/api.md"
_ENVELOPE = ("type", "stream_id")
_EVENTS: dict[str, type[msgspec.Struct]] = {
    "response.cancel": websocket.Cancel,
    "response.resume": websocket.Resume,
    "response.pacing.update": websocket.PacingUpdate,
}


def test_every_ending_is_a_row_with_what_both_apis_say() -> None:
    rows = [line for line in text_of(PAGE).splitlines() if line.startswith("| ")]
    for ending in ENDINGS:
        words = [f"`{word}`" for word in (ending.status, ending.why, ending.chat) if word]
        fits = [row for row in rows if all(word in row for word in words)]
        assert fits, (ending.status, ending.why, ending.chat)


def test_its_settings_and_bounds_are_those_of_the_code() -> None:
    page = text_of(PAGE)
    for table, key in re.findall(r"`(server|session|limits|pacing|cluster)\.(\w+)`", page):
        assert hasattr(getattr(Config(), table), key), f"{table}.{key}"
    assert f"At most {MOST_STOP_STRINGS} stop strings are accepted" in page
    assert f"At most {MOST_TOOLS} tools are accepted" in page
    size_kib = json_schema.MOST_BYTES // 1024
    assert f"at most {size_kib} KiB, and at most {json_schema.MOST_LEVELS} levels deep" in page
    assert f"how many choices, from 1 to {bodies.MOST_CHOICES}." in page
    assert f"choices, from 1 to {bodies.MOST_CHOICES}, in the order of the prompts" in page
    assert f"at\n  most {MOST_COMPLETIONS} of them" in page
    assert f"`max_tokens` is {DEFAULT_TOKENS} unless" in page
    assert f"from 0 to {bodies.MOST_TOP_LOGPROBS}." in page
    assert f"At most\n  {bodies.MOST_BIASES}." in page
    assert f"`items`, at most {conversation_bodies.MOST_ITEMS}," in page
    assert f"at most {conversation_bodies.MOST_METADATA} pairs" in page
    key, value = conversation_bodies.LONGEST_KEY, conversation_bodies.LONGEST_VALUE
    assert f"A key has\n  at most {key} characters, a value {value}." in page
    assert f"an object of at most {bodies.MOST_CLIENT_METADATA} fields" in page
    assert f"header fields: {HEADER_BYTES // 1024} KiB" in page
    assert f"`server.sse_keepalive_s` ({Config().server.sse_keepalive_s:g} s)" in page


def test_the_example_of_timing_has_every_field_and_the_list_explains_it() -> None:
    (block,) = [b for b in code_blocks() if b.page == PAGE and '"timing": {' in b.text]
    now = make_session().measurements()
    shown = json.loads(block.text)
    assert _names(shown) == _names(now)
    text = text_of(PAGE)
    for name in _names(now["timing"]):
        assert re.search(rf"^- `{name}`: ", text, re.MULTILINE), name


def _names(value: dict[str, Any]) -> set[str]:
    inner = [_names(one) for one in value.values() if isinstance(one, dict)]
    return set(value).union(*inner)


def examples() -> list[Excerpt]:
    """JSON that a client sends: blocks, and the bodies of `curl` commands."""
    blocks = [block for block in code_blocks() if block.page == PAGE]
    requests = [block for block in blocks if block.text.startswith("{") and _is_sent(block.text)]
    for block in blocks:
        bodies = re.findall(r"-d '([^']+)'", block.text)
        requests += [Excerpt(block.page, block.line, body) for body in bodies]
    return requests


_ADMIN = {
    frozenset({"restart"}): DrainBody,
    frozenset({"policy"}): PolicyBody,
    frozenset({"load"}): DemoBody,
    frozenset({"kill"}): DemoBody,
    frozenset({"boundary"}): PlacementBody,
}


def _is_sent(text: str) -> bool:
    document = json.loads(text)
    return "input" in document or document.get("type", "").startswith("response.")


def _check(document: dict[str, Any]) -> None:
    if (admin := _ADMIN.get(frozenset(document))) is not None:
        msgspec.convert(document, admin)
        return
    if document.keys() <= {"metadata", "items"}:
        conversation_bodies.parse_new_conversation(json.dumps(document).encode())
        return
    if (event := _EVENTS.get(document.get("type", ""))) is not None:
        msgspec.convert(document, event)
    elif "tokens" in document:
        parse_tokens(document)
    elif "prompt" in document:
        parse_completions(document)
    elif "messages" in document:
        parse_body(document, ChatBody)
    else:
        body = {key: value for key, value in document.items() if key not in _ENVELOPE}
        parse_body(body, ResponsesBody)


def test_the_examples_are_accepted() -> None:
    requests = examples()
    assert len(requests) >= 10
    for example in requests:
        _check(json.loads(example.text))


@pytest.mark.parametrize("wrong", [{"inputs": "hi"}, {"type": "response.resume"}])
def test_the_check_of_examples_can_fail(wrong: dict[str, Any]) -> None:
    with pytest.raises((InvalidRequest, msgspec.ValidationError)):
        _check(wrong)
