"""What placement sees of a simulated instance, as `gateway.routing.instance` has it of a real one.

Pure. The same numbers in the same units from the same moments, so that placement cannot tell the
two apart; a test drives both with one sequence of events. Memory that is free is what the
instance's last step said, as a gateway knows it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.policy.placement import InstanceView
from gateway.routing.instance import ViewRules
from workers.policy.settings import PolicySettings

if TYPE_CHECKING:
    from bench.simulator.migration import Held
    from bench.simulator.request import Live


@dataclass(frozen=True, slots=True)
class Move:
    """A request on its way between two instances, until its first token on the second."""

    live: Live
    source: str
    target: str
    generated: int  # tokens when it left
    kv_blocks: int
    boundary_s: float
    held: Held  # its KV, at the source


def view_rules(settings: PolicySettings, *, reserve_memory: bool = True) -> ViewRules:
    """As the gateway derives them from its configuration."""
    return ViewRules(
        quantum_tokens=settings.quantum_tokens,
        demotion_tokens=settings.demotion_tokens if settings.policy == "pascal" else None,
        reserve_memory=reserve_memory,
    )


def view_of(
    name: str,
    lives: Collection[Live],
    *,
    block_size: int,
    free_blocks: int,
    total_blocks: int,
    now: float,
    rules: ViewRules,
    moves: Sequence[Move] = (),
    at_boundary: Live | None = None,
) -> InstanceView:
    """One instance.

    :param lives: its requests, with those that are on their way to it.
    :param free_blocks: on the device, after its last step; of ``total_blocks``.
    :param moves: all that are under way, between any instances.
    :param at_boundary: the request to decide on, if it is here.
    """

    def blocks(live: Live) -> int:
        return -(-live.kv_tokens // block_size)

    coming = [move for move in moves if move.target == name]
    leaving = sum(move.source == name for move in moves)
    if rules.reserve_memory:
        free_blocks -= sum(blocks(move.live) for move in coming)
    demotion, quantum = rules.demotion_tokens, rules.quantum_tokens
    footprint = reasoning = fresh = 0
    for live in lives:
        footprint += blocks(live)
        if live is at_boundary:
            free_blocks += blocks(live)
        elif live.reasoning_ahead > 0:
            reasoning += demotion is None or live.generated < demotion
        else:
            fresh += -live.reasoning_ahead < quantum
    return InstanceView(
        instance_id=name,
        within_slo=all(live.within_slo(now) for live in lives),
        kv_footprint_blocks=footprint,
        requests=len(lives),
        reasoning=reasoning,
        fresh_answering=fresh,
        kv_blocks_free=free_blocks,
        kv_blocks_total=total_blocks,
        migrations=len(coming) + leaving,
    )
