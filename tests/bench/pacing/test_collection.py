"""Sessions cost the garbage collector next to nothing, however many tokens they have."""

from __future__ import annotations

import pytest

from bench.pacing import collection
from bench.pacing.collection import Work

MOST_MS = 5.0  # added to a full collection by 1000 sessions
MOST_OBJECTS = 50  # of one session that are walked


@pytest.mark.long
def test_a_thousand_sessions_of_2000_tokens_hardly_prolong_a_full_collection() -> None:
    result = collection.in_own_process(Work(sessions=1000, tokens=2000), None)
    assert result["added_ms"] <= MOST_MS


def test_few_objects_of_a_session_are_walked() -> None:
    result = collection.in_own_process(Work(sessions=50, tokens=2000), None)
    assert result["tracked_objects"] <= 50 * MOST_OBJECTS


def test_what_is_walked_does_not_grow_with_the_tokens() -> None:
    short = collection.in_own_process(Work(sessions=20, tokens=20), None)
    long = collection.in_own_process(Work(sessions=20, tokens=2000), None)
    assert abs(long["tracked_objects"] - short["tracked_objects"]) <= 5
