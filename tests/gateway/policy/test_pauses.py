"""Conversations between two turns: which of them count, for how much and for how long."""

from __future__ import annotations

import pytest

from gateway.policy.pauses import PAUSE_S, Pauses


def turn(pauses: Pauses, prefixes: tuple[int, ...], at_s: float, tokens: int = 100) -> None:
    """A turn on instance "a" that takes no time."""
    pauses.began(prefixes, at_s)
    pauses.ended(prefixes, "a", tokens, at_s)


def test_a_conversation_counts_between_its_turns_and_not_during_them() -> None:
    pauses = Pauses()
    turn(pauses, (1,), 0.0)
    turn(pauses, (1, 2), 1.0, tokens=200)
    turn(pauses, (1, 2, 3), 2.0, tokens=300)
    assert pauses.tokens(3.0) == {"a": 300}
    pauses.began((1, 2, 3, 4), 4.0)
    assert not pauses.tokens(4.0)["a"]
    pauses.ended((1, 2, 3, 4), "b", 400, 5.0)
    assert pauses.tokens(5.0) == {"a": 0, "b": 400}


def test_choices_of_one_prompt_are_one_conversation() -> None:
    pauses = Pauses()
    for at_s, prefixes in enumerate([(1,), (1, 2), (1, 2, 3)]):
        turn(pauses, prefixes, float(at_s))
    pauses.ended((1, 2, 3), "a", 200, 2.0)
    assert pauses.tokens(2.0)["a"] == 200
    pauses.ended((1, 2, 3), "b", 300, 2.0)
    assert pauses.tokens(2.0) == {"a": 0, "b": 300}


def test_a_pause_ends_at_last() -> None:
    pauses = Pauses()
    for at_s, prefixes in enumerate([(1,), (1, 2), (1, 2, 3)]):
        turn(pauses, prefixes, float(at_s))
    assert pauses.tokens(2.0 + PAUSE_S - 0.1)["a"] == 100
    assert not pauses.tokens(2.0 + PAUSE_S)["a"]


def test_single_questions_do_not_count_and_first_turns_as_often_as_they_came_back() -> None:
    pauses = Pauses()
    for number in range(50):
        turn(pauses, (number,), float(number))
        assert not pauses.tokens(float(number))
    later_s = 50.0 + PAUSE_S  # 50 pauses have come to nothing
    for number in range(50):
        turn(pauses, (1000 + number,), later_s)
        turn(pauses, (1000 + number, 2000 + number), later_s)
    # All these pauses have ended, too; one conversation has had its first turn.
    turn(pauses, (5000,), later_s + PAUSE_S)
    found = pauses.tokens(later_s + PAUSE_S)["a"]
    assert found == pytest.approx(62, abs=1)  # half of 100 tokens; the latest weigh most


def test_a_turn_that_is_placed_again_is_no_other_turn() -> None:
    """After an instance was lost, for example."""
    pauses = Pauses()
    turn(pauses, (1,), 0.0)
    pauses.began((1, 2), 1.0)
    pauses.began((1, 2), 2.0)
    pauses.ended((1, 2), "b", 70, 3.0)
    turn(pauses, (8,), 3.0)
    pauses.began((1, 2, 3), 4.0)
    pauses.ended((1, 2, 3), "b", 90, 4.0)
    # First turns came back 1 time in 1; of later turns, the one that ended came back.
    assert pauses.tokens(4.0) == {"a": 100, "b": 90}


def test_what_ended_without_a_beginning_does_not_count() -> None:
    pauses = Pauses()
    turn(pauses, (1,), 0.0)
    turn(pauses, (1, 2), 0.0)
    pauses.ended((7,), "a", 100, 0.0)
    pauses.ended((), "a", 100, 0.0)
    pauses.began((), 0.0)
    turn(pauses, (3,), 0.0)
    assert pauses.tokens(0.0) == {"a": 100}


def test_a_lost_instance_brings_nothing_back() -> None:
    pauses = Pauses()
    for at_s, prefixes in enumerate([(1,), (1, 2), (1, 2, 3)]):
        turn(pauses, prefixes, float(at_s))
    pauses.lose("a")
    assert "a" not in pauses.tokens(3.0)  # names of instances that are gone do not pile up
    pauses.lose("never there")
    turn(pauses, (1, 2, 3, 4), 4.0)
    assert pauses.tokens(4.0)["a"] == 100


def test_the_oldest_conversations_are_forgotten() -> None:
    pauses = Pauses(most=2)
    for first in (1, 2):
        turn(pauses, (first,), 0.0)
        turn(pauses, (first, 10 + first), 0.0)
    turn(pauses, (3,), 0.0)
    turn(pauses, (2, 12, 22), 0.0)  # (1, 11) is forgotten, this one is known
    turn(pauses, (1, 11, 21), 0.0)  # the first turn of a conversation that nobody knows
    assert len(pauses._turns) == 2
    assert pauses.tokens(0.0) == {"a": 200}
