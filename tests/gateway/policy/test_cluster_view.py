"""What the view of a cluster depends on, and the bounds on moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from gateway.policy.cluster_view import Occupancy, Placer, ViewRules, view_rules
from gateway.policy.pauses import PAUSE_S
from gateway.policy.placement import PAPER, Rules


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


EMPTY = [Occupancy(name, 16, 1000, 1000, ()) for name in ("a", "b")]


def _talk(placer: Placer, prefixes: tuple[int, ...], now: float, tokens: int) -> str | None:
    """Place a turn, which ends at once."""
    chosen = placer.place_new(EMPTY, (), now, prefixes=prefixes)
    assert chosen is not None
    placer.turn_ended(prefixes, chosen, tokens, now)
    return chosen


@pytest.mark.parametrize(("rules", "expected"), [(Rules(), "b"), (PAPER, "a")])
def test_a_new_conversation_goes_where_fewer_others_will_go_on(rules: Rules, expected: str) -> None:
    """By the paper's rule, an instance without a request is empty."""
    placer = Placer(rules, ViewRules())
    for turn in range(1, 4):
        held = {"a": 160} if turn > 1 else {}
        prefixes = tuple(range(turn))
        assert placer.place_new(EMPTY, (), 0.0, prefixes=prefixes, held_tokens=held) == "a"
        placer.turn_ended(prefixes, "a", 200, 0.0)
    assert _talk(placer, (90,), 1.0, 100) == expected
    assert _talk(placer, (91,), 1.0 + PAUSE_S, 100) == "a"  # nobody is expected any more


def test_a_conversation_that_comes_back_does_not_stand_in_its_own_way() -> None:
    placer = Placer(Rules(), ViewRules())
    for turn in range(1, 6):
        assert _talk(placer, tuple(range(turn)), 0.0, 500) == "a"


def test_nobody_is_expected_on_an_instance_that_was_lost() -> None:
    placer = Placer(Rules(), ViewRules())
    for turn in range(1, 4):
        _talk(placer, tuple(range(turn)), 0.0, 500)
    assert _talk(placer, (90,), 0.0, 0) == "b"
    placer.lost("a")
    assert _talk(placer, (91,), 0.0, 0) == "a"
