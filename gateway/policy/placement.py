"""Which instance serves a request. Pure: a view of the instances in, a decision out.

Source: the paper's instance-level scheduling: Algorithm 1 (a new request), Algorithm 2 (a request
at its phase boundary) and adaptive migration. `Rules` adds to it; with `PAPER` there is nothing
added. Must not know links, processes or clocks. `gateway.policy.cluster_view` makes the views.

An instance that the caller leaves out is not a candidate: silent and draining instances, and at the
boundary those that cannot read the KV of the current one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

BoundaryRule: TypeAlias = Literal["off", "always", "adaptive", "balance"]
BOUNDARY_RULES: tuple[BoundaryRule, ...] = get_args(BoundaryRule)

NOTHING_HELD: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class InstanceView:
    """What placement sees of one instance that can take requests. Memory is in KV blocks."""

    instance_id: str
    within_slo: bool  # t_i: all its answering requests are within their SLO
    kv_footprint_blocks: int  # m_i: KV blocks of all its requests, on the device and off it
    requests: int  # all its unfinished requests; breaks ties
    # Blocks that conversations between two turns are expected to bring back. They matter for a new
    # request only.
    kv_blocks_expected: int = 0
    # These matter at a boundary only. They leave out the request that is at its boundary: it is in
    # no queue now, and its memory counts as free where it is.
    reasoning: int = 0  # r_i: requests in its high-priority queue
    fresh_answering: int = 0  # a_i: answering requests within their first quantum
    kv_blocks_free: int = 0  # on the device
    kv_blocks_total: int = 0  # on the device
    kv_blocks_reserved: int = 0  # for requests that are about to be sent to it
    migrations: int = 0  # under way, from it and to it


@dataclass(frozen=True, slots=True)
class Rules:
    """How to decide; the fields of the table ``[placement]`` in ``config.toml``.

    A bound of 0 means unbounded.
    """

    new: str = "pascal"  # or "round_robin", "least_kv"
    boundary: str = "balance"  # a `BoundaryRule`
    balance_gap: float = 2.0  # footprints must differ by more than this many times its own KV
    # A share of an instance's memory. With "adaptive", a candidate must have so much free in
    # addition to the request's KV. With "balance", footprints must differ by at least so much, and
    # with 0 the rule does not ask whether the target has room.
    headroom: float = 0.1
    # A conversation goes where its KV is if the footprint there is larger by at most this many
    # times the KV that is there. 0: conversations count neither then nor between their turns.
    affinity: float = 2.0
    cost_check: bool = True  # do not move if the reader would wait longer than by staying
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
    """How long a request at its boundary would wait for its first answering token, seconds."""

    move_s: float  # if it moves, by recent moves of that size
    stay_s: float  # if it stays, by recent requests that stayed there
    unnoticed_s: float  # the wait that its reader expects anyway: the TTFAT target


def place_new_request(
    instances: Sequence[InstanceView],
    rules: Rules = PAPER,
    *,
    placed_before: int = 0,
    held_blocks: Mapping[str, int] = NOTHING_HELD,
    last_at: str | None = None,
) -> str | None:
    """Algorithm 1: the instance with the smallest KV footprint, of those within their SLO.

    If none is within its SLO, all are candidates. Ties go to fewer requests, then to the earlier
    instance. None without any instance.

    KV that conversations are expected to bring back counts in the choice of that instance. It does
    not count in the difference up to which a conversation returns to its KV: that is about how
    crowded the instances are now.

    :param placed_before: the number of requests placed before; for ``round_robin``.
    :param held_blocks: by instance, how much of the KV of the request's conversation it holds.
    :param last_at: the instance that wins among those that hold equally much.
    """
    if not instances:
        return None
    if rules.new == "round_robin":
        return instances[placed_before % len(instances)].instance_id
    candidates = instances if rules.new == "least_kv" else _healthy(instances)
    chosen = min(candidates, key=_by_expected_footprint)
    if rules.affinity and held_blocks:
        worth_it = [
            view
            for view in candidates
            if (held := held_blocks.get(view.instance_id, 0))
            and _footprint(view) - _footprint(chosen) <= rules.affinity * held
        ]
        if worth_it:
            chosen = min(
                worth_it,
                key=lambda view: (
                    -held_blocks[view.instance_id],
                    view.instance_id != last_at,
                    _by_footprint(view),
                ),
            )
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
    """The instance where a request answers that has just ended its reasoning.

    :param instances: the candidates, the current one included.
    :param current: the instance that has the request; the result if it stays.
    :param kv_blocks: KV that the request holds.
    :param under_way: the number of migrations between any instances.
    :param cost: returns the cost of moving. None means unknown, and does not stop a move.
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
    if rules.cost_check and (estimate := cost()) is not None:
        bound_s = max(estimate.stay_s, estimate.unnoticed_s)
        return current if estimate.move_s > bound_s else chosen.instance_id
    return chosen.instance_id


def _algorithm_2(instances: Sequence[InstanceView], current: str) -> InstanceView:
    """Algorithm 2: the smallest r_i of those within their SLO, else the smallest r_i + a_i of all.

    The paper leaves ties open. They go to the current instance, because a move would gain nothing,
    and then as in Algorithm 1.
    """
    healthy = [view for view in instances if view.within_slo]

    def rank(view: InstanceView) -> tuple[int, bool, tuple[int, int]]:
        queued = view.reasoning + (0 if healthy else view.fresh_answering)
        return queued, view.instance_id != current, _by_footprint(view)

    return min(healthy or instances, key=rank)


def _adaptive(
    instances: Sequence[InstanceView], here: InstanceView, kv_blocks: int, headroom: float
) -> InstanceView:
    """Algorithm 2 among instances with room for the request and for the growth of others.

    If none has that room, the result is the instance with the most. Room for the request alone does
    not last: the other requests grow too, and when memory runs out, the newest request of the low
    queue is preempted first.

    Free memory does not count as room if queued requests of that instance want it. The current
    instance gets no advantage for the memory that the request holds there, because its high queue
    takes that memory first.
    """
    if not headroom:
        return _algorithm_2(instances, here.instance_id)

    def room(view: InstanceView) -> int:
        held_here = kv_blocks if view is here else 0
        return min(_free(view), view.kv_blocks_total - _footprint(view) + held_here)

    roomy = [v for v in instances if room(v) >= kv_blocks + headroom * v.kv_blocks_total]
    if roomy:
        return _algorithm_2(roomy, here.instance_id)
    return max(instances, key=lambda view: (room(view), view is here))


def _balanced(
    instances: Sequence[InstanceView], here: InstanceView, kv_blocks: int, rules: Rules
) -> InstanceView:
    """The smallest footprint if the gap is large enough, else the current instance.

    With headroom, the request stays where it fits rather than go where it does not fit.
    """
    least = min(instances, key=_by_footprint)
    if rules.headroom and _free(least) < kv_blocks <= _free(here):
        return here
    gap_blocks = max(rules.balance_gap * kv_blocks, rules.headroom * here.kv_blocks_total)
    return least if _footprint(here) - _footprint(least) > gap_blocks else here


def _may_move(here: InstanceView, there: InstanceView, under_way: int, rules: Rules) -> bool:
    """Whether the bounds on migrations allow one more."""
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


def _by_expected_footprint(view: InstanceView) -> tuple[int, int]:
    return _footprint(view) + view.kv_blocks_expected, view.requests
