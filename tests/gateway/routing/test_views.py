"""What placement sees of an instance: the inputs of Algorithms 1 and 2, counted by hand.

A prompt is one block of 16 tokens; the lengths below say how many blocks a request has.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.policy.cluster_view import ViewRules
from gateway.policy.placement import InstanceView
from gateway.routing.route import Route, Stage
from tests.gateway.support.instances import BLOCKS, Placed, add, feed, make_instance, stats
from workers.messages import Finish, Ticket

RULES = ViewRules(quantum_tokens=20, demotion_tokens=100)
LITERAL = replace(RULES, reserve_memory=False)
NOTHING = InstanceView(
    instance_id="a",
    within_slo=True,
    kv_footprint_blocks=0,
    requests=0,
    kv_blocks_free=BLOCKS,
    kv_blocks_total=BLOCKS,
)
TICKET = Ticket(engine_id="engine-a", data="d", tokens=1, valid_s=9.0)


def test_an_instance_without_requests_and_before_its_first_step() -> None:
    a = make_instance("a")
    placed = Placed(a)
    assert placed.view("a", 0.0, RULES) == NOTHING
    a.stats = stats(used=30)  # others hold memory, such as KV that waits for its reader
    assert placed.view("a", 0.0, RULES) == replace(NOTHING, kv_blocks_free=BLOCKS - 30)


def test_each_request_counts_once_and_in_its_phase() -> None:
    a = make_instance("a")
    placed = Placed(a)
    add(placed.table, "a", "thinks", thoughts=16)  # 2 blocks
    add(placed.table, "a", "thinks-more", thoughts=17)  # 3: one token is on the third
    add(placed.table, "a", "demoted", thoughts=100)  # 8
    add(placed.table, "a", "fresh", thoughts=8, answers=19)  # 3
    add(placed.table, "a", "through-its-quantum", thoughts=8, answers=20)  # 3
    # What is only being read by now holds nothing here.
    feed(
        add(placed.table, "a", "read", thoughts=8, answers=50), 1, 0.0, finish=Finish(reason="stop")
    )
    a.stats = stats(used=19)
    assert placed.view("a", 0.0, RULES) == InstanceView(
        instance_id="a",
        within_slo=True,
        kv_footprint_blocks=19,
        requests=5,
        reasoning=2,
        fresh_answering=1,
        kv_blocks_free=BLOCKS - 19,
        kv_blocks_total=BLOCKS,
    )
    assert placed.view("a", 0.0, replace(RULES, demotion_tokens=None)).reasoning == 3
    assert placed.view("a", 0.0, replace(RULES, demotion_tokens=101)).reasoning == 3
    assert placed.view("a", 0.0, replace(RULES, quantum_tokens=21)).fresh_answering == 2


def test_a_reader_who_waits_for_long_puts_the_instance_beyond_its_slo() -> None:
    placed = Placed(make_instance("a"))
    fed = add(placed.table, "a", "fed", thoughts=8, answers=500, pacing={"tpot_s": 0.1})
    for tenth in range(101):
        fed.session.release(tenth / 10)
    assert placed.view("a", 10.0, RULES).within_slo
    add(placed.table, "a", "waits", thoughts=8, answers=1, pacing={"tpot_s": 0.1})
    assert placed.view("a", 0.1, RULES).within_slo
    assert not placed.view("a", 10.0, RULES).within_slo
    assert placed.view("a", 10.0, replace(RULES, slo_qoe=0.0)).within_slo
    (_, route) = placed.table.of("a")
    route.hand_over("b", 1, "boundary", 0.0)
    assert not placed.view("a", 10.0, RULES).within_slo  # it waits here until it has left
    feed(route, 1, 10.0, finish=Finish(reason="stop"))
    assert placed.view("a", 10.0, RULES).within_slo  # nothing here can feed it any more


@pytest.mark.parametrize("rules", [RULES, LITERAL])
def test_a_request_at_its_boundary_is_in_no_queue_and_has_its_own_memory(rules: ViewRules) -> None:
    a, b = make_instance("a"), make_instance("b")
    placed = Placed(a, b)
    at_boundary = add(placed.table, "a", "at-boundary", thoughts=64, answers=0)  # 5 blocks
    add(placed.table, "a", "thinks", thoughts=16)
    add(placed.table, "a", "fresh", thoughts=16, answers=3)
    a.stats, b.stats = stats(used=10), stats(used=40)
    before = placed.view("a", 0.0, rules)
    assert (before.reasoning, before.fresh_answering, before.kv_blocks_free) == (1, 2, 90)
    # Its KV stays part of the footprint: it is there until it leaves.
    there = replace(before, fresh_answering=1, kv_blocks_free=95)
    assert placed.view("a", 0.0, rules, at_boundary=at_boundary.session) == there
    assert (there.kv_footprint_blocks, there.requests) == (10, 3)
    # Where it is not, nothing changes.
    assert placed.view("b", 0.0, rules, at_boundary=at_boundary.session) == placed.view(
        "b", 0.0, rules
    )


def moving(stage: Stage) -> tuple[Placed, Route, list[InstanceView]]:
    """A request of 5 blocks moves from "a" to "b"; each also has a reasoning request of 2 blocks.

    :return: the instances, the route, and the views of both, with memory reserved and without.
    """
    a, b = make_instance("a"), make_instance("b", "a")
    placed = Placed(a, b)
    add(placed.table, "a", "stays", thoughts=16)
    add(placed.table, "b", "stays-there", thoughts=16)
    route = add(placed.table, "a", "moves", thoughts=64, answers=0)
    route.hand_over("b", 5, "boundary", 0.0)
    if stage is not Stage.HANDING_OVER:
        placed.table.let_go(route)
        route.handed_over(TICKET)
        route.session.left()
        route.submitted("b", 0.0, with_ticket=True)
        placed.table.hold(route)
    if stage is Stage.PULLING:
        route.accepted(0.0)
    assert route.stage is stage
    a.stats, b.stats = stats(used=7), stats(used=2)  # the KV is in a's memory until it was read
    views = [placed.view(name, 0.0, rules) for rules in (RULES, LITERAL) for name in "ab"]
    return placed, route, views


def test_who_is_about_to_leave_counts_at_its_target_already() -> None:
    *_, (a, b, literal_a, literal_b) = moving(Stage.HANDING_OVER)
    own = InstanceView(
        instance_id="a",
        within_slo=True,
        kv_footprint_blocks=2,
        requests=1,
        reasoning=1,
        kv_blocks_free=93,
        kv_blocks_total=BLOCKS,
        migrations=1,
    )
    there = replace(own, instance_id="b", kv_blocks_free=98)
    # At its source it counts no more, though its memory is taken; at its target there is room kept.
    assert a == own
    assert b == replace(there, requests=2, fresh_answering=1, kv_blocks_reserved=5)
    # Read literally, it is where its memory is.
    assert literal_a == replace(own, kv_footprint_blocks=7, requests=2, fresh_answering=1)
    assert literal_b == there


@pytest.mark.parametrize("stage", [Stage.SUBMITTED, Stage.PULLING])
def test_who_has_been_sent_to_its_target_is_one_of_its_own(stage: Stage) -> None:
    *_, (a, b, literal_a, literal_b) = moving(stage)
    source = InstanceView(
        instance_id="a",
        within_slo=True,
        kv_footprint_blocks=2,
        requests=1,
        reasoning=1,
        kv_blocks_free=93,
        kv_blocks_total=BLOCKS,
        migrations=1,
    )
    assert a == literal_a == source
    # Its engine will take the memory: who decides now must not count on it.
    assert literal_b == replace(
        source,
        instance_id="b",
        kv_footprint_blocks=7,
        requests=2,
        fresh_answering=1,
        kv_blocks_free=98,
    )
    assert b == replace(literal_b, kv_blocks_free=93)


def test_who_has_arrived_is_on_its_way_no_more() -> None:
    placed, route, _ = moving(Stage.PULLING)
    assert route.progressed(80) == "moved"
    placed.instances["b"].stats = stats(used=7)
    view = placed.view("b", 0.0, RULES)
    assert (view.kv_footprint_blocks, view.kv_blocks_free, view.migrations) == (7, 93, 0)


def test_a_thinker_that_is_moved_away_counts_among_the_thinkers_of_its_target() -> None:
    a, b = make_instance("a"), make_instance("b", "a")
    placed = Placed(a, b)
    route = add(placed.table, "a", "thinks", thoughts=16)
    demoted = add(placed.table, "a", "demoted", thoughts=100)
    for moved in (route, demoted):
        moved.hand_over("b", 2, "boundary", 0.0)
    assert placed.view("a", 0.0, RULES).reasoning == 0
    there = placed.view("b", 0.0, RULES)
    assert (there.reasoning, there.fresh_answering, there.kv_blocks_reserved) == (1, 0, 2 + 8)
    assert (there.requests, there.migrations) == (2, 2)
    assert placed.view("b", 0.0, LITERAL).reasoning == 0


def test_migrations_between_others_do_not_matter() -> None:
    placed, *_ = moving(Stage.HANDING_OVER)
    placed.instances["c"] = make_instance("c", "a")
    assert placed.view("c", 0.0, RULES) == replace(NOTHING, instance_id="c")
