"""What holds for every decision of every policy, whoever made the view."""

from __future__ import annotations

from collections.abc import Sequence

from workers.phase import Phase
from workers.policy import HIGH_QUEUE, Decision, Memory, PolicySettings, RequestView


def growth(r: RequestView) -> int:
    return max(0, r.blocks_needed - r.blocks_held)


def check(
    settings: PolicySettings,
    views: Sequence[RequestView],
    memory: Memory,
    now: float,
    decision: Decision,
) -> None:
    """Nothing is given out that is not there, nobody suffers in vain."""
    by_id = {r.request_id: r for r in views}
    assert sorted(decision.order) == sorted(by_id)
    preempt = [by_id[name] for name in decision.preempt]
    admit = [by_id[name] for name in decision.admit]
    assert len(set(decision.preempt)) == len(preempt)
    assert all(r.running and r.preemptable for r in preempt)
    assert all(not r.running and r.ready and not r.blocks_held for r in admit)
    assert bool(admit) or not preempt, "preempted in vain"
    stay = [r for r in views if r.running and r not in preempt]
    assert {*decision.hold} <= {r.request_id for r in stay}
    assert len(decision.hold) < len(stay) or not decision.hold
    loaded = [r for r in views if not r.running and r.ready and r.blocks_held]
    if preempt:
        free = memory.free_blocks + sum(r.blocks_held for r in preempt)
        needed = sum(map(growth, [*stay, *loaded])) + sum(r.blocks_needed for r in admit)
        assert needed + memory.reserve_blocks <= free
        assert len(admit) + len(loaded) <= memory.free_slots + len(preempt)
    if settings.policy in ("pascal", "slack"):
        check_reasoning_first(settings, views, memory, decision)
    if settings.policy == "slack":
        assert all(r.preemptions < settings.max_preemptions for r in preempt)


def check_reasoning_first(
    settings: PolicySettings, views: Sequence[RequestView], memory: Memory, decision: Decision
) -> None:
    """No reasoning request waits while an un-urgent answering one runs in its place."""
    high = [r for r in views if r.phase is Phase.REASONING]
    if settings.policy == "pascal":
        high = [r for r in high if r.queue == HIGH_QUEUE]
    out = [r for r in high if not (r.running or r.blocks_held) and r.ready]
    out = [r for r in out if r.request_id not in decision.admit]
    if not out:
        return
    low = [
        r
        for r in views
        if r.phase is Phase.ANSWERING and r.preemptable and r.request_id not in decision.urgent
    ]
    assert not {r.request_id for r in low} & {*decision.admit}
    rank = {name: place for place, name in enumerate(decision.order)}
    first = min(out, key=lambda r: rank[r.request_id])
    gone = [r for r in views if r.request_id in decision.preempt]
    stay = [r for r in views if r.running and r not in gone]
    admitted = [r for r in views if r.request_id in decision.admit]
    loaded = [r for r in views if not r.running and r.ready and r.blocks_held]
    in_its_place = [r for r in stay if r in low]
    free = memory.free_blocks - memory.reserve_blocks + sum(r.blocks_held for r in gone)
    free -= sum(map(growth, [*stay, *loaded])) + sum(r.blocks_needed for r in admitted)
    slots = memory.free_slots + len(gone) - len(admitted) - len(loaded)
    tokens = memory.step_tokens - len(stay) - len(gone) - len(loaded)
    tokens -= sum(r.tokens_needed for r in admitted)
    gain = sum(r.blocks_held + growth(r) for r in in_its_place)
    fits = free + gain >= first.blocks_needed and slots + len(in_its_place) >= 1
    budget = bool(gone) and len(gone) + len(in_its_place) > settings.max_preemptions_per_step
    ahead = [  # a better one that does not fit: the engine stops there, and nobody passes it
        r
        for r in views
        if not r.running
        and r.ready
        and not r.blocks_held
        and r.request_id not in decision.admit
        and rank[r.request_id] < rank[first.request_id]
    ]
    assert not in_its_place or not fits or budget or tokens <= 0 or ahead
