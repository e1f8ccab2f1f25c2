"""The waits of requests at their boundary reach the cost check, which decides on moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.policy.boundary_costs import BoundaryTimes
from gateway.policy.cluster_view import ViewRules
from gateway.policy.placement import MoveCost, Rules
from gateway.routing.deadlines import Deadlines
from gateway.routing.instance import Instance
from gateway.routing.members import Members
from gateway.routing.route import Route, RouteTimeouts
from gateway.routing.router import Router
from tests.gateway.support.instances import add, make_instance, run_of, stats
from workers.messages import Accepted, Finish, HandOver, Ticket

TICKET = Ticket(engine_id="engine-a", data="d", tokens=1, valid_s=60.0)
RULES = Rules(
    boundary="balance",
    balance_gap=0.5,
    headroom=0.0,
    max_migrations=0,
    max_migrations_per_instance=0,
)


class Passing:
    """A router over "a" and "b", its time, and what it reported of boundaries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rules: Rules) -> None:
        self.now_s = 1000.0
        # Deadlines are the business of other tests, and need a loop.
        monkeypatch.setattr(Deadlines, "set", lambda _self, _route, _now: None)
        self.a, self.b = make_instance("a", "b"), make_instance("b", "a")
        self.said: list[tuple[str, float]] = []
        members = Members(silent_s=1.0)
        members.open |= {"a": self.a, "b": self.b}
        self.router = Router(
            members,
            on_progress=lambda _: None,
            on_boundary=lambda how, seconds: self.said.append((how, round(seconds, 6))),
            rules=rules,
            view_rules=ViewRules(),
            timeouts=RouteTimeouts(),
        )
        self._names = 0

    @property
    def times(self) -> BoundaryTimes:
        """The times that it has learned from."""
        return self.router.chooser._placer._times

    def add(self, instance_id: str, name: str, thoughts: int) -> Route:
        """A running request."""
        return add(self.router._table, instance_id, name, thoughts=thoughts)

    def thinker(self, thoughts: int = 63) -> Route:
        """A request on "a" that is about to end its reasoning."""
        self._names += 1
        return self.add("a", f"r{self._names}", thoughts)

    def reach_boundary(self, route: Route, *, answers: int = 0) -> bool:
        """The request ends its reasoning in a run with more tokens; return whether it moves."""
        self._step(self.a, route, 1 + answers, boundary=0)
        return route.migration is not None

    def answer(self, holder: Instance, route: Route, **fields: Any) -> None:
        """The holder sends the request's next token."""
        self._step(holder, route, 1, **fields)

    def _step(self, holder: Instance, route: Route, count: int, **fields: Any) -> None:
        run = run_of(route, count, **fields)
        self.router.on_step(holder, (run,), self.now_s)

    def arrive(self, route: Route) -> None:
        """The source hands the request over, and "b" accepts it."""
        self._step(self.a, route, 0, finish=Finish(reason="handed_over", ticket=TICKET))
        accepted = Accepted(request_id=route.wire_id, prompt_tokens=16, reasoning=True)
        self.router.on_accepted(self.b, accepted, self.now_s)

    def move(self, seconds: float, kv_tokens: int = 80) -> None:
        """A request gets its first answering token from "b", ``seconds`` after its boundary."""
        route = self.thinker()
        assert self.reach_boundary(route)
        self.arrive(route)
        self.now_s += seconds
        self.answer(self.b, route, kv_tokens=kv_tokens)
        self.router._end(route)

    def cost(self, instance_id: str = "a") -> MoveCost | None:
        return self.times.cost(instance_id, 5, 0.25, self.now_s)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rules], Passing]:
    return lambda rules: Passing(monkeypatch, rules)


def test_a_stay_is_counted_from_the_boundary_to_the_next_token(
    passing: Callable[[Rules], Passing],
) -> None:
    p = passing(Rules(boundary="off"))
    route = p.thinker()
    p.now_s += 50.0  # thinking time is not waiting time
    assert not p.reach_boundary(route)
    assert p.said == []
    p.now_s += 0.75
    p.answer(p.a, route)
    p.now_s += 3.0
    p.answer(p.a, route)  # the second token says nothing of the boundary
    assert p.said == [("stayed", 0.75)]
    p.reach_boundary(p.thinker(), answers=1)  # the answer came along with the boundary
    assert p.said == [("stayed", 0.75), ("stayed", 0.0)]


def test_moves_are_counted_from_the_boundary_and_not_from_the_hand_over(
    passing: Callable[[Rules], Passing],
) -> None:
    p = passing(RULES)
    route = p.thinker()
    assert p.reach_boundary(route)
    assert p.a.link.sent == [HandOver(request_id=route.wire_id)]  # type: ignore[attr-defined]
    p.now_s += 0.5
    p.answer(p.a, route)  # until it is let go; its reader waits for the new instance all the same
    assert p.said == []
    p.arrive(route)
    p.now_s += 1.0
    p.answer(p.b, route, kv_tokens=80)
    assert p.said == [("moved", 1.5)]


def test_moves_and_stays_are_noted_and_a_move_without_kv_is_neither(
    passing: Callable[[Rules], Passing],
) -> None:
    p = passing(RULES)
    for _ in range(4):
        p.move(2.0, kv_tokens=0)  # the ticket was of no use: that says nothing of transfers
    assert [how for how, _ in p.said] == ["recomputed"] * 4
    assert p.cost() is None
    for seconds in (1.0, 2.0, 3.0, 4.0):
        p.said.clear()
        p.move(seconds)
        assert p.said == [("moved", seconds)]
    cost = p.cost()
    assert cost is not None
    assert (cost.move_s, cost.stay_s) == (2.5, 0.0)
    there = p.cost("b")
    assert there is not None
    assert there.stay_s == 0.0  # no request has stayed there
    p.add("b", "heavy", 500)  # from here on there is no reason to go there
    for seconds in (0.5, 1.5):
        route = p.thinker()
        assert not p.reach_boundary(route)
        p.now_s += seconds
        p.answer(p.a, route)
    cost = p.cost()
    assert cost is not None
    assert (cost.move_s, cost.stay_s) == (2.5, 1.0)


def test_the_memory_of_the_request_itself_counts_as_free_where_it_is(
    passing: Callable[[Rules], Passing],
) -> None:
    # Neither has room, but for the five blocks that the request has anyway.
    for free_there, moves in ((4, False), (5, True)):
        p = passing(replace(RULES, boundary="adaptive"))
        p.add("a", "thinks", 16)
        p.a.stats, p.b.stats = stats(used=100), stats(used=100 - free_there)
        assert p.reach_boundary(p.thinker()) == moves


def test_requests_stay_where_moves_are_dear_until_that_is_forgotten(
    passing: Callable[[Rules], Passing],
) -> None:
    p = passing(RULES)
    for _ in range(4):
        p.move(5.0)
    assert not p.reach_boundary(p.thinker())
    for route in p.router.routes_of("a"):
        p.router._end(route)
    p.now_s += 61.0
    assert p.reach_boundary(p.thinker())


def test_a_dear_move_is_still_better_than_a_longer_wait(
    passing: Callable[[Rules], Passing],
) -> None:
    p = passing(RULES)
    for _ in range(4):
        p.move(2.0)
    waits = p.thinker()
    assert not p.reach_boundary(waits)
    p.now_s += 3.0
    p.answer(p.a, waits)
    p.router._end(waits)
    assert p.reach_boundary(p.thinker())


def test_a_move_within_what_the_reader_expects_is_made(
    passing: Callable[[Rules], Passing],
) -> None:
    p = passing(RULES)
    for _ in range(4):
        p.move(0.25)  # the target of the time to the first answering token
    assert p.reach_boundary(p.thinker())
    for _ in range(16):
        p.times.moved(5, 0.26, p.now_s)
    assert not p.reach_boundary(p.thinker())


def test_without_the_check_what_moves_take_is_not_asked(
    passing: Callable[[Rules], Passing],
) -> None:
    p = passing(replace(RULES, cost_check=False))
    for _ in range(5):
        p.move(50.0)
    assert p.said == [("moved", 50.0)] * 5
