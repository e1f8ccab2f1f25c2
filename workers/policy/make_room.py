"""Chooses which running requests to preempt, so that waiting ones fit into memory.

No request is preempted unless that lets another one in. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workers.policy.settings import PolicySettings
from workers.policy.view import Memory, RequestView

# Whether the first, which waits, may take the memory of the second, which runs.
Displaces = Callable[[RequestView, RequestView], bool]


def growth(request: RequestView) -> int:
    """Blocks that the request's next step needs beyond those that it holds."""
    return max(0, request.blocks_needed - request.blocks_held)


def make_room(
    settings: PolicySettings, order: Sequence[RequestView], memory: Memory, displaces: Displaces
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose requests to preempt so that waiting ones fit.

    Running requests take their next blocks before any request is admitted. So do requests whose KV
    is still being loaded. The engine admits requests with loaded KV before all others, whatever
    their rank, and stops at the first that does not fit. Such a request therefore gives up its
    memory when a better one waits behind it.

    :return: the requests to preempt, and the requests that then fit.
    """
    waiting = [r for r in order if not r.running and r.ready]
    room = _Room(settings, order, memory, displaces)
    stuck = [r for r in waiting if r.blocks_held and not room.admit(r, [])]
    for request in waiting:
        if request.blocks_held:
            continue
        if not all(displaces(request, r) for r in stuck) or not room.admit(request, stuck):
            break  # as the engine does, at the first that does not fit
        stuck = []
    return tuple(room.preempted), tuple(room.admitted)


class _Room:
    """What one step has left to give out, and the requests that got or lost memory."""

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
        self._free -= sum(map(growth, [*self._running, *loading]))
        self._slots = memory.free_slots
        self._tokens = memory.step_tokens - sum(r.tokens_needed for r in self._running)

    def admit(self, request: RequestView, stuck: Sequence[RequestView]) -> bool:
        """Make the request fit, if necessary by preempting others.

        :param stuck: requests with loaded KV that give it up.
        :return: whether it fits; if not, nothing changes.
        """
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
            free += victim.blocks_held + growth(victim)
        self._free = free - growth(request)
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
    """The worst running requests whose preemption makes the waiting one fit; None: none do."""
    chosen: list[RequestView] = []
    missing = growth(waiting) - free
    for candidate in reversed(running):
        if missing <= 0 and slots + len(chosen) >= 1:
            break
        if displaces(waiting, candidate):
            chosen.append(candidate)
            missing -= candidate.blocks_held + growth(candidate)
    if missing > 0 or slots + len(chosen) < 1:
        return None
    # A large victim can make earlier small ones unnecessary: spare the best of those.
    for candidate in chosen[-2::-1]:
        gain = candidate.blocks_held + growth(candidate)
        if missing + gain <= 0 and slots + len(chosen) - 1 >= 1:
            chosen.remove(candidate)
            missing += gain
    return chosen
