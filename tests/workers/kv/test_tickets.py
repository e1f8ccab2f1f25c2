"""Tickets: which engine may read the KV of a request that left, and how long."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.kv.tickets import TicketBook, TicketData, decode, encode

HELD_S = 16.0
LEAST_S = HELD_S / 8  # that must be left for reading


@pytest.fixture
def book() -> TicketBook:
    book = TicketBook(HELD_S)
    book.give("t", blocks=3, until=100.0 + HELD_S)
    return book


def test_what_a_ticket_says_survives_its_way() -> None:
    data = TicketData(
        request_id="r-1", host="::1", port=1, tp_size=2, block_size=32, block_ids=((1, 2), ())
    )
    assert decode(encode(data)) == data
    with pytest.raises(msgspec.ValidationError, match="block_ids"):
        decode(encode(data).replace("block_ids", "blocks"))


def test_one_reader_may_read_and_all_its_ranks(book: TicketBook) -> None:
    assert book.claim("t", "b rank 0", 101.0) == HELD_S - 1.0
    assert book.claim("t", "b rank 0", 102.0) == HELD_S - 2.0
    assert book.claim("t", "c", 102.0) is None


def test_what_is_not_held_is_not_read(book: TicketBook) -> None:
    assert book.claim("unknown", "b", 101.0) is None
    book.close("t", 101.0)
    assert book.claim("t", "b", 101.0) is None


def test_a_claim_leaves_time_to_read(book: TicketBook) -> None:
    assert book.claim("t", "b", 100.0 + HELD_S - LEAST_S) == LEAST_S
    assert book.claim("t", "b", 100.0 + HELD_S - LEAST_S + 0.1) is None
    assert 0 < book.valid_s < HELD_S - LEAST_S


def test_memory_is_counted_until_it_is_free(book: TicketBook) -> None:
    book.give("u", blocks=4, until=200.0)
    assert book.blocks == 7
    book.claim("t", "b", 101.0)
    book.close("t", 101.5)  # read
    assert (book.blocks, book.given, book.expired) == (4, 2, 0)
    book.close("u", 200.0)  # never claimed
    book.close("u", 201.0)
    assert (book.blocks, book.given, book.expired) == (0, 2, 1)
    book.give("v", blocks=1, until=300.0)
    book.claim("v", "b", 290.0)
    book.close("v", 300.0)  # claimed, but the reader never said that it was done
    assert book.expired == 2


@given(st.lists(st.tuples(st.sampled_from(["b", "c"]), st.floats(0, 2 * HELD_S)), max_size=20))
def test_whatever_comes_one_reader_reads_and_never_too_late(
    claims: list[tuple[str, float]],
) -> None:
    book = TicketBook(HELD_S)
    book.give("t", blocks=1, until=HELD_S)
    readers = set()
    for reader, now in sorted(claims, key=lambda claim: claim[1]):
        left_s = book.claim("t", reader, now)
        if left_s is not None:
            readers.add(reader)
            assert now + left_s <= HELD_S
            assert left_s >= LEAST_S
    assert len(readers) <= 1
