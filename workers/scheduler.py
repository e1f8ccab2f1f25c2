"""The scheduler plugin: vLLM's own scheduler, which also knows the phase of every request.

Load it with ``scheduler_cls="workers.scheduler.PhaseScheduler"`` (`PhaseAsyncScheduler` where vLLM
schedules asynchronously) and, optionally, ``additional_config={"phase": {...}}``:

    policy              "fcfs": vLLM's own order (default); "rr", "pascal", "slack": see
                        `workers.policy`, whose `PolicySettings` are further keys
    think_start_token_id, think_end_token_id
                        the markers; default: from vLLM's reasoning config, else `<think>` and
                        `</think>` of the model's vocabulary, else the model does not reason

It works in a stock vLLM server. The worker adds facts about a request under `REQUEST_KEY` in
``SamplingParams.extra_args``: its own request id, the phase of the first token, the reader's pace,
the user.

Public methods of vLLM's scheduler are overridden, and `_preempt_request` to count. What a policy
decides is carried out by `workers.dispatch`; under "fcfs" there is none. vLLM does not call this
interface public, so its version is pinned.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import (
    OffloadingConnectorMetadata,
)
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.engine.core import EngineCore
from vllm.v1.request import Request

from workers.dispatch import Dispatcher, PhaseState
from workers.kv_offload import ResumeConnector
from workers.messages import Pace, PhaseCounts
from workers.phase import Phase, PhaseTracker, ThinkMarkers
from workers.policy import PolicySettings

CONFIG_KEY = "phase"  # in vLLM's additional_config
REQUEST_KEY = "pascal"  # in SamplingParams.extra_args
SET_PACE_UTILITY = "set_pace"  # utility call of vLLM's engine client
# Keys of the table that are no policy's.
_OTHER_KEYS = ("think_start_token_id", "think_end_token_id", "ending_token_ids")

# A chat template that opens or closes the thoughts itself ends the prompt with the marker and at
# most two tokens of white space. Further back it may be the user who wrote it.
_PROMPT_TAIL = 3

_STATS_PREFIX = "phase_"


@dataclass(frozen=True, slots=True)
class PhaseStats:
    """State of the scheduler after a step.

    ``kv_blocks`` of a phase are the blocks that its requests hold; blocks shared through the
    prefix cache count once for each of them, so the phases may add up to more than is used.
    """

    reasoning: PhaseCounts
    answering: PhaseCounts
    kv_blocks_used: int
    kv_blocks_total: int
    preemptions_total: int
    reloaded_tokens_total: int
    recomputed_tokens_total: int

    def to_integers(self) -> dict[str, int]:
        """Flat, for a field of vLLM's statistics that holds integers by name."""
        return {
            f"{_STATS_PREFIX}reasoning_running": self.reasoning.running,
            f"{_STATS_PREFIX}reasoning_waiting": self.reasoning.waiting,
            f"{_STATS_PREFIX}reasoning_kv_blocks": self.reasoning.kv_blocks,
            f"{_STATS_PREFIX}answering_running": self.answering.running,
            f"{_STATS_PREFIX}answering_waiting": self.answering.waiting,
            f"{_STATS_PREFIX}answering_kv_blocks": self.answering.kv_blocks,
            f"{_STATS_PREFIX}kv_blocks_used": self.kv_blocks_used,
            f"{_STATS_PREFIX}kv_blocks_total": self.kv_blocks_total,
            f"{_STATS_PREFIX}preemptions_total": self.preemptions_total,
            f"{_STATS_PREFIX}reloaded_tokens_total": self.reloaded_tokens_total,
            f"{_STATS_PREFIX}recomputed_tokens_total": self.recomputed_tokens_total,
        }

    @classmethod
    def from_integers(cls, integers: Mapping[str, int]) -> PhaseStats:
        """Inverse of `to_integers`; :raises KeyError: if something is missing."""

        def counts(phase: str) -> PhaseCounts:
            return PhaseCounts(
                running=integers[f"{_STATS_PREFIX}{phase}_running"],
                waiting=integers[f"{_STATS_PREFIX}{phase}_waiting"],
                kv_blocks=integers[f"{_STATS_PREFIX}{phase}_kv_blocks"],
            )

        return cls(
            counts("reasoning"),
            counts("answering"),
            integers[f"{_STATS_PREFIX}kv_blocks_used"],
            integers[f"{_STATS_PREFIX}kv_blocks_total"],
            integers[f"{_STATS_PREFIX}preemptions_total"],
            integers[f"{_STATS_PREFIX}reloaded_tokens_total"],
            integers[f"{_STATS_PREFIX}recomputed_tokens_total"],
        )


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


def think_markers(vllm_config: VllmConfig) -> ThinkMarkers | None:
    """The model's markers of thinking, in the order of the module docstring."""
    config = phase_config(vllm_config)
    if (end := config.get("think_end_token_id")) is not None:
        return ThinkMarkers(config.get("think_start_token_id"), end)
    reasoning = vllm_config.reasoning_config
    if reasoning is not None and reasoning.enabled:
        ends = reasoning.natural_reasoning_end_token_ids or []
        starts = reasoning.reasoning_start_token_ids or []
        if len(ends) == 1:
            return ThinkMarkers(starts[0] if len(starts) == 1 else None, ends[0])
    if vllm_config.model_config.skip_tokenizer_init:
        return None
    tokenizer = cached_tokenizer_from_config(vllm_config.model_config)
    return ThinkMarkers.of_vocabulary(tokenizer.get_vocab())


class _PhaseMixin(Scheduler):
    """Phase tracking for any of vLLM's schedulers; a base class only for the two at the end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = policy_settings(phase_config(self.vllm_config))
        self._markers = think_markers(self.vllm_config)
        self._phase_states: dict[str, PhaseState] = {}  # by vLLM's request id, until the finish
        self._phase_totals = {Phase.REASONING: 0, Phase.ANSWERING: 0}  # of those states
        self._own_ids: dict[str, str] = {}  # the worker's request id -> vLLM's
        self._preemptions = 0
        self._recomputed_tokens = 0
        self._counted_early = 0  # of them; a figure that has been told must not become less
        self._lost_kv: set[str] = set()  # preempted requests that have not run again
        self._step_times: deque[tuple[float, int | None]] = deque()  # scheduled, not yet done
        self._step_ended = 0.0
        connector = self.connector
        self._offload = connector if isinstance(connector, ResumeConnector) else None
        self._dispatcher: Dispatcher | None = None  # None: vLLM's own order
        if settings.policy != "fcfs":
            self._dispatcher = Dispatcher(self, settings, self._phase_states)
        _serve_utilities()

    def now(self) -> float:
        """Seconds on the clock by which the policy decides; a simulation has its own."""
        return time.monotonic()

    # ---- vLLM's override points

    def add_request(self, request: Request) -> None:
        """Begin to follow a request."""
        if request.request_id not in self._phase_states:
            self._track(request)
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """One step, after the policy has said who takes part."""
        if self._dispatcher is not None:
            self._dispatcher.before_step(self.now())
        output: SchedulerOutput = super().schedule(*args, **kwargs)
        if self._dispatcher is not None:
            self._dispatcher.after_step()
        if self._lost_kv:
            self._count_recomputed(output.num_scheduled_tokens)
        if self._offload is not None and output.num_scheduled_tokens:
            self._step_times.append((self.now(), self._prefill_tokens(output)))
        return output

    def update_from_output(self, *args: Any, **kwargs: Any) -> dict[int, EngineCoreOutputs]:
        """Follow what requests got, and put the figures into the statistics."""
        outputs: dict[int, EngineCoreOutputs] = super().update_from_output(*args, **kwargs)
        now = self.now() if self._dispatcher is not None or self._step_times else 0.0
        if self._step_times and args[0].num_scheduled_tokens:
            self._learn_step(now)
        for batch in outputs.values():
            for output in batch.outputs:
                self._observe(output, now)
        for batch in outputs.values():
            if batch.scheduler_stats is not None:
                # The one field of free integers that reaches a stat logger in another process;
                # vLLM reads only its own names from it. Not done in make_stats, which vLLM calls
                # before the phases are up to date.
                batch.scheduler_stats.num_kv_fetch_reqs_by_stage.update(
                    self.phase_stats().to_integers()
                )
        return outputs

    def finish_requests(self, *args: Any, **kwargs: Any) -> list[Request]:
        """Forget requests that were ended from outside."""
        finished: list[Request] = super().finish_requests(*args, **kwargs)
        for request in finished:
            self._forget_if_finished(request.request_id)
        return finished

    def _preempt_request(self, request: Request, timestamp: float, *args: Any, **kw: Any) -> None:
        self._preemptions += 1
        state = self._phase_states[request.request_id]
        resumed = request.request_id not in self._lost_kv
        if resumed and request.num_computed_tokens < state.lost_tokens:
            # It had not got so far again: what is still missing was counted too early.
            self._counted_early += state.lost_tokens - request.num_computed_tokens
        state.lost_tokens = max(state.lost_tokens, request.num_computed_tokens)
        self._lost_kv.add(request.request_id)
        if self._dispatcher is not None:
            self._dispatcher.preempted(state, self.now())
        super()._preempt_request(request, timestamp, *args, **kw)

    # ---- what the worker calls

    def phase_stats(self) -> PhaseStats:
        """Counts by phase, and the blocks that requests really hold. O(running requests)."""
        running = {Phase.REASONING: 0, Phase.ANSWERING: 0}
        blocks = {Phase.REASONING: 0, Phase.ANSWERING: 0}
        for request in self.running:
            phase = self._phase_states[request.request_id].tracker.phase
            running[phase] += 1
            blocks[phase] += self._blocks_held(request.request_id)
        for request in self.kv_holding_waiting:
            phase = self._phase_states[request.request_id].tracker.phase
            blocks[phase] += self._blocks_held(request.request_id)
        pool = self.kv_cache_manager.block_pool
        total = pool.num_gpu_blocks - 1  # the null block is never given out

        def counts(phase: Phase) -> PhaseCounts:
            return PhaseCounts(
                running=running[phase],
                waiting=self._phase_totals[phase] - running[phase],
                kv_blocks=blocks[phase],
            )

        return PhaseStats(
            reasoning=counts(Phase.REASONING),
            answering=counts(Phase.ANSWERING),
            kv_blocks_used=total - pool.get_num_free_blocks(),
            kv_blocks_total=total,
            preemptions_total=self._preemptions,
            reloaded_tokens_total=0 if self._offload is None else self._offload.reloaded_tokens,
            recomputed_tokens_total=self._recomputed_tokens,
        )

    def set_pace(self, own_id: str, pace: Pace) -> None:
        """The reader of a request reads at another pace; unknown requests are ignored."""
        state = self._phase_states.get(self._own_ids.get(own_id, ""))
        if state is not None:
            state.pace = pace
            if self._dispatcher is not None:
                self._dispatcher.paced(state, pace, self.now())

    # ---- own state

    def _track(self, request: Request) -> None:
        params = request.sampling_params
        told = ((params.extra_args if params else None) or {}).get(REQUEST_KEY)
        if told is None:
            phase, own_id, pace = self._phase_of_prompt(request), None, None
        else:
            phase, own_id, pace = Phase(told["phase"]), told["request_id"], Pace(**told["pace"])
            self._own_ids[own_id] = request.request_id
        end = None if self._markers is None else self._markers.end
        state = PhaseState(PhaseTracker(phase, end), own_id, pace)
        self._phase_states[request.request_id] = state
        self._phase_totals[phase] += 1
        if self._dispatcher is not None:
            user = None if told is None else told.get("user")
            self._dispatcher.arrived(request, state, user, self.now())

    def _phase_of_prompt(self, request: Request) -> Phase:
        if self._markers is None or request.sampling_params is None:
            return Phase.ANSWERING
        tail = (request.prompt_token_ids or [])[-_PROMPT_TAIL:]
        return self._markers.phase_after(tail) or Phase.REASONING

    def _observe(self, output: EngineCoreOutput, now: float) -> None:
        state = self._phase_states.get(output.request_id)
        if state is None:
            return
        crossed = state.tracker.feed(output.new_token_ids) is not None
        if crossed:
            self._phase_totals[Phase.REASONING] -= 1
            self._phase_totals[Phase.ANSWERING] += 1
        if self._dispatcher is not None and output.new_token_ids:
            self._dispatcher.produced(state, len(output.new_token_ids), crossed, now)
        if output.finish_reason is not None:
            self._forget_if_finished(output.request_id)

    def _forget_if_finished(self, request_id: str) -> None:
        request = self.requests.get(request_id)
        if request is not None and not request.is_finished():
            return  # one turn of a streamed input: the request goes on
        state = self._phase_states.pop(request_id, None)
        if state is not None:
            self._phase_totals[state.tracker.phase] -= 1
            self._lost_kv.discard(request_id)
            if state.own_id is not None:
                self._own_ids.pop(state.own_id, None)

    def _count_recomputed(self, scheduled: Mapping[str, int]) -> None:
        """Requests that lost their KV run again: what they have not got back, they compute."""
        for request_id in self._lost_kv & scheduled.keys():
            lost = self._phase_states[request_id].lost_tokens
            begin = self.requests[request_id].num_computed_tokens - scheduled[request_id]
            missing = max(0, lost - begin)
            early = min(missing, self._counted_early)
            self._counted_early -= early
            self._recomputed_tokens += missing - early
            if self._offload is not None:
                self._offload.costs.resumed(lost, missing)
            self._lost_kv.remove(request_id)

    def _prefill_tokens(self, output: SchedulerOutput) -> int | None:
        """Computed in a step beyond one token per request; None if its duration tells nothing."""
        meta = output.kv_connector_metadata
        if isinstance(meta, OffloadingConnectorMetadata) and meta.load_jobs:
            return None  # it may have waited for the copies
        return output.total_num_scheduled_tokens - len(output.num_scheduled_tokens)

    def _learn_step(self, now: float) -> None:
        """The oldest step is done; with several in flight it began when the one before it ended."""
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


def _set_pace(engine: EngineCore, own_id: str, pace: dict[str, Any]) -> None:
    assert isinstance(engine.scheduler, _PhaseMixin)
    engine.scheduler.set_pace(own_id, Pace(**pace))


def _serve_utilities() -> None:
    """Let another process reach the scheduler: its utility calls are methods of `EngineCore`.

    Runs where the engine runs, in the scheduler's constructor.
    """
    setattr(EngineCore, SET_PACE_UTILITY, _set_pace)
