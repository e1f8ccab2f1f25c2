"""Compressed bodies are decompressed, up to the bound."""

from __future__ import annotations

import gzip
import zlib

import pytest

from gateway.api.encodings import check_encoding, decompressed
from gateway.schemas.errors import InvalidRequest, TooLarge, UnsupportedEncoding

BODY = b'{"input": "What is 2 + 2?"}' * 100


def bare(data: bytes) -> bytes:
    """Compressed without zlib's header, as some clients send it."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (BODY, ""),
        (BODY, "identity"),
        (gzip.compress(BODY), "gzip"),
        (gzip.compress(BODY[:50]) + gzip.compress(BODY[50:]), "gzip"),
        (zlib.compress(BODY), "deflate"),
        (bare(BODY), "deflate"),
        (b"", "gzip"),
    ],
    ids=["none", "identity", "gzip", "gzip of two members", "deflate", "bare deflate", "empty"],
)
def test_a_body_is_what_was_compressed(data: bytes, encoding: str) -> None:
    assert decompressed(data, encoding, len(BODY)) == (BODY if data else b"")


@pytest.mark.parametrize("bound", [0, 1, len(BODY) - 1])
@pytest.mark.parametrize("members", [1, 3])
def test_nothing_beyond_the_bound_is_computed(bound: int, members: int) -> None:
    step = -(-len(BODY) // members)
    parts = [BODY[begin : begin + step] for begin in range(0, len(BODY), step)]
    with pytest.raises(TooLarge) as caught:
        decompressed(b"".join(map(gzip.compress, parts)), "gzip", bound)
    assert str(bound + 1) in caught.value.message


@pytest.mark.parametrize(
    "data",
    [b"plain", gzip.compress(BODY)[:-9], b"\x1f\x8b"],
    ids=["not compressed", "cut off", "two bytes"],
)
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_is_not_of_the_encoding_is_refused(data: bytes, encoding: str) -> None:
    with pytest.raises(InvalidRequest):
        decompressed(data, encoding, len(BODY))


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "x"])
def test_other_encodings_are_refused_by_name(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding, match=encoding):
        check_encoding(encoding)
