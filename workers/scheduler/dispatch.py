"""Carries out a policy's decisions in vLLM's scheduler.

With its scheduling policy PRIORITY, vLLM orders its waiting queue and picks victims by
``Request.priority``. Here the priority is the rank that the policy gave. Before vLLM's own
`schedule`, this module adds what vLLM never does: it preempts running requests for waiting ones,
and makes others skip a step with their KV kept. Admission then follows in the same step.

Makes no decisions (`workers.policy.decide` does) and reads no clock: ``now`` is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.request_queue import PriorityRequestQueue, SchedulingPolicy
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from workers.kv.connectors import part_of
from workers.kv.offload import ResumeConnector
from workers.policy.decide import decide
from workers.policy.settings import PolicySettings
from workers.policy.view import Memory, RequestView
from workers.scheduler.queues import Queues, queue_state_of
from workers.scheduler.request_state import PhaseState

_BY_RANK = attrgetter("priority")
_UNRANKED = 2**62  # behind every ranked request, until the next decision


class RankedQueue(PriorityRequestQueue):
    """vLLM's priority queue, whose members can also be listed and put into another order."""

    def members(self) -> list[Request]:
        """All requests, in no order."""
        return self._heap

    def reorder(self, ranked: list[Request]) -> None:
        """Replace the contents by the same requests, best first: a sorted list is a heap."""
        self._heap = ranked


class Dispatcher:
    """One scheduler's policy at work."""

    def __init__(
        self, scheduler: Scheduler, settings: PolicySettings, states: dict[str, PhaseState]
    ) -> None:
        """Take over the scheduler's queues. The caller puts into them again what was in them.

        :param states: by vLLM's request id; the caller adds and removes them.
        """
        self._scheduler = scheduler
        self._settings = settings
        self._states = states
        self.queues = Queues(settings)  # what happens to requests is told to it
        self._urgent: frozenset[str] = frozenset()  # as decided last time
        self._set_aside: list[Request] = []  # preempted in this step
        self._offload = part_of(scheduler.connector, ResumeConnector)
        scheduler.policy = SchedulingPolicy.PRIORITY
        self._waiting = scheduler.waiting = RankedQueue()
        self._loading = scheduler.kv_holding_waiting = RankedQueue()
        groups = scheduler.kv_cache_config.kv_cache_groups
        self._block_sizes = [group.kv_cache_spec.block_size for group in groups]
        self._step_tokens = scheduler.max_num_scheduled_tokens
        # Most blocks that one step of the running requests can need, apart from one for each.
        self._step_blocks = sum(self._step_tokens // size + 1 for size in self._block_sizes)

    def change(self, settings: PolicySettings) -> None:
        """Go on by another policy; raises as `Queues.change`."""
        self.queues.change(settings, self._states.values())
        self._settings = settings
        self._urgent = frozenset()

    def joined(self, request: Request, state: PhaseState, now: float) -> None:
        """A request that vLLM's own order has scheduled so far is scheduled by the policy now."""
        request.priority = _UNRANKED + self.queues.joined(state, now).arrival

    @property
    def review_at(self) -> float:
        """The next decision is made at this time or later."""
        return self.queues.review_at

    def arrived(self, request: Request, state: PhaseState, user: str | None, now: float) -> None:
        """A request is about to be queued."""
        queue_state = self.queues.arrived(state, user, now)
        request.priority = _UNRANKED + queue_state.arrival

    # ---- before a step

    def before_step(self, now: float) -> None:
        """Rank all requests, preempt and hold as the policy decides; call before `schedule`."""
        scheduler = self._scheduler
        running, waiting, loading = (
            scheduler.running,
            self._waiting.members(),
            self._loading.members(),
        )
        free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
        if scheduler.deferred_frees:
            # A step in flight may still write these blocks of preempted requests; it frees them.
            free += sum(len(blocks) for _, blocks in scheduler.deferred_frees)
        groups = len(self._block_sizes)
        if not waiting and not loading and free >= groups * len(running) + self._step_blocks:
            return  # memory suffices for all requests: no rank matters
        if now < self.queues.review_at or scheduler.pause_state is not PauseState.UNPAUSED:
            return
        if not loading and self._all_fit(waiting, free):
            return
        views = [self._view(request, True) for request in running]
        views += [self._waiting_view(request) for request in waiting]
        views += [self._view(request, False, loading=True) for request in loading]
        self.queues.plan_review(len(views), now)
        decision = decide(self._settings, views, self._memory(free), now)
        requests = scheduler.requests
        for rank, request_id in enumerate(decision.order):
            requests[request_id].priority = rank
        for request_id in self._urgent ^ decision.urgent:
            if request_id in self._states:  # else it has ended
                queue_state_of(self._states[request_id]).view = None
        self._urgent = decision.urgent
        queue = sorted(waiting, key=_BY_RANK)
        self._loading.reorder(sorted(loading, key=_BY_RANK))
        running.sort(key=_BY_RANK)
        if decision.preempt:
            self._preempt(decision.preempt, now)
        self._waiting.reorder(queue)  # without those just preempted
        for request_id in decision.hold:
            request = requests[request_id]
            # `schedule` counts its step first, and passes over requests that are eligible later.
            request.next_decode_eligible_step = max(
                request.next_decode_eligible_step, scheduler.current_step + 2
            )

    def after_step(self) -> None:
        """Queue the preempted requests; call after `schedule`."""
        for request in self._set_aside:
            self._waiting.add_request(request)
        self._set_aside.clear()

    def _preempt(self, request_ids: Iterable[str], now: float) -> None:
        scheduler = self._scheduler
        gone = set(request_ids)
        victims = [r for r in scheduler.running if r.request_id in gone]
        for loaded in [r for r in self._loading.members() if r.request_id in gone]:
            self._unload(loaded, now)
        scheduler.running = [r for r in scheduler.running if r.request_id not in gone]
        for victim in victims:
            queue_state_of(self._states[victim.request_id]).preemptions += 1
            scheduler._preempt_request(
                victim, now, drop_stale_output=scheduler.requires_kv_delivery
            )
            # It must not resume in this same step, even if the request that it made room for is
            # not admitted: vLLM never does that, and KV connectors rely on it.
            self._set_aside.append(victim)

    def _unload(self, request: Request, now: float) -> None:
        """A request whose KV was reloaded, and that has not run since, gives its KV up again."""
        scheduler = self._scheduler
        queue_state_of(self._states[request.request_id]).preemptions += 1
        self._loading.remove_request(request)
        scheduler.deferred_waiting.discard(request)
        scheduler.finished_recving_kv_req_ids.discard(request.request_id)
        scheduler._set_kv_fetch_stage(request, None)
        # vLLM preempts running requests only, so it is treated as one from here.
        request.status = RequestStatus.RUNNING
        scheduler._preempt_request(request, now)
        self._set_aside.append(request)

    def _all_fit(self, waiting: list[Request], free_blocks: int) -> bool:
        """Whether the next step admits all waiting requests, whatever their order."""
        scheduler = self._scheduler
        memory = self._memory(free_blocks)
        if len(waiting) > memory.free_slots or scheduler._inflight_prefills:
            return False
        running = len(scheduler.running)
        tokens = running * (1 + scheduler.num_spec_tokens) + sum(r.num_tokens for r in waiting)
        blocks = len(self._block_sizes) * (running + len(waiting)) + self._step_blocks
        return tokens <= memory.step_tokens and blocks + memory.reserve_blocks <= free_blocks

    def _memory(self, free_blocks: int) -> Memory:
        scheduler = self._scheduler
        # Sessions that wait for more input keep their slot although they do not run.
        taken = len(scheduler.running) + scheduler.num_waiting_for_streaming_input
        # Requests that are loading do not run yet, but they will.
        taken += sum(
            r.status is RequestStatus.WAITING_FOR_REMOTE_KVS and not self._ready(r)
            for r in self._loading.members()
        )
        return Memory(
            free_blocks=free_blocks,
            free_slots=scheduler.max_num_active_reqs - taken,
            step_tokens=self._step_tokens,
            reserve_blocks=scheduler.kv_cache_manager.watermark_blocks,
        )

    def _waiting_view(self, request: Request) -> RequestView:
        """The view of a waiting request; with a backlog most views have not changed."""
        state = self._states[request.request_id]
        state.settle()  # a step in flight may have brought it tokens after its preemption
        queue_state = queue_state_of(state)
        if queue_state.view is not None:
            return queue_state.view
        view = self._view(request, False)
        if view.ready:  # else it may become so, of which nobody tells
            queue_state.view = view
        return view

    def _view(self, request: Request, running: bool, loading: bool = False) -> RequestView:
        state = self._states[request.request_id]
        state.settle()
        queue_state = queue_state_of(state)
        # With the placeholders of steps still in flight. A waiting request also needs room for the
        # token that its first step generates, or it would be preempted at the second.
        tokens = request.num_tokens_with_spec + request.num_output_placeholders
        room = tokens if running else tokens + 1
        held = state.kv_blocks
        if loading:
            groups = self._scheduler.kv_cache_manager.coordinator.get_blocks(request.request_id)
            held = sum(map(len, groups))
        needed = 0
        for size in self._block_sizes:
            needed -= -room // size
        return RequestView(
            request_id=request.request_id,
            phase=queue_state.phase,
            arrival=queue_state.arrival,
            running=running,
            blocks_held=held,
            blocks_needed=needed,
            tokens_needed=max(1, tokens - request.num_computed_tokens),
            ready=running or self._ready(request),
            queue=queue_state.queue,
            queue_position=queue_state.position,
            quanta=queue_state.quanta,
            run_tokens=queue_state.run_tokens,
            preemptions=queue_state.preemptions,
            dry_at=self.queues.dry_at(state),
            resume_s=self._resume_s(tokens),
            waiting_since=queue_state.waiting_since,
            urgent=request.request_id in self._urgent,
            paced=state.pace is None or state.pace.paced,
            user=queue_state.user,
        )

    def _ready(self, request: Request) -> bool:
        """Whether memory and a slot are all that a waiting request lacks."""
        if request.status is RequestStatus.WAITING_FOR_REMOTE_KVS:
            return request.request_id in self._scheduler.finished_recving_kv_req_ids
        if request.num_stale_output_tokens and not request.drop_stale_output:
            return False  # until its steps in flight are back
        if self._offload is not None and self._offload.moving(request.request_id):
            return False
        return request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED)

    def _resume_s(self, tokens: int) -> float:
        s_per_token = self._settings.resume_s_per_token
        if self._offload is None:
            return tokens * s_per_token
        return self._offload.costs.resume_s(tokens, s_per_token)
