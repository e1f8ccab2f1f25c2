"""`orjson` encodes what leaves the gateway; clients and stored rows know `msgspec`'s form of it.

Both write the same bytes for every document that the gateway sends. What differs:

- a number of 1e16 or more: `1e+16` instead of `1e16`, the same number
- a lone surrogate: both refuse it, with another exception; `ApiError` replaces it before
- an integer beyond 64 bits, and a key that is no text: `orjson` refuses them; no field allows one
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.refusals import error_response, json_response
from gateway.schemas.errors import InvalidRequest
from workers.messages import ChatMessage

# Surrogates cannot be encoded; control characters, quotes and other scripts can.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TRICKY = st.sampled_from(["\x00", "\x1f", "\x7f", "\x80", "\u2028", "\uffff", "\U0001f600", '"\\/'])
FLOATS = st.floats().filter(lambda value: not 1e16 <= abs(value) < math.inf)
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FLOATS | TEXT | TRICKY
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXT | TRICKY, inner), max_leaves=30
)


@settings(max_examples=500, deadline=None)
@given(DOCUMENTS)
def test_the_bytes_are_the_same(document: Any) -> None:
    assert orjson.dumps(document) == msgspec.json.encode(document)


@given(st.floats(min_value=1e16, allow_infinity=False))
def test_a_large_number_has_another_exponent_and_the_same_value(value: float) -> None:
    for signed in (value, -value):
        assert orjson.dumps(signed).replace(b"e+", b"e") == msgspec.json.encode(signed)
        assert orjson.loads(orjson.dumps(signed)) == signed


@pytest.mark.parametrize("document", ["\ud800", ["a\udc00"], {"\ud800": 1}])
def test_both_refuse_a_lone_surrogate(document: Any) -> None:
    with pytest.raises(UnicodeEncodeError):
        msgspec.json.encode(document)
    with pytest.raises(TypeError):
        orjson.dumps(document)


def test_an_error_that_quotes_a_lone_surrogate_is_sent() -> None:
    error = InvalidRequest("Not '\udcff'.", param="\ud800")
    body = error_response(error).body
    assert isinstance(body, bytes)
    sent = msgspec.json.decode(body)["error"]
    assert (sent["message"], sent["param"]) == ("Not '\\udcff'.", "\\ud800")


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"a\\udc00b"', b'"\xed\xa0\x80"'])
def test_no_lone_surrogate_comes_in(text: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        msgspec.json.decode(text)


@pytest.mark.parametrize("document", [2**64, -(2**63) - 1, {1: "one"}, {None: 1}])
def test_what_no_document_may_hold(document: Any) -> None:
    with pytest.raises(TypeError):
        orjson.dumps(document)


@given(st.lists(st.builds(ChatMessage, role=TEXT, content=TEXT)).map(tuple))
def test_a_conversation_is_stored_as_before(conversation: tuple[ChatMessage, ...]) -> None:
    encoded = orjson.dumps(conversation, default=msgspec.to_builtins)
    assert encoded == msgspec.json.encode(conversation)


def test_a_body_may_hold_text_that_is_encoded_already() -> None:
    document = {"a": orjson.Fragment(orjson.dumps("é")), "b": [1, None]}
    response = json_response(document, status=202)
    assert (response.body, response.status) == ('{"a":"é","b":[1,null]}'.encode(), 202)
    assert response.content_type == "application/json"
