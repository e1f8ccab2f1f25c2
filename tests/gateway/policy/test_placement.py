"""The paper's algorithms against a literal reading of them, and the additions of the rules."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from gateway.policy.placement import (
    PAPER,
    InstanceView,
    MoveCost,
    Rules,
    place_at_boundary,
    place_new_request,
)

VIEWS = 10_000


def random_views(rng: random.Random, reserved: bool = False) -> list[InstanceView]:
    """Views with small numbers, so that ties are frequent."""
    return [
        InstanceView(
            instance_id=f"i{index}",
            within_slo=rng.random() < 0.5,
            kv_footprint_blocks=rng.randint(0, 6),
            requests=rng.randint(0, 3),
            reasoning=rng.randint(0, 4),
            fresh_answering=rng.randint(0, 3),
            kv_blocks_free=rng.randint(0, 5),
            kv_blocks_reserved=reserved and rng.randint(0, 2),
            kv_blocks_total=8,
        )
        for index in range(rng.randint(1, 8))
    ]


# ---- the paper, read literally: t, m, r, a are its letters -----------------------------------


def algorithm_1(views: list[InstanceView]) -> set[str]:
    """All instances that the algorithm may choose; it does not break ties."""
    t_true = [v for v in views if v.within_slo is True]
    among = t_true if len(t_true) > 0 else views
    least_m = min(v.kv_footprint_blocks for v in among)
    return {v.instance_id for v in among if v.kv_footprint_blocks == least_m}


def algorithm_2(views: list[InstanceView]) -> set[str]:
    t_true = [v for v in views if v.within_slo is True]
    if len(t_true) > 0:
        least_r = min(v.reasoning for v in t_true)
        return {v.instance_id for v in t_true if v.reasoning == least_r}
    least_r_a = min(v.reasoning + v.fresh_answering for v in views)
    return {v.instance_id for v in views if v.reasoning + v.fresh_answering == least_r_a}


def stays_by_adaptive(views: list[InstanceView], chosen: str, current: str, kv: int) -> bool:
    free = {v.instance_id: v.kv_blocks_free for v in views}
    chosen_lacks_it = free[chosen] < kv
    current_has_it = free[current] >= kv
    return chosen_lacks_it and current_has_it


def first_by(views: list[InstanceView], allowed: set[str]) -> str:
    """The choice after breaking ties that the paper leaves open: footprint, requests, order."""
    among = [v for v in views if v.instance_id in allowed]
    return sorted(among, key=lambda v: (v.kv_footprint_blocks, v.requests))[0].instance_id


def test_algorithm_1_is_the_papers_on_random_views() -> None:
    rng = random.Random(1)
    for _ in range(VIEWS):
        views = random_views(rng)
        allowed = algorithm_1(views)
        assert place_new_request(views) == first_by(views, allowed)
        assert place_new_request(views) in allowed


@pytest.mark.parametrize("boundary", ["always", "adaptive"])
def test_algorithm_2_and_adaptive_migration_are_the_papers_on_random_views(boundary: str) -> None:
    rng = random.Random(2)
    rules = replace(PAPER, boundary=boundary)
    moved = stayed = 0
    for _ in range(VIEWS):
        views = random_views(rng)
        current = rng.choice(views).instance_id
        kv = rng.randint(0, 5)
        allowed = algorithm_2(views)
        expected = current if current in allowed else first_by(views, allowed)
        if boundary == "adaptive" and stays_by_adaptive(views, expected, current, kv):
            stayed += 1
            expected = current
        moved += expected != current
        assert place_at_boundary(views, current, kv, rules) == expected
    assert moved > VIEWS / 10
    assert boundary == "always" or stayed > VIEWS / 20


def test_headroom_leaves_algorithm_2_the_instances_with_room_on_random_views() -> None:
    rng = random.Random(4)
    rules = replace(PAPER, headroom=0.25)
    moved_for_room = nowhere = 0
    for _ in range(VIEWS):
        views = random_views(rng, reserved=True)
        current = rng.choice(views).instance_id
        kv = rng.randint(0, 3)
        free = {v.instance_id: v.kv_blocks_free - v.kv_blocks_reserved for v in views}
        # What its own requests hold or wait for, this one left out where it is.
        owed = {v.instance_id: v.kv_footprint_blocks + v.kv_blocks_reserved for v in views}
        owed[current] -= kv
        room = {name: min(free[name], 8 - owed[name]) for name in free}
        roomy = [v for v in views if room[v.instance_id] >= kv + 2]  # a quarter of 8 blocks
        if roomy:
            allowed = algorithm_2(roomy)
            by_footprint = sorted(
                (v.kv_footprint_blocks + v.kv_blocks_reserved, v.requests, index)
                for index, v in enumerate(views)
                if v.instance_id in allowed
            )
            expected = current if current in allowed else views[by_footprint[0][2]].instance_id
        else:
            nowhere += 1
            most = max(room.values())
            expected = current if room[current] == most else max(room, key=lambda i: room[i])
            if free[expected] < kv <= free[current]:
                expected = current
        moved_for_room += expected != current and current in algorithm_2(views)
        assert place_at_boundary(views, current, kv, rules) == expected
    assert moved_for_room > VIEWS / 10
    assert nowhere > VIEWS / 20


def test_balance_is_the_papers_last_section_on_random_views() -> None:
    rng = random.Random(3)
    rules = replace(PAPER, boundary="balance")
    moved = 0
    for _ in range(VIEWS):
        views = random_views(rng)
        current = rng.choice(views)
        kv = rng.randint(0, 3)
        least = min(v.kv_footprint_blocks for v in views)
        gap = current.kv_footprint_blocks - least
        smallest = {v.instance_id for v in views if v.kv_footprint_blocks == least}
        worth_it = gap > 2 * kv
        chosen = place_at_boundary(views, current.instance_id, kv, rules)
        moved += chosen != current.instance_id
        assert chosen == (first_by(views, smallest) if worth_it else current.instance_id)
    assert moved > VIEWS / 10


# ---- single cases -----------------------------------------------------------------------------


def view(name: str, footprint: int = 0, **fields: Any) -> InstanceView:
    return InstanceView(
        name, fields.pop("within_slo", True), footprint, fields.pop("requests", 1), **fields
    )


def test_there_may_be_no_instance() -> None:
    assert place_new_request([]) is None


def test_a_starving_instance_is_avoided_even_if_it_is_emptier() -> None:
    starving, healthy = view("a", 1, within_slo=False), view("b", 100)
    assert place_new_request([starving, healthy]) == "b"
    assert place_new_request([starving, healthy], Rules(new="least_kv")) == "a"


def test_affinity_counts_what_is_on_its_way_and_can_be_off() -> None:
    views = [view("near", 10, kv_blocks_reserved=7), view("other", 11)]
    assert place_new_request(views, Rules(affinity=1.0), held_blocks={"near": 5}) == "other"
    assert place_new_request(views, Rules(affinity=1.0), held_blocks={"near": 6}) == "near"
    even = [view("other", 10), view("near", 10)]
    assert place_new_request(even, Rules(affinity=0), held_blocks={"near": 5}) == "other"


def test_of_those_that_are_worth_it_the_one_with_most_of_the_conversation_is_chosen() -> None:
    views = [view("a", 10), view("b", 12), view("c", 40), view("d", 12)]
    held = {"a": 1, "b": 8, "c": 20, "d": 8, "gone": 99}
    assert place_new_request(views, Rules(affinity=1.0), held_blocks=held) == "b"
    assert place_new_request(views, Rules(affinity=2.0), held_blocks=held) == "c"
    assert place_new_request(views, Rules(affinity=1.0), held_blocks={"c": 20}) == "a"


def test_what_conversations_will_bring_back_counts_for_a_new_one() -> None:
    views = [
        view("a", 10, kv_blocks_expected=9),
        view("b", 12),
        view("c", 11, kv_blocks_expected=2),
    ]
    assert place_new_request(views) == "b"
    assert place_new_request(views, Rules(new="least_kv")) == "b"
    boundary = [view("here", 90, kv_blocks_total=100), *views]
    assert place_at_boundary(boundary, "here", 4, Rules()) == "a"  # which is about the present


def test_how_far_a_conversation_returns_is_about_the_present_alone() -> None:
    """Its own pause is over, and the pauses of others say nothing of how long it will wait."""
    views = [view("near", 20, kv_blocks_expected=90), view("other", 10, kv_blocks_expected=5)]
    rules = Rules(affinity=2.0)
    assert place_new_request(views, rules, held_blocks={"near": 5}) == "near"
    assert place_new_request(views, rules, held_blocks={"near": 4}) == "other"


def test_of_those_that_hold_equally_much_the_last_one_is_chosen() -> None:
    views, held = [view("a", 10), view("b", 12)], {"a": 8, "b": 8}
    assert place_new_request(views, Rules(), held_blocks=held) == "a"
    assert place_new_request(views, Rules(), held_blocks=held, last_at="b") == "b"
    assert place_new_request(views, Rules(), held_blocks=held | {"a": 9}, last_at="b") == "a"
    assert place_new_request(views, Rules(), last_at="b") == "a"  # it is no reason by itself


def test_room_is_measured_by_each_instances_own_memory() -> None:
    rules = replace(PAPER, headroom=0.5)
    small = view("small", kv_blocks_free=40, kv_blocks_total=40, reasoning=1)
    large = view("large", 60, kv_blocks_free=40, kv_blocks_total=100)
    here = view("here", 100, kv_blocks_total=100)
    assert place_at_boundary([here, small, large], "here", 10, rules) == "small"


def test_round_robin_takes_turns() -> None:
    views = [view("a", 5), view("b"), view("c")]
    rules = Rules(new="round_robin")
    chosen = [place_new_request(views, rules, placed_before=count) for count in range(4)]
    assert chosen == ["a", "b", "c", "a"]


def test_a_conversation_stays_with_its_kv_up_to_a_bound() -> None:
    rules = Rules(affinity=2.0)

    def chosen(near_footprint: int, **fields: Any) -> str | None:
        views = [view("near", near_footprint, **fields), view("other", 10)]
        return place_new_request(views, rules, held_blocks={"near": 5})

    assert chosen(20) == "near"
    assert chosen(21) == "other"
    assert chosen(20, within_slo=False) == "other"  # nor if readers starve there
    assert place_new_request([view("near", 1), view("b")], held_blocks={"near": 5}) == "b"


def test_what_is_on_its_way_counts_as_there() -> None:
    rules = replace(PAPER, boundary="balance")
    views = [view("a", 30), view("b", 10, kv_blocks_reserved=15), view("c", 20)]
    assert place_at_boundary(views, "a", 4, rules) == "c"
    assert place_new_request(views) == "c"
    adaptive = [
        view("a", reasoning=5, kv_blocks_free=9),
        view("b", kv_blocks_free=9, kv_blocks_reserved=6),
    ]
    assert place_at_boundary(adaptive, "a", 4) == "a"
    assert place_at_boundary(adaptive, "a", 3) == "b"


def test_small_differences_of_footprints_are_none_to_balance() -> None:
    rules = replace(PAPER, boundary="balance", headroom=0.1)

    def moves(gap: int, kv: int) -> bool:
        views = [
            view(name, blocks, kv_blocks_total=500, kv_blocks_free=300)
            for name, blocks in (("a", 200 + gap), ("b", 200))
        ]
        return place_at_boundary(views, "a", kv, rules) == "b"

    assert not moves(50, 1)  # a tenth of the memory
    assert moves(51, 1)
    assert not moves(80, 40)  # twice its own KV
    assert moves(81, 40)


def test_balance_leaves_a_request_where_it_fits_in() -> None:
    def moves(free_here: int, free_there: int, headroom: float = 0.1) -> bool:
        views = [
            view(name, blocks, kv_blocks_total=100, kv_blocks_free=free)
            for name, blocks, free in (("a", 300, free_here), ("b", 200, free_there))
        ]
        rules = replace(PAPER, boundary="balance", headroom=headroom)
        return place_at_boundary(views, "a", 4, rules) == "b"

    assert moves(4, 4)
    assert not moves(4, 3)
    assert moves(3, 3)  # it fits in nowhere
    assert moves(4, 3, headroom=0.0)


@pytest.mark.parametrize("who", ["a", "b"])
def test_few_migrations_at_once_per_instance_and_in_all(who: str) -> None:
    def moves(under_way_there: int, under_way: int, **rules: Any) -> bool:
        views = [
            view(name, footprint, migrations=under_way_there if name == who else 0)
            for name, footprint in (("a", 50), ("b", 0))
        ]
        boundary = replace(PAPER, boundary="balance", **rules)
        return place_at_boundary(views, "a", 4, boundary, under_way=under_way) == "b"

    assert moves(1, 1, max_migrations_per_instance=2)
    assert not moves(2, 2, max_migrations_per_instance=2)
    assert moves(0, 2, max_migrations=3)
    assert not moves(0, 3, max_migrations=3)
    assert moves(9, 9)


def test_a_transfer_that_costs_more_than_staying_is_not_made() -> None:
    views = [view("a", 50), view("b", 0)]

    def moves(move_s: float, stay_s: float) -> bool:
        cost = MoveCost(move_s, stay_s, unnoticed_s=0.25)
        return place_at_boundary(views, "a", 4, Rules(), cost=lambda: cost) == "b"

    assert moves(0.2, 0.0)  # before the reader expects anything
    assert not moves(0.3, 0.0)
    assert moves(0.3, 0.4)
    assert place_at_boundary(views, "a", 4, Rules(), cost=lambda: None) == "b"


def test_off_stays() -> None:
    assert place_at_boundary([view("a", 99), view("b")], "a", 1, Rules(boundary="off")) == "a"
