"""What a scheduling policy sees of one engine before a step, and what it decides."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from workers.policy.phase import Phase

HIGH_QUEUE, LOW_QUEUE = 0, 1


class RequestView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request. A msgspec Struct, because a step makes some hundreds of them."""

    request_id: str
    phase: Phase  # as it is to be scheduled; policies treat REASONING and CALLING alike
    arrival: int  # order of arrival
    running: bool
    blocks_held: int  # waiting requests may hold some too: those whose KV is being loaded
    blocks_needed: int  # total after its next step
    tokens_needed: int = 1  # tokens that its next step computes if none are cached
    ready: bool = True  # it waits for nothing but memory
    queue: int = HIGH_QUEUE  # as `queue_of` says
    queue_position: int = 0  # in that queue; the lowest runs first
    quanta: int = 0  # used up in this phase; thoughts and calls together are one
    run_tokens: int = 0  # generated since it was last admitted
    preemptions: int = 0  # how often decisions have preempted it
    # When its reader runs out of tokens. None: not in sight, or the model does not answer.
    dry_at: float | None = None
    resume_s: float = 0.0  # estimated cost of coming back after a preemption
    waiting_since: float = 0.0  # valid while it waits
    urgent: bool = False  # as decided last time
    paced: bool = True  # False: its reader takes tokens as they come and never has slack
    user: str | None = None  # None: shares with nobody


@dataclass(frozen=True, slots=True)
class Memory:
    """What one step can give out."""

    free_blocks: int
    free_slots: int
    step_tokens: int  # tokens that a step may compute
    reserve_blocks: int = 0  # blocks that an admission must leave free


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do before the next step. All values are request ids.

    ``order`` ranks every request, best first. Waiting requests are admitted in this order; where
    memory runs out within a step, the last running one is preempted. The requests in ``preempt``
    give up their KV and slot now, or the KV that was loaded for them. The requests in ``admit``
    then fit. Those in ``hold`` keep their KV and skip a step. The next view shows ``urgent`` again.

    Blocks shared through the prefix cache count as held by each of their requests. Preempting one
    may therefore free fewer blocks, and the engine then admits fewer requests than ``admit``.
    """

    order: tuple[str, ...]
    preempt: tuple[str, ...] = ()
    admit: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    urgent: frozenset[str] = frozenset()


def has_reader(request: RequestView) -> bool:
    """Whether somebody reads, at a pace, what the request generates now."""
    return request.phase is Phase.ANSWERING and request.paced


def slack_s(request: RequestView, now: float) -> float:
    """Seconds for which the reader can do without the engine, less the time to resume."""
    return math.inf if request.dry_at is None else request.dry_at - now - request.resume_s
