"""Checks that every decision of every policy must pass, for any view."""

from __future__ import annotations

from collections.abc import Sequence

from workers.policy.phase import Phase
from workers.policy.settings import PolicySettings
from workers.policy.view import HIGH_QUEUE, Decision, Memory, RequestView


def growth(r: RequestView) -> int:
    return max(0, r.blocks_needed - r.blocks_held)


def is_loaded(r: RequestView) -> bool:
    return not r.running and r.ready and r.blocks_held > 0


def check(
    settings: PolicySettings,
    views: Sequence[RequestView],
    memory: Memory,
    now: float,
    decision: Decision,
) -> None:
    """Check that a decision fits into memory and preempts no request in vain."""
    by_id = {r.request_id: r for r in views}
    assert sorted(decision.order) == sorted(by_id)
    preempt = [by_id[name] for name in decision.preempt]
    admit = [by_id[name] for name in decision.admit]
    assert len(set(decision.preempt)) == len(preempt)
    assert all(r.running or is_loaded(r) for r in preempt)
    assert all(not r.running and r.ready for r in admit)
    assert not {*decision.preempt} & {*decision.admit}
    assert bool(admit) or not preempt, "preempted in vain"
    stay = [r for r in views if r.running and r not in preempt]
    assert {*decision.hold} <= {r.request_id for r in stay}
    assert len(decision.hold) < len(stay) or not decision.hold
    loading = [r for r in views if not r.running and not r.ready and r.blocks_held]
    if preempt:
        free = memory.free_blocks + sum(r.blocks_held for r in preempt)
        needed = sum(map(growth, [*stay, *loading, *admit]))
        assert needed + memory.reserve_blocks <= free
        assert len(admit) <= memory.free_slots + sum(r.running for r in preempt)
    stuck = [r for r in views if is_loaded(r) and r not in admit and r not in preempt]
    assert not stuck or all(map(is_loaded, admit)), "the engine admits no request past them"
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
    out = [r for r in high if not r.running and r.ready]
    out = [r for r in out if r.request_id not in (*decision.admit, *decision.preempt)]
    if not out:
        return
    low = [r for r in views if r.phase is Phase.ANSWERING and r.request_id not in decision.urgent]
    admitted = [r for r in views if r.request_id in decision.admit]
    assert all(is_loaded(r) for r in admitted if r in low), "the engine admits only those first"
    rank = {name: place for place, name in enumerate(decision.order)}
    first = min(out, key=lambda r: (not is_loaded(r), rank[r.request_id]))
    gone = [r for r in views if r.request_id in decision.preempt]
    stay = [r for r in views if r.running and r not in gone]
    stuck = [r for r in views if is_loaded(r) and r not in admitted and r not in gone]
    in_its_place = [r for r in stay if r in low]
    loading = [r for r in views if not r.running and not r.ready and r.blocks_held]
    free = memory.free_blocks - memory.reserve_blocks + sum(r.blocks_held for r in gone)
    free -= sum(map(growth, [*stay, *loading, *admitted]))
    left = sum(r.running for r in gone)
    slots = memory.free_slots + left - len(admitted)
    tokens = memory.step_tokens - sum(r.tokens_needed for r in views if r.running)
    tokens -= sum(r.tokens_needed for r in admitted)
    gain = sum(r.blocks_held + growth(r) for r in in_its_place)
    gain += sum(r.blocks_held for r in stuck if not is_loaded(first))
    fits = free + gain >= growth(first) and slots + len(in_its_place) >= 1
    most = len(gone) + len(in_its_place) + len(stuck)
    budget = bool(gone) and most > settings.max_preemptions_per_step
    ahead = [  # the engine stops at a better request that does not fit
        r
        for r in views
        if not r.running
        and r.ready
        and r not in admitted
        and r not in gone
        and rank[r.request_id] < rank[first.request_id]
    ]
    # It also stops at one that has its KV and a right to run, but does not fit.
    ahead += [r for r in stuck if r is not first and r not in low]
    in_its_place += [r for r in stuck if not is_loaded(first)]
    assert not in_its_place or not fits or budget or tokens <= 0 or ahead
