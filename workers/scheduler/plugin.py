"""The scheduler plugin: vLLM's own scheduler, which also knows the phase of every request.

Load it with ``scheduler_cls="workers.scheduler.PhaseScheduler"`` (`PhaseAsyncScheduler` where vLLM
schedules asynchronously) and, optionally, ``additional_config={"phase": {...}}``:

    policy              "slack" (default), "pascal", "rr", "fcfs", vLLM's own order, or another of
                        `workers.policy.decide`; the numbers of `workers.policy.settings` are
                        further keys
    markers             how its output shows thoughts and calls: `workers.policy.phase.Markers` as
                        plain JSON. Default: the thoughts from vLLM's reasoning config, and what it
                        lacks from `<think>`, `</think>`, `<tool_call>` and `</tool_call>` of the
                        model's vocabulary; else the model neither thinks nor calls

It works in a stock vLLM server. The worker adds facts about a request under `REQUEST_KEY` in
``SamplingParams.extra_args``: its own request id, the phase of the first token, the reader's pace,
the user. Where only text shows a change of phase, the worker tells it (`turn`).

The plugin overrides public methods of vLLM's scheduler, and `_preempt_request` to count
preemptions. `workers.scheduler.dispatch` carries out the policy's decisions; "fcfs" has no
dispatcher. `workers.vllm_members` lists everything that this relies on.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import msgspec
import structlog
from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import (
    OffloadingConnectorMetadata,
)
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.request_queue import RequestQueue, SchedulingPolicy, create_request_queue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import Request, RequestStatus

from workers.kv.connectors import may_move, part_of, parts_of_metadata
from workers.kv.migration import MigrationConnector
from workers.kv.offload import ResumeConnector
from workers.messages import Pace, PhaseCounts, PhaseStats
from workers.policy.decide import policy_function
from workers.policy.phase import Markers, Phase
from workers.policy.settings import PolicySettings, check_policy
from workers.scheduler.accounting import Accounting
from workers.scheduler.bounded_grammar import TOO_COSTLY
from workers.scheduler.dispatch import Dispatcher
from workers.scheduler.engine_core_calls import serve_utilities
from workers.scheduler.first_phase import tracker_of
from workers.scheduler.grammar_replay import replay
from workers.scheduler.hand_over import HandOver
from workers.scheduler.phase_stats import to_integers
from workers.scheduler.request_facts import facts_of
from workers.scheduler.request_state import PhaseState
from workers.step_log import StepLog

_log = structlog.get_logger()

CONFIG_KEY = "phase"  # in vLLM's additional_config
REQUEST_KEY = "pascal"  # in SamplingParams.extra_args
# Keys of the table that do not belong to a policy.
_OTHER_KEYS = ("markers", "ending_token_ids")
_BY_ARRIVAL = attrgetter("arrival_time")


def _preempted_first(request: Request) -> tuple[bool, float]:
    return request.status is not RequestStatus.PREEMPTED, request.arrival_time


def phase_config(vllm_config: VllmConfig) -> dict[str, Any]:
    """The plugin's part of vLLM's additional_config."""
    additional = vllm_config.additional_config
    return dict(additional.get(CONFIG_KEY, {})) if isinstance(additional, dict) else {}


def policy_settings(table: Mapping[str, Any]) -> PolicySettings:
    """The policy and its numbers.

    :param table: as `phase_config` returns it.
    :raises ValueError: naming the key that is wrong.
    """
    return PolicySettings.of(table, _OTHER_KEYS)


def markers_of(vllm_config: VllmConfig) -> Markers | None:
    """How the model shows its phases, in the order of the module docstring; None: it has one.

    :raises ValueError: the configuration's markers are wrong.
    """
    table = phase_config(vllm_config)
    if "markers" in table:
        try:
            return msgspec.convert(table["markers"], Markers | None)
        except msgspec.ValidationError as error:
            raise ValueError(f"markers: {error}") from error
    found: Markers | None = None
    if not vllm_config.model_config.skip_tokenizer_init:
        tokenizer = cached_tokenizer_from_config(vllm_config.model_config)
        found = Markers.of_vocabulary(tokenizer.get_vocab())
    reasoning = vllm_config.reasoning_config
    if reasoning is None or not reasoning.enabled or not reasoning.natural_reasoning_end_token_ids:
        return found
    start = tuple(reasoning.reasoning_start_token_ids or ())
    return msgspec.structs.replace(
        found or Markers(),
        reasoning_starts=(start,) if start else (),
        reasoning_ends=(tuple(reasoning.natural_reasoning_end_token_ids),),
    )


class _PhaseMixin(Scheduler):
    """Phase tracking for any of vLLM's schedulers; a base class only for the two at the end."""

    waiting: RequestQueue
    kv_holding_waiting: RequestQueue

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = policy_settings(phase_config(self.vllm_config))
        self._markers = markers_of(self.vllm_config)
        self._watched = frozenset() if self._markers is None else self._markers.watched
        self._phase_states: dict[str, PhaseState] = {}  # by vLLM's request id, until the finish
        self._accounting = Accounting()
        self._costly: set[str] = set()  # requests whose grammars took too long, until the finish
        self._own_ids: dict[str, str] = {}  # the worker's request id -> vLLM's
        self._step_times: deque[tuple[float, int | None]] = deque()  # scheduled, not yet done
        self._step_ended = 0.0
        self._offload = part_of(self.connector, ResumeConnector)
        migration = part_of(self.connector, MigrationConnector)
        if self.connector is not None and not may_move(self.kv_cache_config):
            _log.warning("kv_stays", reason="the layers of this model keep different KV")
            migration = None
        self.migration = None if migration is None else migration.connector_scheduler
        self._hand_over = HandOver(self, self.migration)
        self._step_log = StepLog.of(self.vllm_config, self.kv_cache_config)
        self.idle = False  # the last step computed nothing
        self._dispatcher: Dispatcher | None = None  # None: vLLM's own order
        self.use_policy(settings)
        serve_utilities()

    def now(self) -> float:
        """Seconds on the clock by which the policy decides; a simulation has its own."""
        return time.monotonic()

    # ---- vLLM's override points

    def add_request(self, request: Request) -> None:
        """Begin to follow a request."""
        if request.request_id not in self._phase_states:
            self._track(request)
        if self._step_log is not None:
            self._step_log.arrived(idle=not self.has_unfinished_requests())
        try:
            super().add_request(request)
        except Exception:
            if request.request_id not in self.requests:
                self._forget_if_finished(request.request_id)
            raise

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """One step; the policy first decides which requests take part."""
        if self._hand_over:
            self._hand_over.before_step()
        if self._dispatcher is not None:
            self._dispatcher.before_step(self.now())
        output: SchedulerOutput = super().schedule(*args, **kwargs)
        self.idle = not output.num_scheduled_tokens
        if self._step_log is not None:
            self._step_log.scheduled(output.num_scheduled_tokens, self.requests)
        if self._dispatcher is not None:
            self._dispatcher.after_step()
        if self._accounting.lost_kv:
            self._count_recomputed(output.num_scheduled_tokens)
        if self._offload is not None and output.num_scheduled_tokens:
            self._step_times.append((self.now(), self._prefill_tokens(output)))
        states, got_blocks = self._phase_states, self._accounting.got_blocks
        for new in output.scheduled_new_reqs:
            got_blocks(states[new.req_id], sum(map(len, new.block_ids)))
        cached = output.scheduled_cached_reqs
        for request_id, block_ids in zip(cached.req_ids, cached.new_block_ids, strict=True):
            if block_ids is not None:
                got_blocks(states[request_id], sum(map(len, block_ids)))
        return output

    def update_from_output(self, *args: Any, **kwargs: Any) -> dict[int, EngineCoreOutputs]:
        """Follow the outputs, and add the counts by phase to vLLM's statistics."""
        outputs: dict[int, EngineCoreOutputs] = super().update_from_output(*args, **kwargs)
        if self.migration is not None:
            for batch in outputs.values():  # before any of them leaves and is forgotten
                self.migration.tell_settled(batch.outputs)
        now = self.now() if self._dispatcher is not None or self._step_times else 0.0
        if self._step_times and args[0].num_scheduled_tokens:
            self._learn_step(now)
        if self._hand_over:
            self._hand_over.after_step(outputs)
        for batch in outputs.values():
            self._observe(batch.outputs, now)
        for batch in outputs.values():
            if batch.scheduler_stats is not None:
                # Engines in the worker's own process make no statistics; others reach a stat
                # logger, and this field is the one that holds integers by name. vLLM reads only
                # its own names from it. Not in `make_stats`: it is called before the phases are
                # up to date.
                batch.scheduler_stats.num_kv_fetch_reqs_by_stage.update(
                    to_integers(self.phase_stats())
                )
        if self._step_log is not None:
            self._step_log.ended(more=self.has_unfinished_requests())
        return outputs

    def finish_requests(self, *args: Any, **kwargs: Any) -> list[Request]:
        """Forget requests that were ended from outside."""
        finished: list[Request] = super().finish_requests(*args, **kwargs)
        for request in finished:
            self._forget_if_finished(request.request_id)
        return finished

    def _preempt_request(self, request: Request, timestamp: float, *args: Any, **kw: Any) -> None:
        state = self._phase_states[request.request_id]
        self._accounting.preempted(request.request_id, state, request.num_computed_tokens)
        if self._dispatcher is not None:
            self._dispatcher.queues.preempted(state, self.now())
        super()._preempt_request(request, timestamp, *args, **kw)

    # ---- what the worker calls

    def use_policy(self, settings: PolicySettings) -> None:
        """Schedule by this policy from the next step on; call it between two steps.

        Requests keep their memory and their place in time. vLLM's own order begins with those that
        arrived first.

        :raises ValueError: there is no such policy, or it cannot be changed to while there are
            requests. Nothing has changed then.
        """
        policy_function(settings.policy)  # fails here if there is none, not at the next decision
        if settings.policy != "fcfs" and self._dispatcher is not None:
            self._dispatcher.change(settings)
        else:
            self._change_queues(settings)
        self._settings = settings
        for state in self._phase_states.values():
            self._watch(state)

    def change_policy(self, policy: str) -> None:
        """Do as `use_policy`, with the same numbers as before."""
        check_policy(policy)
        self.use_policy(msgspec.structs.replace(self._settings, policy=policy))

    def _change_queues(self, settings: PolicySettings) -> None:
        """Between vLLM's own order and a policy: the waiting requests move to other queues."""
        waiting, loading = [*self.waiting], [*self.kv_holding_waiting]
        states = self._phase_states
        now = self.now() if states else 0.0
        if settings.policy == "fcfs":
            self._dispatcher = None
            self.policy = SchedulingPolicy(self.scheduler_config.policy)
            self.waiting = create_request_queue(self.policy)
            self.kv_holding_waiting = create_request_queue(self.policy)
            for request_id, state in states.items():
                state.settle()
                state.queue_state = None
                self.requests[request_id].priority = state.priority
            self.running.sort(key=_BY_ARRIVAL)
        else:
            self._dispatcher = Dispatcher(self, settings, states)
            for request_id, state in states.items():
                self._dispatcher.joined(self.requests[request_id], state, now)
        for queue, members in ((self.waiting, waiting), (self.kv_holding_waiting, loading)):
            # vLLM puts a preempted request in front of those that have not run.
            for request in sorted(members, key=_preempted_first):
                queue.add_request(request)

    def phase_stats(self) -> PhaseStats:
        """Counts by phase, and the blocks that requests really hold."""
        pool = self.kv_cache_manager.block_pool
        total = pool.num_gpu_blocks - 1  # the null block is never given out
        return PhaseStats(
            reasoning=self._counts(Phase.REASONING),
            answering=self._counts(Phase.ANSWERING),
            calling=self._counts(Phase.CALLING),
            kv_blocks_used=total - pool.get_num_free_blocks(),
            kv_blocks_total=total,
            preemptions_total=self._accounting.preemptions,
            reloaded_tokens_total=0 if self._offload is None else self._offload.reloaded_tokens,
            recomputed_tokens_total=self._accounting.recomputed_tokens,
            migration=None if self.migration is None else self.migration.stats(),
        )

    def hand_over(self, own_id: str) -> None:
        """Let a request leave for another engine; unknown ones are ignored."""
        if own_id in self._own_ids:
            self._hand_over.begin(self._own_ids[own_id])

    def set_pace(self, own_id: str, pace: Pace) -> None:
        """The reader of a request changed pace; unknown requests are ignored."""
        state = self._phase_states.get(self._own_ids.get(own_id, ""))
        if state is not None:
            state.pace = pace
            if self._dispatcher is not None:
                self._dispatcher.queues.paced(state, pace, self.now())

    def turn(self, own_id: str, phase: Phase) -> None:
        """The text of a request shows that it is in another phase; unknown ones are ignored."""
        state = self._phase_states.get(self._own_ids.get(own_id, ""))
        if state is None or state.tracker.phase is phase:
            return
        state.settle()
        before = state.tracker.phase
        state.tracker.turn(phase)
        self._accounting.turned(state, before)
        self._note_text(state)
        if self._dispatcher is not None:
            self._dispatcher.queues.turned(state, before, self.now())

    # ---- own state

    def _counts(self, phase: Phase) -> PhaseCounts:
        totals = self._accounting.totals(phase)
        kv_blocks = totals.kv_blocks
        if self.kv_holding_waiting:
            kv_blocks += sum(
                self._blocks_held(request.request_id)
                for request in self.kv_holding_waiting
                if self._phase_states[request.request_id].tracker.phase is phase
            )
        return PhaseCounts(
            running=totals.running,
            waiting=totals.requests - totals.running,
            kv_blocks=kv_blocks,
        )

    def _track(self, request: Request) -> None:
        params = request.sampling_params
        facts = facts_of(((params.extra_args if params else None) or {}).get(REQUEST_KEY))
        tracker = tracker_of(request, facts, self._markers)
        if facts is None:
            state = PhaseState(tracker, None, None, priority=request.priority)
        else:
            state = PhaseState(
                tracker, facts.request_id, facts.pace, facts.user, priority=request.priority
            )
            self._own_ids[facts.request_id] = request.request_id
            if facts.began is not None:
                began = Phase(facts.began)
                costly, request_id = self._costly, request.request_id
                replay(
                    self.structured_output_manager,
                    request,
                    facts.known_tokens,
                    began,
                    lambda: costly.add(request_id),
                )
        self._watch(state)
        self._phase_states[request.request_id] = state
        self._accounting.arrived(state)
        self._note_text(state)
        if self._dispatcher is not None:
            self._dispatcher.arrived(request, state, state.user, self.now())

    def _observe(self, outputs: list[EngineCoreOutput], now: float) -> None:
        states, dispatcher = self._phase_states, self._dispatcher
        watched, no_marker_in = self._watched, self._watched.isdisjoint
        for output in outputs:
            state = states.get(output.request_id)
            if state is None:
                continue
            token_ids = output.new_token_ids
            unseen = state.unseen + len(token_ids)
            if (
                unseen < state.quiet
                # A lookup is quicker than the general call, and nearly always enough.
                and (
                    token_ids[0] not in watched if len(token_ids) == 1 else no_marker_in(token_ids)
                )
                and output.finish_reason is None
            ):
                state.unseen = unseen
                continue
            state.settle()
            before = state.tracker.phase
            if state.tracker.feed(token_ids):
                self._accounting.turned(state, before)
                self._note_text(state)
            if dispatcher is not None and token_ids:
                dispatcher.queues.produced(state, len(token_ids), before, now)
            self._watch(state)
            if output.finish_reason is not None:
                if output.request_id in self._costly:
                    output.stop_reason = TOO_COSTLY
                self._forget_if_finished(output.request_id)

    def _note_text(self, state: PhaseState) -> None:
        if state.text_since is None and state.tracker.phase is Phase.ANSWERING:
            state.text_since = self.now()

    def _watch(self, state: PhaseState) -> None:
        """See every token while a marker may have begun; the policy alone may see the next ones."""
        if state.tracker.alert:
            state.quiet = 0
        elif self._dispatcher is None:
            state.quiet = math.inf

    def _forget_if_finished(self, request_id: str) -> None:
        request = self.requests.get(request_id)
        if request is not None and not request.is_finished():
            # Part of a streamed input has ended: the request goes on later, and does not run now.
            self._accounting.stopped_running(self._phase_states[request_id])
            return
        state = self._phase_states.pop(request_id, None)
        self._costly.discard(request_id)
        if state is not None:
            self._accounting.left(request_id, state)
            if state.own_id is not None:
                self._own_ids.pop(state.own_id, None)
            if self.migration is not None:
                self.migration.forget(request_id)

    def _count_recomputed(self, scheduled: Mapping[str, int]) -> None:
        """Count the lost tokens that requests compute again when they run again."""
        for request_id in self._accounting.lost_kv & scheduled.keys():
            state = self._phase_states[request_id]
            begin = self.requests[request_id].num_computed_tokens - scheduled[request_id]
            missing = self._accounting.runs_again(request_id, state, begin)
            if self._offload is not None:
                self._offload.costs.resumed(state.lost_tokens, missing)

    def _prefill_tokens(self, output: SchedulerOutput) -> int | None:
        """Tokens of a step beyond one per request; None if it may have waited for copies."""
        for meta in parts_of_metadata(output.kv_connector_metadata):
            if isinstance(meta, OffloadingConnectorMetadata) and meta.load_jobs:
                return None
        return output.total_num_scheduled_tokens - len(output.num_scheduled_tokens)

    def _learn_step(self, now: float) -> None:
        """The oldest step has ended; of several in flight it began when the last one ended."""
        scheduled_at, prefill_tokens = self._step_times.popleft()
        if prefill_tokens is not None and self._offload is not None:
            self._offload.costs.stepped(prefill_tokens, now - max(scheduled_at, self._step_ended))
        self._step_ended = now

    def _blocks_held(self, request_id: str) -> int:
        groups = self.kv_cache_manager.coordinator.get_blocks(request_id)
        return sum(map(len, groups))


class PhaseScheduler(_PhaseMixin, Scheduler):
    """For engines that schedule step by step."""


class PhaseAsyncScheduler(_PhaseMixin, AsyncScheduler):
    """For engines that schedule the next step while the last one runs."""
