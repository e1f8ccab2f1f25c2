"""What a scheduling policy sees, and what it decides: of one engine, before one step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from workers.policy.phase import Phase

HIGH_QUEUE, LOW_QUEUE = 0, 1


class RequestView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request. A Struct because some hundreds are made in a step; do not change one."""

    request_id: str
    phase: Phase
    arrival: int  # order of arrival
    running: bool
    blocks_held: int  # waiting requests may hold some too: those whose KV is being loaded
    blocks_needed: int  # held in all once it has run its next step
    tokens_needed: int = 1  # that its next step computes, if nothing of it is cached
    ready: bool = True  # could run; False: waits for something else than memory
    queue: int = HIGH_QUEUE  # as `queue_of` says
    queue_position: int = 0  # in that queue; the lowest runs first
    quanta: int = 0  # used up in this phase
    run_tokens: int = 0  # generated since it was last admitted
    preemptions: int = 0  # that decisions have cost it
    dry_at: float | None = None  # when its reader runs out of tokens; None: not in sight
    resume_s: float = 0.0  # estimated cost of coming back after a preemption
    waiting_since: float = 0.0  # meaningful while it waits
    urgent: bool = False  # as decided last time
    paced: bool = True  # False: its reader takes tokens as fast as they come, and has no slack
    user: str | None = None  # None: shares with nobody


@dataclass(frozen=True, slots=True)
class Memory:
    """What there is to give out in one step."""

    free_blocks: int
    free_slots: int
    step_tokens: int  # that a step may compute
    reserve_blocks: int = 0  # that an admission must leave free


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do before the next step. All are request ids.

    ``order`` ranks every request, best first: waiting ones are admitted in this order, and where
    memory runs out in mid-step the last running one goes. ``preempt`` give up KV and slot now, or
    KV that was loaded for them; with what they leave, and what was free, ``admit`` fit. ``hold``
    keep their KV and skip a step. ``urgent`` is to be shown again in the next view.

    Blocks that requests share through the prefix cache count as held by each of them: preempting
    one may free fewer than that, and the engine then admits fewer than ``admit``.
    """

    order: tuple[str, ...]
    preempt: tuple[str, ...] = ()
    admit: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    urgent: frozenset[str] = frozenset()


def slack_s(request: RequestView, now: float) -> float:
    """Seconds for which the reader can do without the engine, when resuming is counted in."""
    return math.inf if request.dry_at is None else request.dry_at - now - request.resume_s
