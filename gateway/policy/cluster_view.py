"""What placement sees of a cluster, and what it learns from each phase boundary.

The gateway's router and the simulator place requests through one `Placer`, so both see the same
numbers and decide alike. A caller supplies facts only: an `Occupancy` of each candidate, and the
moves that are under way.

Pure, like all of `gateway.policy`: the module must not know clocks, links, sessions or engines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, Protocol, TypeAlias

from gateway.policy.affinity import Place
from gateway.policy.boundary_costs import BoundaryTimes
from gateway.policy.pauses import Pauses
from gateway.policy.placement import (
    NOTHING_HELD,
    InstanceView,
    MoveCost,
    Rules,
    place_at_boundary,
    place_new_request,
)
from workers.messages import Load

# How a request came to its first answering token: where it had been thinking, on another instance
# with its KV, or on another instance that computed the KV again.
Passage: TypeAlias = Literal["stayed", "moved", "recomputed"]

# How much of the last prompt of a session its next one repeats, if nothing is known about it.
_SESSION_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class ViewRules:
    """The settings that a view depends on; see `view_rules`."""

    slo_qoe: float = 0.95  # an answering request below this QoE violates its SLO
    quantum_tokens: int = 500
    demotion_tokens: int | None = None  # longer reasoning is in the low queue; None: never
    reserve_memory: bool = True  # a moving request counts at its target, not at its source


class PlacedRequest(Protocol):
    """An unfinished request, as placement counts it."""

    @property
    def kv_tokens(self) -> int:
        """Tokens of its prompt and of its output so far."""

    @property
    def thinking(self) -> bool:
        """Whether its phase boundary is still ahead."""

    @property
    def reasoning_tokens(self) -> int:
        """Tokens generated up to the boundary."""

    @property
    def answering_tokens(self) -> int:
        """Tokens generated after the boundary."""

    def within_slo(self, slo_qoe: float, now: float) -> bool:
        """Whether the QoE of its reader is at least ``slo_qoe``."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What one instance holds. Memory is in KV blocks."""

    instance_id: str
    block_size: int  # tokens
    kv_blocks_total: int
    kv_blocks_free: int  # on the device, as the engine last reported
    requests: Collection[PlacedRequest]  # unfinished; also those that have just been sent to it
    others: Load | None = None  # what other gateways have there; None: there is no other gateway


class MovingRequest(Protocol):
    """A request on its way between two instances, until its first token on the second."""

    @property
    def request(self) -> PlacedRequest:
        """The request itself."""

    @property
    def source_id(self) -> str:
        """The instance that it leaves."""

    @property
    def target_id(self) -> str | None:
        """The instance that it goes to; None while that is open."""

    @property
    def leaving(self) -> bool:
        """Whether the source has yet to hand it over."""


def view_rules(
    policy: str,
    quantum_tokens: int,
    demotion_tokens: int,
    *,
    slo_qoe: float = 0.95,
    reserve_memory: bool = True,
) -> ViewRules:
    """The rules for instances whose scheduler runs ``policy``; only ``pascal`` demotes."""
    return ViewRules(
        slo_qoe=slo_qoe,
        quantum_tokens=quantum_tokens,
        demotion_tokens=demotion_tokens if policy == "pascal" else None,
        reserve_memory=reserve_memory,
    )


def blocks_of(kv_tokens: int, block_size: int) -> int:
    """The number of KV blocks that hold ``kv_tokens`` tokens."""
    return -(-kv_tokens // block_size)


def view_of(
    here: Occupancy,
    moves: Sequence[MovingRequest],
    rules: ViewRules,
    now: float,
    at_boundary: PlacedRequest | None = None,
) -> InstanceView:
    """What placement sees of one instance.

    :param moves: all moves that are under way, between any instances.
    :param at_boundary: the request to decide on. If it is here, it counts in no queue, and its
        memory counts as free.
    """
    name, block_size = here.instance_id, here.block_size

    def blocks(request: PlacedRequest) -> int:
        return -(-request.kv_tokens // block_size)

    coming = [move for move in moves if move.target_id == name]
    leaving = [move for move in moves if move.source_id == name]
    counted, free, reserved = here.requests, here.kv_blocks_free, 0
    arriving: list[PlacedRequest] = []
    if rules.reserve_memory:
        if leaving:
            away = {move.request for move in leaving}
            counted = [request for request in counted if request not in away]
        arriving = [move.request for move in coming if move.leaving]
        reserved = sum(blocks(request) for request in arriving)
        # The others that come are here already, but the engine has not taken their memory yet.
        free -= sum(blocks(move.request) for move in coming if not move.leaving)
    if at_boundary is not None and at_boundary in here.requests:
        free += blocks(at_boundary)
    demotion, quantum = rules.demotion_tokens, rules.quantum_tokens
    reasoning = fresh = 0
    for request in chain(counted, arriving):
        if request is at_boundary:
            continue
        if request.thinking:
            reasoning += demotion is None or request.reasoning_tokens < demotion
        else:
            fresh += request.answering_tokens < quantum
    slo_qoe = rules.slo_qoe
    view = InstanceView(
        instance_id=name,
        within_slo=all(request.within_slo(slo_qoe, now) for request in here.requests),
        kv_footprint_blocks=sum(blocks(request) for request in counted),
        requests=len(counted) + len(arriving),
        reasoning=reasoning,
        fresh_answering=fresh,
        kv_blocks_free=free,
        kv_blocks_total=here.kv_blocks_total,
        kv_blocks_reserved=reserved,
        migrations=len(coming) + len(leaving),
    )
    return view if here.others is None else _with_others(view, here.others)


def _with_others(view: InstanceView, others: Load) -> InstanceView:
    """The view with what other gateways have there."""
    return replace(
        view,
        within_slo=view.within_slo and not others.late_readers,
        kv_footprint_blocks=view.kv_footprint_blocks + others.kv_blocks,
        requests=view.requests + others.requests,
        kv_blocks_expected=others.kv_blocks_expected,
        reasoning=view.reasoning + others.reasoning,
        fresh_answering=view.fresh_answering + others.fresh_answering,
        kv_blocks_free=view.kv_blocks_free - others.kv_blocks_coming,
        kv_blocks_reserved=view.kv_blocks_reserved + others.kv_blocks_reserved,
        migrations=view.migrations + others.migrations,
    )


def _moves_of_others(instances: Iterable[Occupancy]) -> int:
    """Migrations of other gateways. Both ends of one report it, if both are among these."""
    ends = sum(one.others.migrations for one in instances if one.others is not None)
    return -(-ends // 2)


class Placer:
    """Places the requests of one cluster, and remembers what that needs.

    It counts the requests placed so far (for ``round_robin``). It keeps the times that recent
    requests waited at their boundary (for the cost check), and, with affinity, which conversations
    are between two turns.

    ``candidates`` are the instances that may take the request, ``moves`` all that are under way,
    and ``now`` is in seconds, on one clock.
    """

    def __init__(self, rules: Rules, rules_of_view: ViewRules) -> None:
        self.rules = rules
        self._view_rules = rules_of_view
        self._placed_before = 0
        self._times = BoundaryTimes()
        self._pauses = Pauses()

    def place_new(
        self,
        candidates: Sequence[Occupancy],
        moves: Sequence[MovingRequest],
        now: float,
        *,
        held_tokens: Mapping[str, int] = NOTHING_HELD,
        last: Place | None = None,
        prefixes: Sequence[int] = (),
    ) -> str | None:
        """The instance for a request that begins, or begins again; None without a candidate.

        :param held_tokens: by instance, of how many tokens of its prompt it holds the KV.
        :param last: where the last request of its session ran. If nothing is known to be held,
            that instance counts as holding `_SESSION_SHARE` of the last prompt.
        :param prefixes: the beginnings of its conversation, see `gateway.policy.prefixes`.
        """
        if not candidates:
            return None
        if last is not None and not held_tokens:
            held_tokens = {last.instance_id: int(last.tokens * _SESSION_SHARE)}
        views = [view_of(candidate, moves, self._view_rules, now) for candidate in candidates]
        chosen = place_new_request(
            self._with_expected(views, prefixes, candidates[0].block_size, now),
            self.rules,
            placed_before=self._placed_before,
            held_blocks={  # only whole blocks are found again
                name: tokens // candidates[0].block_size for name, tokens in held_tokens.items()
            },
            last_at=None if last is None else last.instance_id,
        )
        self._placed_before += 1
        return chosen

    def load(self, here: Occupancy, moves: Sequence[MovingRequest], now: float) -> Load:
        """What this gateway alone has on an instance, for the placement of others."""
        view = view_of(replace(here, others=None), moves, self._view_rules, now)
        coming = [m for m in moves if m.target_id == here.instance_id and not m.leaving]
        expected = self._pauses.tokens(now).get(here.instance_id, 0) if self.rules.affinity else 0
        slo_qoe = self._view_rules.slo_qoe
        return Load(
            requests=view.requests,
            reasoning=view.reasoning,
            fresh_answering=view.fresh_answering,
            kv_blocks=view.kv_footprint_blocks,
            kv_blocks_coming=sum(blocks_of(m.request.kv_tokens, here.block_size) for m in coming),
            kv_blocks_reserved=view.kv_blocks_reserved,
            kv_blocks_expected=blocks_of(expected, here.block_size),
            migrations=view.migrations,
            late_readers=sum(not request.within_slo(slo_qoe, now) for request in here.requests),
        )

    def turn_ended(
        self, prefixes: Sequence[int], instance_id: str, tokens: int, now: float
    ) -> None:
        """A request is complete; its conversation may go on.

        :param prefixes: as they were when it was placed.
        :param tokens: of its prompt and its output.
        """
        if self.rules.affinity:
            self._pauses.ended(prefixes, instance_id, tokens, now)

    def lost(self, instance_id: str) -> None:
        """An instance is gone, and its KV with it."""
        self._pauses.lose(instance_id)

    def _with_expected(
        self, views: list[InstanceView], prefixes: Sequence[int], block_size: int, now: float
    ) -> list[InstanceView]:
        """The views with what conversations will bring back, the one that is placed left out."""
        if not self.rules.affinity:
            return views
        self._pauses.began(prefixes, now)
        expected = self._pauses.tokens(now)
        return [
            replace(
                view,
                kv_blocks_expected=view.kv_blocks_expected
                + blocks_of(expected[view.instance_id], block_size),
            )
            if expected.get(view.instance_id)
            else view
            for view in views
        ]

    def place_at_boundary(
        self,
        request: PlacedRequest,
        here: Occupancy,
        others: Sequence[Occupancy],
        moves: Sequence[MovingRequest],
        now: float,
        *,
        unnoticed_s: float,
    ) -> str:
        """The instance where a request answers that has just ended its reasoning.

        :param here: the instance that has it.
        :param unnoticed_s: the wait that its reader expects anyway, the TTFAT target.
        """
        kv_blocks = blocks_of(request.kv_tokens, here.block_size)

        def cost() -> MoveCost | None:
            return self._times.cost(here.instance_id, kv_blocks, unnoticed_s, now)

        return place_at_boundary(
            [view_of(one, moves, self._view_rules, now, request) for one in (here, *others)],
            here.instance_id,
            kv_blocks,
            self.rules,
            under_way=len(moves) + _moves_of_others((here, *others)),
            cost=cost,
        )

    def open_targets(
        self, source_id: str, target_ids: Sequence[str], moves: Sequence[MovingRequest]
    ) -> list[str]:
        """The targets to which one more request may move, by the bounds of the rules."""
        in_all, each = self.rules.max_migrations, self.rules.max_migrations_per_instance
        if in_all and len(moves) >= in_all:
            return []
        if not each:
            return list(target_ids)
        under_way: Counter[str | None] = Counter()
        for move in moves:
            under_way.update({move.source_id, move.target_id})
        if under_way[source_id] >= each:
            return []
        return [target_id for target_id in target_ids if under_way[target_id] < each]

    def note_first_answer(
        self, how: Passage, instance_id: str, kv_blocks: int, boundary_s: float, now: float
    ) -> float:
        """Learn from a request whose first answering token has come.

        A move whose KV was computed again says nothing about transfers, so it teaches nothing.

        :param instance_id: where it was at its boundary.
        :param kv_blocks: the KV that it had there; for a move.
        :return: seconds since the boundary.
        """
        seconds = now - boundary_s
        if how == "moved":
            self._times.moved(kv_blocks, seconds, now)
        elif how == "stayed":
            self._times.stayed(instance_id, seconds, now)
        return seconds
