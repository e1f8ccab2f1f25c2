from __future__ import annotations

from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import messages
from workers.messages import ToGateway, ToWorker

COUNTS = st.integers(0, 2**53)
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=30),
    int: COUNTS,
    float: st.floats(-1e9, 1e9),
    bool: st.booleans(),
    type(None): st.none(),
    Any: st.recursive(
        st.none() | st.booleans() | COUNTS | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=3,
    ),
}


@cache
def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type of the link's messages; of a struct, with every field that it has."""
    if kind in SIMPLE:
        return SIMPLE[kind]
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return st.sampled_from(parts)
    if origin in (Union, UnionType):
        return st.one_of([values_of(part) for part in parts])
    if origin is tuple:
        return st.lists(values_of(parts[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(*map(values_of, parts), max_size=3)
    # Deferred: some messages contain values of their own kind.
    return st.deferred(lambda: struct_of(kind))


def struct_of(kind: Any) -> st.SearchStrategy[Any]:
    # Of its own kind it contains at most one value, or values would grow without end.
    inner = st.lists(st.deferred(lambda: values_of(kind)), max_size=1).map(tuple)
    fields = {
        field.name: inner if field.type == tuple[kind, ...] else values_of(field.type)
        for field in msgspec.structs.fields(kind)
    }
    return st.fixed_dictionaries(fields).map(lambda values: kind(**values))


@given(values_of(ToWorker))
def test_what_the_gateway_says_arrives_unchanged(message: ToWorker) -> None:
    assert messages.decode_to_worker(messages.encode(message)) == message


@given(values_of(ToGateway))
def test_what_the_worker_says_arrives_unchanged(message: ToGateway) -> None:
    assert messages.decode_to_gateway(messages.encode(message)) == message


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (b"not json", "malformed"),
        (b"[]", "Expected `object`"),
        (b"{}", "type"),
        (b'{"type":"step"}', "step"),
        (b'{"type":"cancel"}', "request_id"),
        (b'{"type":"cancel","request_id":7}', r"\$.request_id"),
    ],
)
def test_wrong_frames_are_named(frame: bytes, complaint: str) -> None:
    with pytest.raises(msgspec.DecodeError, match=complaint):
        messages.decode_to_worker(frame)


def test_fields_of_a_later_version_are_ignored() -> None:
    frame = b'{"type":"cancel","request_id":"a","why":"later"}'
    assert messages.decode_to_worker(frame) == messages.Cancel(request_id="a")
