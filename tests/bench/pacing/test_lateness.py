"""Lateness and pauses by what readers received."""

from __future__ import annotations

import pytest

from bench.pacing.lateness import (
    SLOT_S,
    between,
    buckets_of,
    histogram,
    lateness_s,
    plan_s,
    punctuality,
    worst_pause_s,
)

TAU_S = 0.1


def on_time(first_s: float, count: int) -> list[float]:
    return [first_s + index * TAU_S for index in range(count)]


def test_a_stream_on_its_plan_is_not_late() -> None:
    assert lateness_s(on_time(7.0, 50), TAU_S) == pytest.approx([0.0] * 50, abs=1e-9)
    assert lateness_s([], TAU_S) == []


def test_one_late_token_is_late_and_those_after_it_are_not() -> None:
    received = on_time(7.0, 5)
    received[2] += 0.03
    assert lateness_s(received, TAU_S) == pytest.approx([0, 0, 0.03, 0, 0], abs=1e-9)


def test_a_token_that_is_early_by_a_slot_counts_as_on_time() -> None:
    received = on_time(7.0, 5)
    received[3] -= SLOT_S
    assert lateness_s(received, TAU_S) == pytest.approx([0.0] * 5, abs=1e-9)


def test_a_late_first_token_does_not_make_the_others_early() -> None:
    received = on_time(7.0, 5)
    received[0] += 0.08
    late = lateness_s(received, TAU_S)
    # The plan is at most a slot later than that of the other tokens.
    assert late[0] == pytest.approx(0.08 - SLOT_S, abs=1e-9)
    assert late[1:] == pytest.approx([0.0] * 4, abs=1e-9)
    assert plan_s(received, TAU_S) == pytest.approx(7.0 + SLOT_S)


def test_a_pause_is_the_longest_silence_of_all_streams_beyond_their_plans() -> None:
    first, second = on_time(0.0, 20), on_time(0.05, 20)
    assert worst_pause_s([first, second], TAU_S, 0.0, 2.0) == pytest.approx(0.0, abs=1e-9)
    # From 0.5 s to 0.72 s neither gets a token; by their plans no silence is longer than 50 ms.
    first[6] = first[7] = second[5] = second[6] = 0.72
    assert worst_pause_s([first, second], TAU_S, 0.0, 2.0) == pytest.approx(0.17, abs=1e-9)
    assert worst_pause_s([first, second], TAU_S, 1.0, 2.0) == pytest.approx(0.0, abs=1e-9)
    assert worst_pause_s([[], [1.0]], TAU_S, 0.0, 2.0) == 0.0


def test_the_summary_counts_every_token_and_every_reader() -> None:
    late = on_time(3.0, 100)
    late[50:] = [at + 0.4 for at in late[50:]]
    found = punctuality([on_time(1.0, 100), late, []], TAU_S)
    assert found.tokens == 200
    assert found.late_max_ms == pytest.approx(400)
    assert found.late_p50_ms == pytest.approx(0, abs=1e-6)
    assert found.histogram_ms["500"] == 50
    assert sum(found.histogram_ms.values()) == 200
    assert found.qoe_min == 0.0  # of the reader that got nothing
    assert found.qoe_below_good == pytest.approx(2 / 3)


def test_a_value_on_a_bound_belongs_to_its_bucket() -> None:
    counts = histogram([0.0, 1.0, 1.5, 500.0, 501.0])
    assert (counts["1"], counts["2"], counts["500"], counts["more"]) == (2, 1, 1, 1)
    assert sum(counts.values()) == 5


def test_buckets_of_a_metrics_page_are_read_and_subtracted() -> None:
    name = "pascal_release_lateness_seconds"
    page = (
        f"# TYPE {name} histogram\n"
        f'{name}_bucket{{le="0.001"}} 10.0\n{name}_bucket{{le="+Inf"}} 12.0\n{name}_count 12.0\n'
    )
    before = buckets_of(page, name)
    assert before == {"0.001": 10.0, "+Inf": 12.0}
    assert between(before, {"0.001": 15.0, "+Inf": 20.0}) == {"0.001": 5, "+Inf": 3}
    assert between({}, before) == {"0.001": 10, "+Inf": 2}
