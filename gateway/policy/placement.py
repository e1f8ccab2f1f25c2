"""Which instance serves a request. Pure: a view of the instances in, a decision out.

Source: the paper's instance-level scheduling: Algorithm 1 (a new request), Algorithm 2 (a request
at its phase boundary) and adaptive migration. `Rules` adds to it; with `PAPER` there is nothing
added. Knows nothing of links, processes, clocks or how the view came about.

What the caller leaves out of a view is no candidate: silent and draining instances, and at the
boundary those that cannot read the KV of the current one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InstanceView:
    """What placement sees of one instance that can take requests. Memory is in one unit: blocks."""

    instance_id: str
    within_slo: bool  # t_i: all its answering requests are within their SLO
    kv_footprint_blocks: int  # m_i: KV blocks of all its requests, on the device and off it
    requests: int  # all its unfinished requests; breaks ties
    # These only count at a boundary. Without the request that is there: it is in no queue now,
    # and the memory that it holds is memory that its instance has for it.
    reasoning: int = 0  # r_i: requests in its high-priority queue
    fresh_answering: int = 0  # a_i: answering requests within their first quantum
    kv_blocks_free: int = 0  # on the device
    kv_blocks_total: int = 0  # likewise
    kv_blocks_reserved: int = 0  # for requests that are on their way to it
    migrations: int = 0  # under way, from it and to it


@dataclass(frozen=True, slots=True)
class Rules:
    """How to decide; the fields of the table ``[placement]`` in ``config.toml``.

    A bound of 0 is none.
    """

    new: str = "pascal"  # or "round_robin", "least_kv"
    boundary: str = "balance"  # or "off", "always", "adaptive"
    balance_gap: float = 2.0  # footprints must differ by more than this many times its own KV
    # Share of an instance's memory. adaptive: what a candidate has free beside the KV; balance:
    # what footprints must differ by at least; with 0 it does not ask whether the target has room.
    headroom: float = 0.1
    affinity: float = 1.0  # by at most this many, for a conversation to go where its KV is
    cost_check: bool = True  # do not move where that takes the reader longer than staying
    max_migrations: int = 16  # under way at once
    max_migrations_per_instance: int = 4


PAPER = Rules(
    boundary="adaptive",
    headroom=0,
    affinity=0,
    cost_check=False,
    max_migrations=0,
    max_migrations_per_instance=0,
)


@dataclass(frozen=True, slots=True)
class MoveCost:
    """What a request at its boundary would wait for its first answering token, seconds."""

    move_s: float  # the transfer, as transfers of that size have taken
    stay_s: float  # as requests that stayed there have waited
    unnoticed_s: float  # what its reader expects anyway: the TTFAT target


def place_new_request(
    instances: Sequence[InstanceView],
    rules: Rules = PAPER,
    *,
    placed_before: int = 0,
    kv_blocks: int = 0,
    near: str | None = None,
) -> str | None:
    """Algorithm 1: among instances within their SLO the smallest KV footprint, else over all.

    Ties go to fewer requests, then to the earlier instance. None if there is no instance.

    :param placed_before: how many requests were placed before; for ``round_robin``.
    :param kv_blocks: of the request's prompt.
    :param near: the instance that holds the KV of its conversation, if one does.
    """
    if not instances:
        return None
    if rules.new == "round_robin":
        return instances[placed_before % len(instances)].instance_id
    candidates = instances if rules.new == "least_kv" else _healthy(instances)
    chosen = min(candidates, key=_by_footprint)
    for view in candidates:
        if view.instance_id == near and rules.affinity:
            gap_blocks = _footprint(view) - _footprint(chosen)
            if gap_blocks <= rules.affinity * kv_blocks:
                return near
    return chosen.instance_id


def place_at_boundary(
    instances: Sequence[InstanceView],
    current: str,
    kv_blocks: int,
    rules: Rules = PAPER,
    *,
    under_way: int = 0,
    cost: Callable[[], MoveCost | None] = lambda: None,
) -> str:
    """Where a request goes that has just ended its reasoning; ``current`` to stay.

    :param instances: with the current one.
    :param kv_blocks: that the request holds.
    :param under_way: migrations between any instances.
    :param cost: of moving; None is unknown, which is no reason to stay.
    """
    here = next(view for view in instances if view.instance_id == current)
    match rules.boundary:
        case "always":
            chosen = _algorithm_2(instances, current)
        case "adaptive":
            chosen = _adaptive(instances, here, kv_blocks, rules.headroom)
        case "balance":
            chosen = _balanced(instances, here, kv_blocks, rules)
        case _:
            return current
    if chosen.instance_id == current or not _may_move(here, chosen, under_way, rules):
        return current
    if rules.boundary == "adaptive" and _free(chosen) < kv_blocks <= _free(here):
        return current
    if rules.cost_check and (found := cost()) is not None:
        bound_s = max(found.stay_s, found.unnoticed_s)
        return current if found.move_s > bound_s else chosen.instance_id
    return chosen.instance_id


def _algorithm_2(instances: Sequence[InstanceView], current: str) -> InstanceView:
    """Algorithm 2: among those within their SLO the smallest r_i, else r_i + a_i over all.

    Where the paper leaves several, the current one: to move would be for nothing. Then as in
    Algorithm 1.
    """
    healthy = [view for view in instances if view.within_slo]

    def rank(view: InstanceView) -> tuple[int, bool, tuple[int, int]]:
        queued = view.reasoning + (0 if healthy else view.fresh_answering)
        return queued, view.instance_id != current, _by_footprint(view)

    return min(healthy or instances, key=rank)


def _adaptive(
    instances: Sequence[InstanceView], here: InstanceView, kv_blocks: int, headroom: float
) -> InstanceView:
    """Algorithm 2 among instances with room for the request and for what grows beside it.

    Where none has it, the one with the most room. Room for the request alone does not last: whoever
    is there grows too, and where memory runs out the newest of the low queue goes first. Memory
    that is free is no room if requests of that instance wait for it. And the current instance is
    no better than the others: what the request holds there is the first that its high queue takes.
    """
    if not headroom:
        return _algorithm_2(instances, here.instance_id)

    def room(view: InstanceView) -> int:
        own = kv_blocks if view is here else 0
        return min(_free(view), view.kv_blocks_total - _footprint(view) + own)

    roomy = [v for v in instances if room(v) >= kv_blocks + headroom * v.kv_blocks_total]
    if roomy:
        return _algorithm_2(roomy, here.instance_id)
    return max(instances, key=lambda view: (room(view), view is here))


def _balanced(
    instances: Sequence[InstanceView], here: InstanceView, kv_blocks: int, rules: Rules
) -> InstanceView:
    """The smallest footprint, where the gap is worth it; with headroom, and the request fits in."""
    least = min(instances, key=_by_footprint)
    if rules.headroom and _free(least) < kv_blocks <= _free(here):
        return here
    gap_blocks = max(rules.balance_gap * kv_blocks, rules.headroom * here.kv_blocks_total)
    return least if _footprint(here) - _footprint(least) > gap_blocks else here


def _may_move(here: InstanceView, there: InstanceView, under_way: int, rules: Rules) -> bool:
    """Whether the bounds on migrations under way leave room for one more."""
    per_instance, in_all = rules.max_migrations_per_instance, rules.max_migrations
    if per_instance and max(here.migrations, there.migrations) >= per_instance:
        return False
    return not in_all or under_way < in_all


def _healthy(instances: Sequence[InstanceView]) -> Sequence[InstanceView]:
    return [view for view in instances if view.within_slo] or instances


def _footprint(view: InstanceView) -> int:
    return view.kv_footprint_blocks + view.kv_blocks_reserved


def _free(view: InstanceView) -> int:
    return view.kv_blocks_free - view.kv_blocks_reserved


def _by_footprint(view: InstanceView) -> tuple[int, int]:
    return _footprint(view), view.requests
