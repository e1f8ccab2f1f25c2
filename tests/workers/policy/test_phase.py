from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.policy.phase import Phase, PhaseTracker, ThinkMarkers

START, END = 3, 4


def test_boundary_is_the_first_end_of_thinking_token_and_belongs_to_the_reasoning() -> None:
    tracker = PhaseTracker(Phase.REASONING, END)
    assert tracker.feed([START, 10, 11]) is None
    assert tracker.reasoning_tokens == 3
    assert tracker.feed([12, END, 13]) == 1
    assert tracker.phase is Phase.ANSWERING
    assert (tracker.reasoning_tokens, tracker.answering_tokens) == (5, 1)


def test_second_end_of_thinking_token_is_ordinary_text() -> None:
    tracker = PhaseTracker(Phase.REASONING, END)
    assert tracker.feed([10, END, 11, END, 12]) == 1
    assert tracker.feed([END]) is None
    assert (tracker.reasoning_tokens, tracker.answering_tokens) == (2, 4)


def test_no_boundary_when_generation_starts_in_the_answer() -> None:
    tracker = PhaseTracker(Phase.ANSWERING, END)
    assert tracker.feed([10, END, 11]) is None
    assert (tracker.reasoning_tokens, tracker.answering_tokens) == (0, 3)


def test_without_a_marker_reasoning_never_ends() -> None:
    tracker = PhaseTracker(Phase.REASONING, None)
    assert tracker.feed([1, 2, 3]) is None
    assert (tracker.phase, tracker.reasoning_tokens) == (Phase.REASONING, 3)


@given(
    st.lists(st.integers(0, 6), max_size=60),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_batches_do_not_matter(token_ids: list[int], cuts: list[int]) -> None:
    whole, parts = PhaseTracker(Phase.REASONING, END), PhaseTracker(Phase.REASONING, END)
    expected = whole.feed(token_ids)
    edges = sorted({0, len(token_ids), *(cut for cut in cuts if cut <= len(token_ids))})
    found = []
    for first, last in itertools.pairwise(edges):
        index = parts.feed(token_ids[first:last])
        if index is not None:
            found.append(first + index)
    assert found == ([] if expected is None else [expected])
    assert expected == (token_ids.index(END) if END in token_ids else None)
    assert parts.reasoning_tokens == whole.reasoning_tokens
    assert parts.answering_tokens == whole.answering_tokens
    assert parts.phase is whole.phase


@pytest.mark.parametrize(
    ("vocabulary", "markers"),
    [
        ({"<think>": 3, "</think>": 4}, ThinkMarkers(3, 4)),
        ({"</think>": 4}, ThinkMarkers(None, 4)),
        ({"<think>": 3}, None),
        ({"a": 1}, None),
    ],
)
def test_markers_of_a_vocabulary(vocabulary: dict[str, int], markers: ThinkMarkers | None) -> None:
    assert ThinkMarkers.of_vocabulary(vocabulary) == markers


@pytest.mark.parametrize(
    ("token_ids", "phase"),
    [
        ([1, START], Phase.REASONING),
        ([START, 9, END, 9], Phase.ANSWERING),
        ([END, START, 9], Phase.REASONING),
        ([1, 2], None),
    ],
)
def test_last_marker_decides(token_ids: list[int], phase: Phase | None) -> None:
    assert ThinkMarkers(START, END).phase_after(token_ids) is phase
