"""What the view of a cluster depends on, and the bounds on moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from gateway.policy.cluster_view import Placer, ViewRules, view_rules
from gateway.policy.placement import Rules


@dataclass(frozen=True)
class Moving:
    source_id: str
    target_id: str | None
    leaving: bool = True
    request: Any = None


def test_only_pascal_demotes() -> None:
    assert view_rules("pascal", 500, 5000).demotion_tokens == 5000
    assert view_rules("slack", 500, 5000) == ViewRules(quantum_tokens=500, demotion_tokens=None)


@pytest.mark.parametrize(
    ("in_all", "each", "open_targets"),
    [
        (0, 0, ["b", "c"]),
        (3, 0, ["b", "c"]),
        (2, 0, []),
        (0, 3, ["b", "c"]),
        (0, 2, ["c"]),
        (0, 1, []),  # the source has a move already
    ],
)
def test_moves_are_bounded_in_all_and_at_each_instance(
    in_all: int, each: int, open_targets: list[str]
) -> None:
    rules = Rules(max_migrations=in_all, max_migrations_per_instance=each)
    moves = [Moving("a", "b"), Moving("d", "b")]
    assert Placer(rules, ViewRules()).open_targets("a", ["b", "c"], moves) == open_targets
