"""The reader as the scheduler sees it: text in pieces, pauses and paces between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.scheduler.reader import Reader


def test_a_reader_has_read_so_many_tokens_after_so_many_times_the_pace() -> None:
    reader = Reader(0.5, False, 100.0)
    assert reader.dry_at(4) == pytest.approx(102.0)


def test_the_clock_stands_once_all_text_is_read_and_the_model_thinks() -> None:
    reader = Reader(0.5, False, 100.0)
    reader.text_ends(4, 100.5)  # three tokens, 1.5 s, are left
    reader.text_begins(110.0)
    assert reader.dry_at(4) == pytest.approx(110.0)
    assert reader.dry_at(6) == pytest.approx(111.0)


def test_thoughts_shorter_than_the_buffer_take_no_time_from_the_reader() -> None:
    reader = Reader(0.5, False, 100.0)
    reader.text_ends(40, 100.5)
    reader.text_begins(105.0)
    assert reader.dry_at(40) == pytest.approx(120.0)


def test_what_the_reader_lacked_before_the_thoughts_is_still_lacking_after_them() -> None:
    reader = Reader(0.5, False, 100.0)
    reader.text_ends(4, 105.0)  # ten tokens could have been read
    reader.text_begins(120.0)
    assert reader.dry_at(12) == pytest.approx(121.0)


def test_a_reader_who_pauses_between_two_texts_reads_on_after_the_pause() -> None:
    reader = Reader(0.5, False, 100.0)
    reader.text_ends(4, 100.0)
    reader.pace(0.5, True, 101.0)  # two tokens read
    reader.text_begins(110.0)
    assert reader.dry_at(4) is None
    reader.pace(0.5, False, 120.0)
    assert reader.dry_at(4) == pytest.approx(121.0)


def test_a_pause_in_the_gap_that_ends_in_the_gap_moves_its_end() -> None:
    reader = Reader(0.5, False, 100.0)
    reader.text_ends(4, 100.0)
    reader.pace(0.5, True, 101.0)
    reader.pace(0.5, False, 105.0)  # the rest is read at 106
    reader.text_begins(110.0)
    assert reader.dry_at(5) == pytest.approx(110.5)


def test_a_new_pace_while_the_clock_stands_counts_from_the_next_text_on() -> None:
    reader = Reader(0.5, False, 100.0)
    reader.text_ends(4, 100.0)
    reader.pace(2.0, False, 108.0)
    reader.text_begins(110.0)
    assert reader.dry_at(5) == pytest.approx(112.0)


@given(
    st.lists(st.tuples(st.floats(0.0, 9.0), st.integers(0, 30)), min_size=1, max_size=8),
    st.floats(0.1, 2.0),
)
def test_gaps_move_the_clock_by_exactly_the_time_without_text(
    pieces: list[tuple[float, int]], tau_s: float
) -> None:
    """Against the release law: a token is read once the one before it is, and it has come."""
    reader, now, tokens, free_at = Reader(tau_s, False, 0.0), 0.0, 0, 0.0
    for gap_s, count in pieces:
        tokens += count
        free_at = max(free_at, now) + count * tau_s  # when all tokens so far are read
        assert reader.dry_at(tokens) == pytest.approx(free_at)
        reader.text_ends(tokens, now)
        now += gap_s
        reader.text_begins(now)
