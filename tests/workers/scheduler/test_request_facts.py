from __future__ import annotations

from typing import Any

import pytest

from workers.scheduler.request_facts import facts_of

GOOD: dict[str, Any] = {"phase": "answering", "request_id": "a", "pace": {"tau_s": 0.1}}


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        "reasoning",
        {},
        GOOD | {"phase": "dreaming"},
        GOOD | {"phase": ["answering"]},
        GOOD | {"pace": None},
        GOOD | {"pace": {"tau_s": "fast"}},
        GOOD | {"pace": {"tau_s": 0.0}},
        GOOD | {"request_id": ["a"]},
        GOOD | {"user": {"name": "b"}},
    ],
)
def test_strange_facts_about_a_request_count_as_none(wrong: object) -> None:
    """Clients of a stock server can send any facts, and an error there ends the engine."""
    assert facts_of(wrong) is None
    facts = facts_of(GOOD)
    assert facts is not None
    assert (facts.phase, facts.pace.tau_s, facts.user) == ("answering", 0.1, None)
