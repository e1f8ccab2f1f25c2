"""Scheduling policies of one engine: which requests run, wait, or give up their KV memory.

Decides once before each engine step, from a view of all requests and of the memory. Must not know
an engine, a clock or a random generator, so that a simulator can run the same functions. Moments
are seconds on the caller's monotonic clock.

    fcfs    vLLM's own order; no request is preempted for a waiting one
    rr      phase-blind round-robin
    pascal  the paper's two queues (PASCAL, "Intra-instance scheduling"): reasoning before answering
            and before demoted reasoning, round-robin inside each
    slack   an answering request needs the engine only when its reader is about to run out of
            tokens; until then reasoning goes first
    andes, tokenflow
            baselines: `workers.policy.baselines`

Nobody reads a call of a tool, and an agent waits for its end: for every policy a request that
writes one counts as reasoning.

In a round-robin queue a request has a position and a quantum of tokens. When it has used up the
quantum, it gets a new position at the end of the queue, and a new quantum.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from workers.checked import SettingError
from workers.policy.baselines import andes, tokenflow
from workers.policy.make_room import growth, make_room
from workers.policy.phase import Phase
from workers.policy.settings import PolicySettings
from workers.policy.view import (
    HIGH_QUEUE,
    LOW_QUEUE,
    Decision,
    Memory,
    RequestView,
    has_reader,
    slack_s,
)

# Ranks of `slack`, best first.
_AGED, _URGENT, _REASONING, _REST = range(4)


def decide(
    settings: PolicySettings, requests: Sequence[RequestView], memory: Memory, now: float
) -> Decision:
    """The policy's decision for the next step."""
    return policy_function(settings.policy)(settings, requests, memory, now)


@cache
def policy_function(policy: str) -> Callable[..., Decision]:
    """The function that decides: one of this module, or ``module:function`` of any other.

    :raises SettingError: there is no such module or function; the message names the policy.
    """
    if policy in _POLICIES:
        return _POLICIES[policy]
    module, _, name = policy.partition(":")
    try:
        function: Callable[..., Decision] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise SettingError(f"policy {policy!r}: {error}") from error
    if not callable(function):
        raise SettingError(f"policy {policy!r}: {function!r} is not a function")
    return function


def queue_of(settings: PolicySettings, phase: Phase, urgent_tokens: int) -> int:
    """The queue of a request; one that changes queues gets a new position and a new quantum.

    :param urgent_tokens: of its thoughts and calls.
    """
    if settings.policy == "rr":
        return HIGH_QUEUE
    if phase is Phase.ANSWERING:
        return LOW_QUEUE
    demoted = settings.policy == "pascal" and urgent_tokens >= settings.demotion_tokens
    return LOW_QUEUE if demoted else HIGH_QUEUE


# ---- the policies


def _fcfs(
    settings: PolicySettings, requests: Sequence[RequestView], memory: Memory, now: float
) -> Decision:
    order = sorted(requests, key=lambda r: (not r.running, r.arrival))
    return Decision(tuple(r.request_id for r in order))


def _round_robin(
    settings: PolicySettings, requests: Sequence[RequestView], memory: Memory, now: float
) -> Decision:
    """`rr`, where all requests share one queue, and `pascal`, where the high queue comes first."""

    def place(request: RequestView) -> tuple[int, int]:
        return request.queue, request.queue_position

    order = sorted(requests, key=place)
    preempt, admit = make_room(settings, order, memory, lambda w, r: place(w) < place(r))
    return Decision(tuple(r.request_id for r in order), preempt, admit)


def _slack(
    settings: PolicySettings, requests: Sequence[RequestView], memory: Memory, now: float
) -> Decision:
    ranks: dict[str, tuple[int, int]] = {}
    keys: dict[str, tuple[float, ...]] = {}
    urgent = set()
    for r in requests:
        rank = _slack_rank(settings, r, now)
        if rank <= _URGENT:
            urgent.add(r.request_id)
        ranks[r.request_id] = rank, level = rank, _level(settings, r, rank, now)
        if rank == _AGED:
            measure = r.waiting_since
        elif rank == _REASONING:
            measure = 0.0
        else:
            measure = math.inf if r.dry_at is None else r.dry_at
        keys[r.request_id] = (rank, level, not r.running, measure, r.arrival)
    order = _fair(sorted(requests, key=lambda r: keys[r.request_id]), ranks)

    def displaces(waiting: RequestView, running: RequestView) -> bool:
        rank, level = ranks[waiting.request_id]
        running_rank, running_level = ranks[running.request_id]
        if running.preemptions >= settings.max_preemptions:
            return False
        if rank != running_rank:
            return rank < running_rank
        # An admitted request may use up a quantum before another of its rank takes its place.
        return level < running_level and running.run_tokens >= settings.quantum_tokens

    preempt, admit = make_room(settings, order, memory, displaces)
    hold = _hold(settings, order, memory, set(preempt), ranks, now)
    return Decision(tuple(r.request_id for r in order), preempt, admit, hold, frozenset(urgent))


_POLICIES: dict[str, Callable[..., Decision]] = {
    "fcfs": _fcfs,
    "rr": _round_robin,
    "pascal": _round_robin,
    "slack": _slack,
    "andes": andes,
    "tokenflow": tokenflow,
}


# ---- slack


def _slack_rank(settings: PolicySettings, request: RequestView, now: float) -> int:
    if not has_reader(request):
        return _REASONING
    if not request.running and now - request.waiting_since >= settings.starvation_s:
        return _AGED
    if request.preemptions >= settings.max_preemptions:
        return _URGENT
    if request.urgent:
        if request.running and request.run_tokens < settings.min_run_tokens:
            return _URGENT
        return _URGENT if slack_s(request, now) < settings.high_water_s else _REST
    return _URGENT if slack_s(request, now) < settings.low_water_s else _REST


def _level(settings: PolicySettings, request: RequestView, rank: int, now: float) -> int:
    """Among reasoning requests: the quanta used up; 0 for one that aged or was preempted often."""
    if rank != _REASONING or request.preemptions >= settings.max_preemptions:
        return 0
    aged = not request.running and now - request.waiting_since >= settings.starvation_s
    return 0 if aged else request.quanta


def _fair(order: list[RequestView], ranks: Mapping[str, tuple[int, int]]) -> list[RequestView]:
    """Within a rank, put each user's first waiting request before any user's second.

    A user's running requests of that rank count as first ones. Running requests stay in front.
    """
    if all(r.user is None for r in order):
        return order
    before: Counter[tuple[int, str]] = Counter()
    places: dict[str, tuple[int, ...]] = {}
    for r in order:
        rank, level = ranks[r.request_id]
        nth = 0
        if r.user is not None:
            owner = rank, r.user
            nth = before[owner]
            before[owner] = nth + 1
        places[r.request_id] = (rank, 0, level) if r.running else (rank, 1, nth)
    # `order` is sorted by its keys and sorting is stable: the places alone are enough.
    return sorted(order, key=lambda r: places[r.request_id])


def _hold(
    settings: PolicySettings,
    order: Sequence[RequestView],
    memory: Memory,
    gone: set[str],
    ranks: Mapping[str, tuple[int, int]],
    now: float,
) -> tuple[str, ...]:
    """Requests that skip a step, because the running ones need more blocks than are free.

    They are those whose readers have slack above the high-water mark: if they grew, another request
    would lose its memory. At least one request always runs, or the engine would spin.
    """
    staying = [r for r in order if r.running and r.request_id not in gone]
    freed = sum(r.blocks_held for r in order if r.request_id in gone)
    short = sum(map(growth, staying)) - memory.free_blocks - freed
    held: list[str] = []
    for r in reversed(staying):
        if short <= 0 or len(held) + 1 >= len(staying):
            break
        rest = ranks[r.request_id][0] == _REST
        if rest and growth(r) and slack_s(r, now) >= settings.high_water_s:
            held.append(r.request_id)
            short -= growth(r)
    return tuple(held)
