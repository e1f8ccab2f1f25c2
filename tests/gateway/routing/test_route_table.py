"""The table of routes forgets what is over, and only that."""

from __future__ import annotations

from gateway.routing.route_table import RouteTable
from tests.gateway.support.instances import add


def test_a_request_that_is_over_is_nowhere() -> None:
    table = RouteTable()
    over, other = add(table, "a", "over", thoughts=1), add(table, "a", "other", thoughts=1)
    table.remove(over)
    assert table.of("a") == [other]
    assert list(table.by_response.values()) == [other]
    table.remove(over)  # once more does no harm
    assert table.is_held(other)


def test_what_an_instance_had_is_returned_once() -> None:
    table = RouteTable()
    add(table, "a", "lost", thoughts=1)
    add(table, "b", "kept", thoughts=1)
    assert len(table.lose("a")) == 1
    assert table.lose("a") == table.of("a") == []
    assert len(table.of("b")) == 1
