"""Scheduling policies inside one engine: who runs, who waits, who gives its KV memory up.

Decides from a view of all requests and of the memory, once before an engine step; knows no engine,
no clock and no chance, so that a simulator can run the same functions. Moments are seconds on the
caller's monotonic clock.

    fcfs    vLLM's own order; nothing is ever preempted for a waiting request
    rr      phase-blind round-robin
    pascal  the paper's two queues (PASCAL, "Intra-instance scheduling"): reasoning before answering
            and before demoted reasoning, round-robin inside each
    slack   an answering request needs the engine only when its reader is about to run out of
            tokens; until then reasoning goes first

A request's *turn* is its place in a round-robin queue: a ticket and a quantum of tokens. When the
quantum is used up it draws a new ticket, behind everybody.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from workers.phase import Phase
from workers.policy_settings import PolicySettings

HIGH_QUEUE, LOW_QUEUE = 0, 1

# Ranks of `slack`, best first.
_STARVED, _URGENT, _REASONING, _REST = range(4)


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
    preemptable: bool = True  # its blocks can be freed now
    queue: int = HIGH_QUEUE  # as `queue_of` says
    ticket: int = 0  # of its turn
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


Displaces = Callable[[RequestView, RequestView], bool]


def decide(
    settings: PolicySettings, requests: Sequence[RequestView], memory: Memory, now: float
) -> Decision:
    """The policy's decision for the next step."""
    return _POLICIES[settings.policy](settings, requests, memory, now)


def queue_of(settings: PolicySettings, phase: Phase, reasoning_tokens: int) -> int:
    """The queue a request belongs to; whoever changes queues begins a new turn."""
    if settings.policy == "rr":
        return HIGH_QUEUE
    if phase is Phase.ANSWERING:
        return LOW_QUEUE
    demoted = settings.policy == "pascal" and reasoning_tokens >= settings.demotion_tokens
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
    """Both `rr`, where all share one queue, and `pascal`, where the high one comes first."""

    def place(request: RequestView) -> tuple[int, int]:
        return request.queue, request.ticket

    order = sorted(requests, key=place)
    preempt, admit = _make_room(settings, order, memory, lambda w, r: place(w) < place(r))
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
        if rank == _STARVED:
            measure = r.waiting_since
        elif rank == _REASONING:
            measure = 0.0
        else:
            measure = math.inf if r.dry_at is None else r.dry_at
        keys[r.request_id] = (rank, level, not r.running, measure, r.arrival)
    order = _fair(sorted(requests, key=lambda r: keys[r.request_id]), ranks)

    def displaces(waiting: RequestView, running: RequestView) -> bool:
        mine, its = ranks[waiting.request_id], ranks[running.request_id]
        if running.preemptions >= settings.max_preemptions:
            return False
        if mine[0] != its[0]:
            return mine[0] < its[0]
        # Who was admitted may use a quantum up before one of its own kind takes the place.
        return mine[1] < its[1] and running.run_tokens >= settings.quantum_tokens

    preempt, admit = _make_room(settings, order, memory, displaces)
    hold = _hold(settings, order, memory, set(preempt), ranks, now)
    return Decision(tuple(r.request_id for r in order), preempt, admit, hold, frozenset(urgent))


_POLICIES = {"fcfs": _fcfs, "rr": _round_robin, "pascal": _round_robin, "slack": _slack}


# ---- slack


def slack_s(request: RequestView, now: float) -> float:
    """Seconds for which the reader can do without the engine, when resuming is counted in."""
    return math.inf if request.dry_at is None else request.dry_at - now - request.resume_s


def _slack_rank(settings: PolicySettings, request: RequestView, now: float) -> int:
    if request.phase is Phase.REASONING or not request.paced:
        return _REASONING
    if not request.running and now - request.waiting_since >= settings.starvation_s:
        return _STARVED
    if request.preemptions >= settings.max_preemptions:
        return _URGENT
    if request.urgent:
        if request.running and request.run_tokens < settings.min_run_tokens:
            return _URGENT
        return _URGENT if slack_s(request, now) < settings.high_water_s else _REST
    return _URGENT if slack_s(request, now) < settings.low_water_s else _REST


def _level(settings: PolicySettings, request: RequestView, rank: int, now: float) -> int:
    """Within reasoning: the quanta used up, fewest first, unless it was preempted or waits long."""
    if rank != _REASONING or request.preemptions >= settings.max_preemptions:
        return 0
    starved = not request.running and now - request.waiting_since >= settings.starvation_s
    return 0 if starved else request.quanta


def _fair(order: list[RequestView], ranks: Mapping[str, tuple[int, int]]) -> list[RequestView]:
    """Within a class, let each user's first waiting request go before anybody's second.

    What a user has running in the class counts as going before. Running requests stay first.
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
    """Where running requests want more blocks than are left, the well-fed wait for a step.

    Else their growth would cost another its memory. Never all: an engine with nothing to do would
    spin.
    """
    staying = [r for r in order if r.running and r.request_id not in gone]
    freed = sum(r.blocks_held for r in order if r.request_id in gone)
    short = sum(map(_growth, staying)) - memory.free_blocks - freed
    held: list[str] = []
    for r in reversed(staying):
        if short <= 0 or len(held) + 1 >= len(staying):
            break
        rest = ranks[r.request_id][0] == _REST
        if rest and _growth(r) and slack_s(r, now) >= settings.high_water_s:
            held.append(r.request_id)
            short -= _growth(r)
    return tuple(held)


# ---- memory


def _growth(request: RequestView) -> int:
    return max(0, request.blocks_needed - request.blocks_held)


def _make_room(
    settings: PolicySettings, order: Sequence[RequestView], memory: Memory, displaces: Displaces
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Whom to preempt so that waiting requests fit, and which then do. Nobody goes in vain.

    Running requests take their next blocks before anyone is admitted, and so will those whose KV
    is still being loaded. The engine admits requests whose KV has been loaded before all others,
    whatever their rank, and nobody past one that does not fit: such a one gives its memory up when
    a better one waits behind it.
    """
    waiting = [r for r in order if not r.running and r.ready]
    room = _Room(settings, order, memory, displaces)
    stuck = [r for r in waiting if r.blocks_held and not room.admit(r, [])]
    for request in waiting:
        if request.blocks_held:
            continue
        if not all(displaces(request, r) for r in stuck) or not room.admit(request, stuck):
            break  # the engine, too, stops at the first that does not fit
        stuck = []
    return tuple(room.preempted), tuple(room.admitted)


class _Room:
    """What is left to give out in this step, and who got it."""

    def __init__(
        self,
        settings: PolicySettings,
        order: Sequence[RequestView],
        memory: Memory,
        displaces: Displaces,
    ) -> None:
        self.admitted: list[str] = []
        self.preempted: list[str] = []
        self._most = settings.max_preemptions_per_step
        self._displaces = displaces
        self._running = [r for r in order if r.running]  # the worst at the end
        loading = [r for r in order if r.blocks_held and not r.running and not r.ready]
        self._free = memory.free_blocks - memory.reserve_blocks
        self._free -= sum(map(_growth, [*self._running, *loading]))
        self._slots = memory.free_slots
        self._tokens = memory.step_tokens - sum(r.tokens_needed for r in self._running)

    def admit(self, request: RequestView, stuck: Sequence[RequestView]) -> bool:
        """Make it fit, if need be by preempting; all of ``stuck`` give up what they hold."""
        if self._tokens <= 0:
            return False
        free = self._free + sum(r.blocks_held for r in stuck)
        victims = _victims(request, self._running, free, self._slots, self._displaces)
        if victims is None:
            return False
        count = len(victims) + len(stuck)
        if self.preempted and len(self.preempted) + count > self._most:
            return False
        for victim in victims:
            self._running.remove(victim)
            free += victim.blocks_held + _growth(victim)
        self._free = free - _growth(request)
        self._slots += len(victims) - 1
        self._tokens -= request.tokens_needed
        self.preempted += [r.request_id for r in (*victims, *stuck)]
        self.admitted.append(request.request_id)
        return True


def _victims(
    waiting: RequestView,
    running: Sequence[RequestView],
    free: int,
    slots: int,
    displaces: Displaces,
) -> list[RequestView] | None:
    """The worst running requests whose going makes the waiting one fit; None: it cannot."""
    chosen: list[RequestView] = []
    missing = _growth(waiting) - free
    for candidate in reversed(running):
        if missing <= 0 and slots + len(chosen) >= 1:
            break
        if candidate.preemptable and displaces(waiting, candidate):
            chosen.append(candidate)
            missing -= candidate.blocks_held + _growth(candidate)
    if missing > 0 or slots + len(chosen) < 1:
        return None
    # A large one may have made small ones before it needless: spare the best of them.
    for candidate in chosen[-2::-1]:
        gain = candidate.blocks_held + _growth(candidate)
        if missing + gain <= 0 and slots + len(chosen) - 1 >= 1:
            chosen.remove(candidate)
            missing += gain
    return chosen
