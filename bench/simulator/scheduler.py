"""The plugin's scheduler in virtual time, without work that has no effect.

There are three kinds of short cut. None of them decides anything:

- Within a step, vLLM's bookkeeping is skipped for requests to which nothing happens. So is the data
  that only a model runner would read.
- If memory is too short for the next request in the queue, vLLM is not asked to check this again.
- A leap takes several steps as one if no decision is possible between them. vLLM sees one step in
  which every request has N draft tokens, all of which are accepted.

A leap is planned when it begins. vLLM gets it when it ends or when an event interferes with the
instance, whichever comes first. In the second case vLLM gets only the steps that have begun. So a
leap does not have to end before an event elsewhere.

Tests compare the results with those of a scheduler without short cuts. A leap changes when KV is
stored to the host and when that is noticed: at its end instead of in the middle. If a request ends
with the leap, the blocks that the leap filled are not stored, as no request would read them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata
from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from workers.emulation.profile import StepTimes
from workers.policy.resume_cost import ENOUGH_SAMPLES, ResumeCosts
from workers.policy.settings import PolicySettings
from workers.scheduler.plugin import PhaseScheduler

_DRAFT_ID = 100
_LONGEST = 64  # steps in a leap; keeps the lists of draft tokens short


class Clock:
    """The time of a simulation, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        """The time; replaces `time.monotonic`."""
        return self.now


class _DraftingScheduler(Scheduler):  # type: ignore[misc]
    """Hooks between the plugin's decisions and vLLM's scheduler."""

    step_ends: list[float]  # of the steps of a leap; empty for a single step

    def hopeless(self) -> bool:
        """Whether it is certain that no waiting request can be admitted now."""
        return False

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """Take one step, or a leap as one step."""
        if self.step_ends:
            drafts = [_DRAFT_ID] * (len(self.step_ends) - 1)
            for request in self.running:
                request.spec_token_ids = drafts
        if not self.hopeless():
            return super().schedule(*args, **kwargs)
        # In this state, vLLM admits no new request. Steps only reduce free memory.
        self._pause_state = PauseState.PAUSED_NEW
        try:
            return super().schedule(*args, **kwargs)
        finally:
            self._pause_state = PauseState.UNPAUSED


class SimulatedScheduler(PhaseScheduler, _DraftingScheduler):
    """The plugin on a virtual clock.

    Unless it is ``exact``, call `plan_leap` before each `schedule`. Set ``step_ends`` to its result
    or to the first steps of it, and the clock to the time of `plan_leap`. The scheduler must not
    change between the two calls. After `update_from_output`, call `store_filled`.
    """

    clock: Clock
    exact: bool  # no short cuts
    leaps: bool
    step_times: StepTimes
    # End of the next transfer of KV back to a request; None: there is none.
    next_load_s: Callable[[], float | None]
    # Time from which a step has other work; infinite: there is none.
    look_at_s: Callable[[], float]
    # Tokens until the boundary or the end of a request.
    tokens_ahead: Callable[[Request], int]

    def prepare(self) -> None:
        """Call once, after the attributes above are set."""
        self.step_ends = []
        # A step has tried to admit requests; none can be admitted before another event.
        self._settled = False
        # In this step a new request found KV of an earlier turn of its task in the host's memory:
        # its load has begun, or the connector put it off because that KV is still on its way there.
        self._found_kv = False
        self._watch_connector()
        # Requests with full blocks that are not stored yet, in the order of filling.
        self._filled: dict[str, None] = {}
        if not self.exact:
            self._skip_needless_work()

    def now(self) -> float:
        """Virtual seconds."""
        return self.clock.now

    def use_policy(self, settings: PolicySettings) -> None:
        """As the plugin's; the settings also limit leaps."""
        super().use_policy(settings)
        self._numbers = settings
        # Otherwise every step makes a decision, and a leap would make it twice.
        self._pauses = min(settings.review_s, settings.low_water_s) > 0

    # ---- leaps

    def plan_leap(self) -> list[float]:
        """End times of the next steps that are certain to do nothing but decode.

        A decision that is due is made first.

        :return: two or more times, or none: then `schedule` takes an ordinary step.
        """
        if not self.leaps or not self.running or not self._pauses:
            return []
        preemptions, decided_s = self._accounting.preemptions, self._review_s()
        if self._dispatcher is not None:
            self._dispatcher.before_step(self.now())  # does nothing when `schedule` calls it again
        if self._review_s() != decided_s:
            self._settled = False
        if self._accounting.preemptions != preemptions or self.deferred_frees or not self._calm():
            return []
        most, kv_tokens, ample = self._steps_ahead()
        if most < 2:
            return []
        ends = self._ends(most, kv_tokens, math.inf if ample else self._review_s())
        return ends if len(ends) > 1 else []

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """As the plugin's; also find out whether the next step may be a leap."""
        preemptions = self._accounting.preemptions
        self._found_kv = False
        output: SchedulerOutput = super().schedule(*args, **kwargs)
        self._settled = not (
            output.scheduled_new_reqs
            or output.scheduled_cached_reqs.resumed_req_ids
            or self._accounting.preemptions != preemptions
            # With no token left, vLLM tried to admit no request.
            or output.total_num_scheduled_tokens >= self.max_num_scheduled_tokens
            or self.deferred_frees
            or self._found_kv
            or self._anyone_moving()
        )
        return output

    def add_request(self, request: Request) -> None:
        """Queue a new request."""
        self._settled = False
        super().add_request(request)

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        self._settled = False
        self._filled.pop(request.request_id, None)
        return super()._free_request(request, *args, **kwargs)

    def _free_blocks(self, request: Request) -> None:
        """Also after `_free_request`, when the KV of a finished request has been stored."""
        self._settled = False
        super()._free_blocks(request)

    def give_back(self, request_id: str) -> None:
        """Free blocks that were held for another instance, as after a worker's report."""
        self._free_blocks(self.requests[request_id])

    def hopeless(self) -> bool:
        """Whether the first request in the queue needs more memory than is free.

        Then vLLM admits no request, as it only skips requests whose KV is moving. No two requests
        that share a prefix are here at once, so blocks that it finds in the prefix cache are free
        memory, too.
        """
        if self.exact or not self.waiting or self.deferred_frees:
            return False
        first = self.waiting.peek_request()
        free = self.kv_cache_manager.block_pool.get_num_free_blocks()
        if first.num_computed_tokens or -(-first.num_tokens // self.block_size) <= free:
            return False
        offload = self._offload
        if offload is None:
            return True
        # The connector counts requests that it would recompute, to try a reload from time to time.
        # A leap asks it at most once, so that with leaps this count has no meaning. Without leaps,
        # vLLM need not be asked only if there is nothing to count.
        asks = not self.leaps and not _always_reloads(offload.costs, self.block_size)
        return not asks and not offload.moving(first.request_id)

    def _calm(self) -> bool:
        """Whether the queues do not change while running requests only decode."""
        if not all(map(self._loads, self.kv_holding_waiting)):
            return False
        return not self.waiting or self._settled or self.hopeless()

    def _loads(self, request: Request) -> bool:
        """Whether its KV is being loaded. After that, it resumes as soon as memory is free."""
        blocked = request.status is RequestStatus.WAITING_FOR_REMOTE_KVS
        return blocked and request.request_id not in self.finished_recving_kv_req_ids

    def _anyone_moving(self) -> bool:
        offload = self._offload
        return offload is not None and any(offload.moving(r.request_id) for r in self.waiting)

    def _watch_connector(self) -> None:
        connector = self.connector
        if connector is None:
            return
        ask = connector.get_num_new_matched_tokens
        arriving = getattr(connector, "arriving", {})  # from other instances

        def matched_tokens(request: Request, *args: Any) -> tuple[int | None, bool]:
            tokens, later = ask(request, *args)
            new = not request.num_preemptions and request.request_id not in arriving
            self._found_kv |= new and (tokens is None or later)
            return tokens, later

        connector.get_num_new_matched_tokens = matched_tokens

    def _review_s(self) -> float:
        return math.inf if self._dispatcher is None else self._dispatcher.review_at

    def _steps_ahead(self) -> tuple[int, int, bool]:
        """Steps that all running requests can take before an event of one of them.

        :return: the number of steps, the KV tokens of the requests, and whether so much memory is
            free after these steps that the policy has nothing to decide.
        """
        size, states = self.block_size, self._phase_states
        most = min(_LONGEST, self.max_num_scheduled_tokens // len(self.running))
        kv_tokens = 0
        lasting = []  # steps for which the last block of each request has room
        for request in self.running:
            computed = request.num_computed_tokens
            if request.num_tokens - computed != 1:
                return 1, 0, False  # in prefill
            if request.next_decode_eligible_step > self.current_step + 1:
                return 1, 0, False  # it must skip this step
            kv_tokens += computed
            lasting.append(-computed % size)
            most = min(most, self.tokens_ahead(request))
            state = states[request.request_id]
            if state.queue_state is not None:
                state.settle()
                most = int(min(most, state.quiet))  # then the policy must note something
            if most < 2:
                return 1, 0, False
        free = self.kv_cache_manager.block_pool.get_num_free_blocks()
        while (left := free - sum(-(-max(0, most - n) // size) for n in lasting)) < 0:
            if most < 4:
                return 1, 0, False
            most //= 2
        steps_blocks = len(lasting) + self.max_num_scheduled_tokens // size + 1
        waiting = self.waiting or self.kv_holding_waiting
        return most, kv_tokens, not waiting and left >= steps_blocks

    def _ends(self, most: int, kv_tokens: int, review_s: float) -> list[float]:
        """End times of the next steps.

        :param review_s: time from which a step begins with a decision.
        """
        now, running = self.clock.now, len(self.running)
        load_s = self.next_load_s()
        loaded_s = math.inf if load_s is None else load_s
        look_s = min(review_s, self.look_at_s())
        seconds = self.step_times.seconds
        ends: list[float] = []
        for _ in range(most):
            # The next step would begin with loaded KV or with a decision.
            if ends and (now >= loaded_s or now >= look_s):
                break
            kv_tokens += running
            now += seconds(running, kv_tokens, 0, 0)
            ends.append(now)
        return ends

    def store_filled(self) -> KVConnectorMetadata | None:
        """The blocks of a leap that must be stored to the host; None: there are none."""
        if not self._filled:
            return None
        output = SchedulerOutput.make_empty()
        output.num_scheduled_tokens = dict.fromkeys(self._filled, 0)
        # As in a step that fills a block: the connector then asks for the hash of the block.
        output.scheduled_cached_reqs.req_ids.extend(self._filled)
        output.scheduled_cached_reqs.new_block_ids.extend([None] * len(self._filled))
        self._filled.clear()
        return self.connector.build_connector_meta(output)

    def _learn_step(self, now: float) -> None:
        """Learn step times from each step of a leap."""
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
        """Skip the KV-cache manager for tokens that fit into an allocated block.

        The last slot of a block is not skipped: then the block enters the prefix cache.
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
        """End scripted requests by their length, and hash only full blocks."""
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
            # Single steps would have put the block into the prefix cache.
            self.kv_cache_manager.cache_blocks(request, tokens - 1)
            if self.connector is not None:
                self._filled[request.request_id] = None
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
        """Include only requests with a new or a full block: no other has changed."""
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
        """Include only requests that start or fill a block: no other has KV to store."""
        if not self.exact:
            begin = {new.req_id for new in scheduler_output.scheduled_new_reqs}
            begin |= scheduler_output.scheduled_cached_reqs.resumed_req_ids
            storing = {
                request_id: tokens
                for request_id, tokens in scheduler_output.num_scheduled_tokens.items()
                if request_id in begin or self._fills(self.requests[request_id], tokens)
            }
            scheduler_output = replace(scheduler_output, num_scheduled_tokens=storing)
        return super()._build_kv_connector_meta(connector, scheduler_output)

    def _fills(self, request: Request, tokens: int) -> bool:
        """Whether the step that is being scheduled completes a block of known tokens.

        In a leap, only the first step can: blocks of later steps are stored by `store_filled`.
        """
        size, computed = self.block_size, request.num_computed_tokens
        filled: bool = computed % size + min(tokens, request.num_tokens - computed) >= size
        return filled


def _always_reloads(costs: ResumeCosts, least: int) -> bool:
    """Whether loading KV is faster than computing it, for ``least`` tokens and more."""
    load, compute = costs.reload, costs.recompute
    if costs.resume != "auto" or min(load.samples, compute.samples) < ENOUGH_SAMPLES:
        return True
    return load.per_token_s <= compute.per_token_s and load.seconds(least) <= compute.seconds(least)
