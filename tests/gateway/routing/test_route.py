"""The route of one request, without instances: its transitions and its deadlines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.policy.boundary_costs import BoundaryTimes
from gateway.response.lifecycle import IllegalTransition, State
from gateway.routing.route import (
    TRANSITIONS,
    GiveUp,
    Migration,
    Move,
    Outcome,
    Resubmit,
    Route,
    RouteTimeouts,
    Stage,
)
from tests.gateway.support.sessions import make_session
from workers.messages import Ticket

LIMITS = RouteTimeouts(
    migration_timeout_s=5.0,
    failover_timeout_s=60.0,
    max_restarts=2,
    accept_timeout_s=20.0,
    cancel_timeout_s=3.0,
)
TICKET = Ticket(engine_id="e", data="d", tokens=20, valid_s=3.0)


def make_route() -> Route:
    return Route(make_session(), LIMITS, Counter())


def running(route: Route, now: float = 0.0) -> Route:
    route.submitted("a", now, with_ticket=False)
    route.accepted(now)
    return route


def moving(now: float = 0.0) -> Route:
    route = running(make_route())
    route.hand_over("b", 2, "boundary", now)
    return route


def deadline_of(route: Route) -> float | None:
    return route.deadline_s


def passed_boundary_at(route: Route) -> float | None:
    return route.boundary_s


def test_a_move_from_stage_to_stage_with_its_deadlines() -> None:
    route = moving(now=100.0)
    assert (route.stage, route.holder, route.deadline_s) == (Stage.HANDING_OVER, "a", 105.0)
    assert route.progressed(None) is None  # the source still generates
    assert route.handed_over(TICKET) == Resubmit(prefer="b", avoid="a")
    route.submitted("b", 101.0, with_ticket=True)
    assert (route.stage, route.holder, route.deadline_s) == (Stage.SUBMITTED, "b", 106.0)
    route.accepted(102.0)
    assert (route.stage, route.deadline_s) == (Stage.PULLING, 107.0)
    assert route.progressed(20) == "moved"
    assert (route.stage, route.deadline_s, route.migration) == (Stage.RUNNING, None, None)
    assert route.session.migrations == 1


@pytest.mark.parametrize("kv_tokens", [0, None])
def test_a_ticket_that_its_target_could_not_use_is_no_move(kv_tokens: int | None) -> None:
    route = moving()
    route.handed_over(TICKET)
    route.submitted("b", 0.0, with_ticket=True)
    route.accepted(0.0)
    assert route.progressed(kv_tokens) == "recomputed"
    assert route.session.migrations == 1  # it has changed instances all the same


def test_what_is_said_of_a_ticket_after_a_doubt_does_not_count() -> None:
    route = moving()
    route.handed_over(TICKET)
    route.submitted("b", 0.0, with_ticket=True)
    assert route.expired(5.0) == Resubmit(prefer="b")
    route.submitted("b", 5.0, with_ticket=False)
    route.accepted(5.0)
    assert route.progressed(20) == "recomputed"


def test_a_request_that_leaves_before_its_first_token_has_ended_its_move() -> None:
    outcomes: Counter[Outcome] = Counter()
    route = running(Route(make_session(), LIMITS, outcomes))
    route.withdraw(2, 0.0)
    route.submitted("b", 0.0, with_ticket=False)
    route.accepted(0.0)
    route.withdraw(2, 0.0)
    assert outcomes == {"recomputed": 1}


# ---- the table --------------------------------------------------------------------------------

DEEDS: dict[Move, Callable[[Route], object]] = {
    Move.SUBMIT: lambda route: route.submitted("b", 0.0, with_ticket=True),
    Move.WAIT: lambda route: route.waits(0.0),
    Move.ACCEPT: lambda route: route.accepted(0.0),
    Move.ACCEPT_TICKET: lambda route: route.accepted(0.0),
    Move.PROGRESS: lambda route: route.progressed(1),
    Move.HAND_OVER: lambda route: route.hand_over("b", 2, "boundary", 0.0),
    Move.END: lambda route: route.over(),
}


@pytest.mark.parametrize("move", Move)
@pytest.mark.parametrize("stage", Stage)
def test_each_deed_moves_a_route_as_the_table_says_or_leaves_it_as_it_was(
    stage: Stage, move: Move
) -> None:
    route = make_route()
    route.holder, route.stage = "a", stage
    if move is not Move.ACCEPT:
        with_kv = move is Move.ACCEPT_TICKET
        route.migration = Migration("a", "b", 2, "boundary", 0.0, with_kv=with_kv)
    before = (route.stage, route.holder, route.wire_id, copied(route.migration))
    if (stage, move) in TRANSITIONS:
        DEEDS[move](route)
        assert route.stage is TRANSITIONS[stage, move]
    elif (stage, move) == (Stage.HANDING_OVER, Move.PROGRESS):
        assert route.progressed(1) is None  # the source still generates: nothing moves
        assert route.stage is stage
    else:
        with pytest.raises(IllegalTransition) as caught:
            DEEDS[move](route)
        assert (caught.value.state, caught.value.event) == (stage, move)
        assert (route.stage, route.holder, route.wire_id, route.migration) == before


def copied(migration: Migration | None) -> Migration | None:
    return None if migration is None else replace(migration)


def test_every_stage_can_be_reached_and_nothing_leaves_the_last() -> None:
    assert {Stage.WAITING, *TRANSITIONS.values()} == set(Stage)
    assert {after for (stage, _), after in TRANSITIONS.items() if stage is Stage.OVER} == {
        Stage.OVER
    }


# ---- one submission after another -------------------------------------------------------------


def test_each_submission_has_an_id_of_its_own() -> None:
    route = make_route()
    seen = []
    for name in ("a", "b", "a"):
        route.submitted(name, 0.0, with_ticket=False)
        seen.append(route.wire_id)
    assert seen[0] == route.session.response_id
    assert len(set(seen)) == 3


def test_the_time_of_a_ticket_runs_from_the_asking_and_it_is_used_once() -> None:
    route = moving(now=100.0)
    route.handed_over(TICKET)
    ticket = route.ticket(101.0)
    assert ticket is not None
    assert ticket.valid_s == pytest.approx(2.0)
    assert route.ticket(103.0) is None
    route.submitted("b", 101.0, with_ticket=True)
    assert route.ticket(101.0) is None
    route.lost("b", "gone")
    assert route.ticket(101.0) is None


@pytest.mark.parametrize("stage", ["handing over", "submitted", "pulling"])
def test_time_up_in_a_move_is_the_same_again_without_ticket(stage: str) -> None:
    route = moving()
    if stage != "handing over":
        route.handed_over(TICKET)
        route.submitted("b", 0.0, with_ticket=True)
    if stage == "pulling":
        route.accepted(0.0)
    assert route.expired(4.9) is None
    assert route.expired(5.0) == Resubmit(prefer="b")
    assert route.ticket(0.0) is None
    route.submitted("b", 5.0, with_ticket=False)
    assert deadline_of(route) == 25.0  # as for every submission
    route.accepted(5.1)
    assert route.stage is Stage.RUNNING
    assert deadline_of(route) is None  # from here on the instance's heartbeat is what counts
    assert route.progressed(None) == "recomputed"


def test_a_target_that_is_lost_while_its_request_still_runs_is_asked_no_more() -> None:
    route = moving()
    assert route.lost("b", "gone.") is None
    assert route.handed_over(TICKET) == Resubmit(prefer=None, avoid="a")


def test_a_target_that_is_lost_with_the_request_is_avoided_and_its_kv_with_it() -> None:
    route = moving()
    route.boundary_s = 1.0
    route.handed_over(TICKET)
    route.submitted("b", 2.0, with_ticket=True)
    route.accepted(2.0)
    assert route.lost("b", "gone.") == Resubmit(prefer=None, avoid="b")
    # What it waits for from now on is not the boundary's doing.
    assert passed_boundary_at(route) is None
    route.waits(3.0)
    route.submitted("c", 4.0, with_ticket=False)
    route.accepted(4.0)
    assert route.progressed(None) == "recomputed"


def test_a_source_that_is_lost_while_it_still_has_the_request() -> None:
    route = moving()
    assert route.lost("a", "gone.") == Resubmit(prefer="b", avoid="a")
    route.submitted("b", 1.0, with_ticket=False)
    route.accepted(1.0)
    assert route.progressed(20) == "recomputed"


def test_waiting_ends_with_an_instance_or_in_time() -> None:
    route = running(make_route())
    assert route.lost("a", "gone.") == Resubmit(avoid="a")
    route.waits(10.0)
    assert route.expired(69.0) is None
    step = route.expired(70.0)
    assert isinstance(step, GiveUp)
    assert step.error.code == "no_instance"


def test_a_request_may_lose_so_many_instances() -> None:
    route = make_route()
    steps = []
    for name in ("a", "b", "c"):
        running_on = name
        route.submitted(running_on, 0.0, with_ticket=False)
        steps.append(route.lost(running_on, f"Instance {name} was lost."))
    assert [type(step) for step in steps] == [Resubmit, Resubmit, GiveUp]
    assert isinstance(steps[2], GiveUp)
    assert steps[2].error.message == (
        "Instance c was lost. This request was restarted 2 times, the limit (cluster.max_restarts)."
    )


def test_other_instances_may_come_and_go() -> None:
    assert running(make_route()).lost("z", "gone") is None
    assert moving().lost("z", "gone") is None


def test_a_source_that_is_lost_after_its_kv_was_read_does_not_matter() -> None:
    route = moving()
    route.handed_over(TICKET)
    route.submitted("b", 0.0, with_ticket=True)
    route.accepted(0.0)
    route.progressed(20)
    assert route.lost("a", "gone") is None


def test_what_nobody_asked_for_is_submitted_again() -> None:
    route = running(make_route())
    assert route.handed_over(TICKET) == Resubmit()
    assert route.ticket(0.0) is None


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (State.DELIVERING, "finished"),
        (State.CANCELLED, "cancelled"),
        (State.FAILED, "failed"),
    ],
)
def test_a_move_that_does_not_arrive_has_an_outcome(state: State, outcome: str) -> None:
    outcomes: Counter[Outcome] = Counter()
    route = running(Route(make_session(), LIMITS, outcomes))
    route.hand_over("b", 2, "boundary", 0.0)
    route.session._enter(state)
    route.over()
    assert outcomes == {outcome: 1}
    assert (route.stage, route.deadline_s, route.migration) == (Stage.OVER, None, None)


# ---- what the boundary costs ------------------------------------------------------------------


def test_moves_are_a_line_through_their_samples_and_stays_a_mean() -> None:
    times = BoundaryTimes()
    for blocks in (10, 20, 30):
        times.moved(blocks, 0.1 + blocks * 0.01, now=0.0)
    assert times.cost("a", 10, 0.25, now=1.0) is None  # too few to say
    times.moved(40, 0.5, now=0.0)
    times.stayed("a", 0.2, now=0.0)
    times.stayed("a", 0.4, now=0.0)
    cost = times.cost("a", 100, 0.25, now=1.0)
    assert cost is not None
    assert cost.move_s == pytest.approx(1.1)
    assert cost.stay_s == pytest.approx(0.3)
    elsewhere = times.cost("b", 100, 0.25, now=1.0)
    assert elsewhere is not None
    assert elsewhere.stay_s == 0.0


def test_more_kv_never_counts_as_faster_and_old_samples_not_at_all() -> None:
    times = BoundaryTimes()
    for blocks, seconds in ((10, 0.4), (20, 0.3), (30, 0.2), (40, 0.1)):
        times.moved(blocks, seconds, now=0.0)
    cost = times.cost("a", 1000, 0.25, now=60.0)
    assert cost is not None
    assert cost.move_s == pytest.approx(0.25)
    assert times.cost("a", 10, 0.25, now=60.1) is None


def test_an_instance_that_does_not_answer_a_submission_is_left() -> None:
    route = make_route()
    for attempt in range(LIMITS.max_restarts):
        now = 100.0 * attempt
        route.submitted("a", now, with_ticket=False)
        assert route.expired(now + 19.9) is None
        assert route.expired(now + 20.0) == Resubmit(avoid="a")
    route.submitted("a", 900.0, with_ticket=False)
    step = route.expired(920.0)
    assert isinstance(step, GiveUp)
    assert step.error.code == "instance_lost"


def test_an_instance_that_does_not_confirm_a_cancel_is_not_waited_for() -> None:
    route = running(make_route())
    route.session.cancelling = True
    route.cancelled(10.0)
    assert route.deadline_s == 13.0
    assert route.expired(12.9) is None
    assert route.expired(13.0) is not None
    # Nor is one that takes the request in only now.
    late = make_route()
    late.submitted("a", 0.0, with_ticket=False)
    late.cancelled(1.0)
    late.accepted(2.0)
    assert deadline_of(late) == 4.0
    late.over()
    assert deadline_of(late) is None


def test_a_submission_waits_while_its_instance_answers_others() -> None:
    route = make_route()
    route.submitted("a", 100.0, with_ticket=False)
    route.answers_come(115.0)
    assert route.expired(134.9) is None
    route.answers_come(115.0)  # nothing since
    assert route.expired(135.0) == Resubmit(avoid="a")
    # A move has a deadline of its own, whatever else its target does.
    moved = moving()
    moved.handed_over(TICKET)
    moved.submitted("b", 0.0, with_ticket=True)
    moved.answers_come(4.0)
    assert deadline_of(moved) == 5.0


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("boundary_s", [None, 0.0])
def test_it_is_steady_while_it_runs_and_nothing_is_awaited(
    stage: Stage, moves: bool, boundary_s: float | None
) -> None:
    route = make_route()
    route.stage, route.boundary_s = stage, boundary_s
    route.migration = Migration("a", "b", 2, "boundary", 0.0) if moves else None
    assert route.steady == (stage is Stage.RUNNING and not moves and boundary_s is None)
    route.boundary_s = route.migration = None
    assert route.steady == (stage is Stage.RUNNING)


def test_it_is_steady_again_when_its_migration_has_ended() -> None:
    route = moving()
    assert not route.steady
    route.submitted("b", 1.0, with_ticket=False)
    route.accepted(2.0)
    assert not route.steady
    route.progressed(None)
    assert route.steady
