"""Sessions that clients name, and where the last request of each ran."""

from __future__ import annotations

import pytest

from gateway.policy.affinity import LONGEST_KEY, LastPlaces, Place, key_in, key_of


def test_the_last_place_counts_until_its_instance_is_lost() -> None:
    places = LastPlaces()
    assert places.find(1) is None
    places.note(1, "a", 10)
    places.note(2, "a", 20)
    places.note(2, "b", 30)
    places.note(None, "a", 1)
    assert (places.find(1), places.find(2)) == (Place("a", 10), Place("b", 30))
    assert places.find(None) is None
    places.lose("a")
    assert (places.find(1), places.find(2)) == (None, Place("b", 30))


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    places = LastPlaces(most=2)
    for key in (1, 2, 1, 3):
        places.note(key, "a", 10)
    assert [places.find(key) is None for key in (1, 2, 3)] == [False, True, False]


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"x-claude-code-session-id": "c", "session-id": "s"}, "c"),
        ({"x-session-affinity": " a ", "session_id": "u"}, "a"),
        ({"session_id": "u"}, "u"),
        ({"session-id": "x" * LONGEST_KEY}, "x" * LONGEST_KEY),
        ({"x-session-affinity": "x" * (LONGEST_KEY + 1), "session-id": "s"}, "s"),
        ({"x-session-affinity": "", "session-id": "a\tb"}, None),
        ({"session-id": "\udcff"}, None),
    ],
)
def test_the_first_usable_header_counts(headers: dict[str, str], key: str | None) -> None:
    assert key_in(headers) == key


def test_keys_of_different_owners_have_nothing_in_common() -> None:
    keys = {key_of("alice", "x"), key_of("bob", "x"), key_of("alice", "y"), key_of("", "alicex")}
    assert len(keys) == 4
    assert all(key is not None and 0 <= key < 2**63 for key in keys)
    assert key_of("alice", None) is None
