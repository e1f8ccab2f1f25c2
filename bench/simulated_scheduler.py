"""The plugin's scheduler in virtual time, without work that only a model runner would read.

Two kinds of short cut, neither with decisions of its own. Within a step, vLLM's bookkeeping of
requests to which nothing happens is left out. And steps between which nothing can be decided are
taken in one go, a leap: vLLM takes them as one step in which every request has so many draft
tokens, all of which come true. Tests hold the results against those of a scheduler that does
neither. The one thing that a leap shifts is the moment at which KV is stored to the host: at its
end, not in its midst.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from workers.policy_settings import PolicySettings
from workers.profile import StepTimes
from workers.scheduler import PhaseScheduler

_DRAFT_ID = 100
_LONGEST = 64  # steps in one leap; keeps the lists of draft tokens short


class Clock:
    """The time of a simulation, seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.horizon = math.inf  # nobody interferes with an instance before it

    def read(self) -> float:
        """As `time.monotonic`."""
        return self.now


class _DraftingScheduler(Scheduler):  # type: ignore[misc]
    """vLLM's scheduler, asked just before it schedules how many steps it may take as one."""

    def plan_steps(self) -> int:
        """How many steps the next one stands for."""
        return 1

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """One step, or several as one."""
        steps = self.plan_steps()
        if steps > 1:
            drafts = [_DRAFT_ID] * (steps - 1)
            for request in self.running:
                request.spec_token_ids = drafts
        return super().schedule(*args, **kwargs)


class SimulatedScheduler(PhaseScheduler, _DraftingScheduler):
    """The plugin on a clock of its own; between it and vLLM's scheduler the leaps are planned."""

    clock: Clock
    exact: bool  # skip nothing, leap never
    leaps: bool
    step_times: StepTimes
    # The transfer that next brings a request its KV back ends then; None: there is none.
    next_load_s: Callable[[], float | None]
    # Tokens until a request comes to its answer or its end.
    tokens_ahead: Callable[[Request], int]

    step_ends: list[float]  # of the last `schedule`, if it was a leap; else empty

    def prepare(self) -> None:
        """Call once the attributes above are set."""
        self.step_ends = []
        # Nobody who waits can be admitted before something happens: it was tried.
        self._settled = False
        self._reviewed_s = 0.0  # when a decision was due as `schedule` began
        self._filled: set[str] = set()  # in a leap: their full blocks are still to be stored
        if not self.exact:
            self._skip_needless_work()

    def now(self) -> float:
        """Virtual seconds."""
        return self.clock.now

    def use_policy(self, settings: PolicySettings) -> None:
        """Also remember its numbers: they bound leaps."""
        super().use_policy(settings)
        self._numbers = settings

    # ---- leaps

    def plan_steps(self) -> int:
        """As many steps as it is certain that nothing but decoding happens in them."""
        self.step_ends = []
        if not self.leaps or not self.running or self._filled or self.deferred_frees:
            return 1
        if self.kv_holding_waiting or (self.waiting and not self._settled):
            return 1
        if self._review_s() != self._reviewed_s:  # this step carries a decision out
            return 1
        most, kv_tokens, calm = self._steps_ahead()
        if most < 2:
            return 1
        ends = self._ends(most, kv_tokens, math.inf if calm else self._review_s())
        if len(ends) < 2:
            return 1
        self.step_ends = ends
        return len(ends)

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """As the plugin's, and look whether the next one may be a leap."""
        self._reviewed_s = self._review_s()
        preemptions = self._preemptions
        output: SchedulerOutput = super().schedule(*args, **kwargs)
        self._settled = not (
            output.scheduled_new_reqs
            or output.scheduled_cached_reqs.resumed_req_ids
            or self._preemptions != preemptions
            # With no token left vLLM tried nobody.
            or output.total_num_scheduled_tokens >= self.max_num_scheduled_tokens
            or self.deferred_frees
            or self._anyone_moving()
        )
        return output

    def add_request(self, request: Request) -> None:
        """Somebody new waits."""
        self._settled = False
        super().add_request(request)

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        self._settled = False
        self._filled.discard(request.request_id)
        return super()._free_request(request, *args, **kwargs)

    def give_back(self, request_id: str) -> None:
        """Blocks that were held for another instance are free, as when a worker reports it."""
        self._settled = False
        self._free_blocks(self.requests[request_id])

    def _anyone_moving(self) -> bool:
        offload = self._offload
        return offload is not None and any(offload.moving(r.request_id) for r in self.waiting)

    def _review_s(self) -> float:
        return math.inf if self._dispatcher is None else self._dispatcher.review_at

    def _steps_ahead(self) -> tuple[int, int, bool]:
        """Steps that all who run can make before something happens to one of them.

        :return: also their KV tokens, and whether so much memory is free after those steps that
            the policy has nothing to decide.
        """
        size, states = self.block_size, self._phase_states
        demotion = self._numbers.demotion_tokens
        most = min(_LONGEST, self.max_num_scheduled_tokens // len(self.running))
        kv_tokens = 0
        lasting = []  # steps that each one's last block lasts for
        for request in self.running:
            computed = request.num_computed_tokens
            if request.num_tokens - computed != 1:
                return 1, 0, False  # in prefill
            kv_tokens += computed
            lasting.append(-computed % size)
            state = states[request.request_id]
            state.settle()
            turn, tracker = state.turn, state.tracker
            most = min(most, self.tokens_ahead(request))
            if turn is not None:
                most = min(most, turn.left_tokens)
                reasoned = tracker.reasoning_tokens
                if turn.boundary_at is not None:
                    if turn.clock is None:
                        return 1, 0, False  # its reader's clock begins with the next token
                elif reasoned < demotion:
                    most = min(most, demotion - reasoned)
            if most < 2:
                return 1, 0, False
        free = self.kv_cache_manager.block_pool.get_num_free_blocks()
        # For one step more: that which stores what was filled.
        while (left := free - sum(-(-max(0, most + 1 - n) // size) for n in lasting)) < 0:
            if most < 4:
                return 1, 0, False
            most //= 2
        steps_blocks = len(lasting) + self.max_num_scheduled_tokens // size + 1
        return most, kv_tokens, not self.waiting and left >= steps_blocks

    def _ends(self, most: int, kv_tokens: int, review_s: float) -> list[float]:
        """When those steps end, as far as nobody interferes.

        :param review_s: from then on a step begins with a decision.
        """
        now, running = self.clock.now, len(self.running)
        load_s = self.next_load_s()
        horizon = self.clock.horizon if load_s is None else min(self.clock.horizon, load_s)
        seconds, ends = self.step_times.seconds, []
        for _ in range(most):
            if now >= review_s:  # a step would begin with a decision
                break
            kv_tokens += running
            now += seconds(running, kv_tokens, 0, 0)
            if now >= horizon:
                break
            ends.append(now)
        # The step after the leap stores what was filled; it comes before the decision, too.
        while ends and ends[-1] >= review_s:
            ends.pop()
        return ends

    def _learn_step(self, now: float) -> None:
        """A leap teaches what its steps would have."""
        if not self.step_ends or self._offload is None:
            super()._learn_step(now)
            return
        began, _ = self._step_times.popleft()
        for ended in self.step_ends:
            self._offload.costs.stepped(0, ended - began)
            began = ended
        self._step_ended = now

    # ---- less work

    def _skip_needless_work(self) -> None:
        """Leave the KV-cache manager alone where tokens go into a block that is there.

        Not for the last slot of a block: then it enters the prefix cache.
        """
        manager, size = self.kv_cache_manager, self.block_size
        allocate, nothing = manager.allocate_slots, manager.empty_kv_cache_blocks

        def allocate_slots(request: Request, num_new_tokens: int, **kw: Any) -> Any:
            begin = request.num_computed_tokens % size
            if begin and begin + num_new_tokens < size and len(kw) == 1:  # of a running request
                return nothing
            return allocate(request, num_new_tokens, **kw)

        manager.allocate_slots = allocate_slots

    def _update_request_with_output(
        self, request: Request, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        """Scripted requests end by their length, and only full blocks are hashed."""
        if self.exact:
            result: tuple[list[int], bool] = super()._update_request_with_output(
                request, new_token_ids, is_stale
            )
            return result
        request._output_token_ids.extend(new_token_ids)
        request._all_token_ids.extend(new_token_ids)
        count, size = len(new_token_ids), self.block_size
        tokens = len(request._all_token_ids)
        if tokens % size < count:
            request.update_block_hashes()
        if count > 1 and (tokens - 1) % size < count - 1:
            # Single steps would have entered it into the prefix cache on the way.
            self.kv_cache_manager.cache_blocks(request, tokens - 1)
            if self.connector is not None:
                self._filled.add(request.request_id)
        if len(request._output_token_ids) < request.max_tokens:
            return new_token_ids, False
        request.status = RequestStatus.FINISHED_LENGTH_CAPPED
        return new_token_ids, True

    def _make_cached_request_data(
        self,
        running_reqs: list[Request],
        resumed_reqs: list[Request],
        num_scheduled_tokens: dict[str, int],
        spec_decode_tokens: dict[str, list[int]],
        req_to_new_blocks: dict[str, KVCacheBlocks],
    ) -> CachedRequestData:
        """Only of requests with new blocks, or with one that is full: no other has changed."""
        if not self.exact:
            nothing = self.kv_cache_manager.empty_kv_cache_blocks
            running_reqs = [
                request
                for request in running_reqs
                if req_to_new_blocks[request.request_id] is not nothing
                or self._fills(request, num_scheduled_tokens[request.request_id])
            ]
        return super()._make_cached_request_data(
            running_reqs, resumed_reqs, num_scheduled_tokens, spec_decode_tokens, req_to_new_blocks
        )

    def _build_kv_connector_meta(self, connector: Any, scheduler_output: SchedulerOutput) -> Any:
        """Only with requests that fill a block: no other has anything to store."""
        if not self.exact:
            filling = {
                request_id: tokens
                for request_id, tokens in scheduler_output.num_scheduled_tokens.items()
                if self._fills(self.requests[request_id], tokens)
            }
            scheduler_output = replace(scheduler_output, num_scheduled_tokens=filling)
            self._filled.clear()
        return super()._build_kv_connector_meta(connector, scheduler_output)

    def _fills(self, request: Request, tokens: int) -> bool:
        """Whether the step that is being scheduled completes a block of the request."""
        full: bool = request.num_computed_tokens % self.block_size + tokens >= self.block_size
        return full or request.request_id in self._filled
