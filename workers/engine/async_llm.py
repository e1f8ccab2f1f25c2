"""The engine in separate processes: vLLM's `AsyncLLM`, as GPUs need it.

One task sends commands to the engine, in order. Outputs come back one step at a time: vLLM calls a
stat logger once after it has distributed the outputs of a step, and that call collects them from
all requests. Statistics by phase travel in vLLM's statistics of the same step.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import structlog
import vllm
from vllm.config import VllmConfig
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import RequestOutputCollector
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats, MultiModalCacheStats, SchedulerStats

from workers.engine.interface import (
    CLOSE_S,
    EngineEvents,
    EngineFacts,
    EngineGone,
    EngineOutput,
    EngineRequest,
    EngineStep,
)
from workers.engine.meeting import until_known
from workers.engine.outputs import engine_output, failure_of
from workers.engine.sampling import field_of, sampling_params
from workers.engine.structure import StructureCheck, trust_structures
from workers.engine.warm_up import warm_up_params, warm_up_rounds
from workers.messages import Endpoint, Pace, PhaseCounts, StepStats, Structure
from workers.policy.phase import Phase
from workers.scheduler.engine_core_calls import (
    hand_over,
    kv_endpoint,
    meet_peer,
    set_pace,
    turn,
    use_policy,
)
from workers.scheduler.phase_stats import from_integers

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Live:
    """A request in the engine."""

    internal_id: str  # vLLM makes its own of ours
    outputs: RequestOutputCollector
    alternatives: int | None  # to report for each token; None: no log probabilities


class _StepListener(StatLoggerBase):
    """Called by vLLM once per engine step, after the outputs of that step."""

    def __init__(self, on_step: Callable[[SchedulerStats], None]) -> None:
        self._on_step = on_step

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        if scheduler_stats is None:
            return
        try:
            self._on_step(scheduler_stats)
        except Exception as error:  # noqa: BLE001 (vLLM would end its output handler)
            # The gateway restarts a worker that reports no steps.
            _log.error("step_not_delivered", kind=type(error).__name__, reason=str(error))

    def log_engine_initialized(self) -> None:
        """Log nothing: the worker logs its own start."""


class AsyncEngine:
    """`workers.engine.interface.Engine` on an `AsyncLLM`; make one with `load`."""

    def __init__(self, config: VllmConfig) -> None:
        """Start vLLM's processes and load the model; blocks for many seconds."""
        self._prepare()
        self._structures = StructureCheck(config)
        self._llm = AsyncLLM.from_vllm_config(
            config,
            stat_loggers=[lambda *_: _StepListener(self._stepped)],
            disable_log_stats=True,
        )
        self._defaults = config.model_config.get_diff_sampling_param()
        trust_structures(self._llm.input_processor)
        self._config = config

    def _prepare(self) -> None:
        self._events: EngineEvents | None = None
        self._live: dict[str, _Live] = {}
        self._commands: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._obeying: asyncio.Task[None] | None = None
        self._paused = False
        self._endpoint: Endpoint | None = None  # known after the warm-up
        self._steps = 0
        self._busy_since: float | None = None  # end of the last step, or when work arrived
        nothing = PhaseCounts()
        self._stats = StepStats(
            reasoning=nothing,
            answering=nothing,
            kv_blocks_used=0,
            kv_blocks_total=0,
            preemptions_total=0,
            steps_total=0,
        )

    @classmethod
    async def load(cls, config: VllmConfig) -> AsyncEngine:
        """Load the model and warm up."""
        engine = cls(config)
        params = warm_up_params()
        for prompts in warm_up_rounds(config):
            for prompt in prompts:
                async for _ in engine._llm.generate(tokens_input(prompt), params, "warm-up"):
                    pass
            await engine._llm.reset_prefix_cache()
        await engine._llm.reset_prefix_cache(reset_connector=True)
        engine._steps = 0
        core = engine._llm.engine_core
        if (endpoint := await core.call_utility_async(kv_endpoint.__name__)) is not None:
            engine._endpoint = Endpoint(**endpoint)
        return engine

    @property
    def facts(self) -> EngineFacts:
        """What does not change while the engine lives."""
        config = self._config
        return EngineFacts(
            name=f"vllm {vllm.__version__} AsyncLLM",
            max_model_len=config.model_config.max_model_len,
            block_size=config.cache_config.block_size,
            kv_blocks_total=self._stats.kv_blocks_total,  # known since the warm-up
            endpoint=self._endpoint,
        )

    def start(self, events: EngineEvents) -> None:
        """Begin to work, on the running event loop."""
        self._events = events
        self._obeying = asyncio.create_task(self._obey())
        self._obeying.add_done_callback(self._ended)
        assert self._llm.output_handler is not None
        self._llm.output_handler.add_done_callback(self._ended)

    async def check_structure(self, structure: Structure, began: Phase) -> None:
        """Compile a structure; :raises RequestRejected: if it cannot be compiled."""
        await self._structures.check(structure, began)

    def vocabulary(self) -> Sequence[bytes]:
        """The text of every token id as bytes; takes seconds once, in any thread."""
        return self._structures.vocabulary()

    def submit(self, request: EngineRequest) -> None:
        """Queue a request; :raises RequestRejected: for wrong sampling parameters."""
        params = sampling_params(request, self._defaults)
        self._commands.put_nowait(lambda: self._add(request, params))

    def cancel(self, request_id: str) -> None:
        """End a request and free its KV memory; unknown ones are ignored."""
        self._command(request_id, lambda: self._abort(request_id))

    def set_pace(self, request_id: str, pace: Pace) -> None:
        """Tell the scheduler the reader's new pace."""
        self._tell(request_id, set_pace.__name__, msgspec.structs.asdict(pace), "pace_not_set")

    def turn(self, request_id: str, phase: Phase) -> None:
        """Tell the scheduler a phase that only the text of the request shows."""
        self._tell(request_id, turn.__name__, phase.value, "phase_not_set")

    def _tell(self, request_id: str, utility: str, value: Any, failure: str) -> None:
        """Tell the scheduler something; if that fails, the request is scheduled as before."""

        async def call() -> None:
            try:
                await self._llm.engine_core.call_utility_async(utility, request_id, value)
            except Exception as error:  # noqa: BLE001 (the request goes on)
                _log.error(failure, request_id=request_id, kind=type(error).__name__)

        self._commands.put_nowait(call)

    def hand_over(self, request_id: str) -> None:
        """End a request, to go on elsewhere; unknown ones are ignored."""
        core = self._llm.engine_core
        self._command(request_id, lambda: core.call_utility_async(hand_over.__name__, request_id))

    def _command(self, request_id: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something for one request, in turn; the request ends if it raises."""

        async def call() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 (the fault of one request)
                await self._fail(request_id, error)

        self._commands.put_nowait(call)

    async def use_policy(self, policy: str) -> str | None:
        """Schedule by another policy, from the next step on; :return: why not, or None."""
        if self._events is None:
            raise EngineGone("the engine has stopped")
        core = self._llm.engine_core
        why: str | None = await core.call_utility_async(use_policy.__name__, policy)
        return why

    async def meet_peer(self, peer: Endpoint) -> str | None:
        """Connect to the KV memory of another engine; :return: why that failed, or None."""
        if self._events is None:
            raise EngineGone("the engine has stopped")
        values = msgspec.structs.asdict(peer)
        core = self._llm.engine_core
        return await until_known(lambda: core.call_utility_async(meet_peer.__name__, values))

    def pause(self) -> None:
        """Pause: no step begins until `resume`."""
        self._commands.put_nowait(lambda: self._set_paused(True))

    def resume(self) -> None:
        """Undo `pause`."""
        self._commands.put_nowait(lambda: self._set_paused(False))

    def stats(self) -> StepStats:
        """State after the last step."""
        return self._stats

    def since_step_s(self) -> float:
        """Seconds since the last step or, if later, since work arrived."""
        since = self._busy_since
        return 0.0 if since is None else max(0.0, time.monotonic() - since)

    async def close(self) -> None:
        """Stop and free everything; processes that hang end with this one."""
        self._events = None
        if self._obeying is not None:
            self._obeying.cancel()
        self._structures.close()
        end = threading.Thread(target=self._llm.shutdown, name="engine-end", daemon=True)
        end.start()
        await asyncio.to_thread(end.join, CLOSE_S)
        if end.is_alive():
            _log.error("engine_step_hung", seconds=round(self.since_step_s(), 1))

    async def _obey(self) -> None:
        while True:
            command = await self._commands.get()
            try:
                await command()
            except Exception as error:  # noqa: BLE001 (one command; if the engine died, vLLM says so)
                _log.error("command_failed", kind=type(error).__name__, reason=str(error))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """One of the two tasks that must never end has ended."""
        events, self._events = self._events, None
        if events is None:
            return  # closed, or failed already
        error = None if task.cancelled() else task.exception()
        self._busy_since = None
        events.engine_failed(f"{type(error).__name__}: {error}" if error else "the engine died")

    async def _add(self, request: EngineRequest, params: SamplingParams) -> None:
        prompt = tokens_input(list(request.prompt_token_ids))
        try:
            outputs = await self._llm.add_request(request.request_id, prompt, params)
        except (VLLMClientError, ValueError) as error:
            if self._events is not None:
                self._events.request_rejected(request.request_id, str(error), param=field_of(error))
            return
        except Exception as error:  # noqa: BLE001 (the fault of one request)
            await self._forget(request.request_id)
            _log.error(
                "request_not_added", request_id=request.request_id, kind=type(error).__name__
            )
            if self._events is not None:
                reason = failure_of(error)
                self._events.request_rejected(request.request_id, reason, "internal_error")
            return
        self._live[request.request_id] = _Live(outputs.request_id, outputs, params.logprobs)
        if self._busy_since is None and not self._paused:
            self._busy_since = time.monotonic()
        if self._events is not None:
            self._events.request_accepted(request.request_id)
        # A step may have ended while vLLM was adding the request.
        self._deliver(self._collect())

    async def _abort(self, request_id: str) -> None:
        live = self._live.pop(request_id, None)
        if live is None:
            return
        await self._llm.abort(live.internal_id, internal=True)
        last = live.outputs.get_nowait()
        preemptions = _preemptions(last) if isinstance(last, RequestOutput) else 0
        # The blocks are free before the engine takes another step; the next statistics say so.
        self._deliver([EngineOutput(request_id, (), "cancelled", preemptions=preemptions)])

    async def _fail(self, request_id: str, error: Exception) -> None:
        """End one request with an error; the others go on."""
        _log.error("request_failed_in_engine", request_id=request_id, kind=type(error).__name__)
        self._live.pop(request_id, None)
        await self._forget(request_id)
        self._deliver([EngineOutput(request_id, (), "error", message=failure_of(error))])

    async def _forget(self, request_id: str) -> None:
        """Take a request out of vLLM, in whatever state an exception has left it."""
        try:
            await self._llm.abort(request_id)
        except Exception as error:  # noqa: BLE001 (nothing else can be done for it)
            _log.error("request_not_freed", request_id=request_id, kind=type(error).__name__)

    async def _set_paused(self, paused: bool) -> None:
        if paused == self._paused:
            return
        self._paused = paused
        if paused:
            await self._llm.engine_core.pause_scheduler_async(mode="keep", clear_cache=False)
        else:
            await self._llm.engine_core.resume_scheduler_async()
        self._busy_since = time.monotonic() if self._live and not paused else None

    def _stepped(self, stats: SchedulerStats) -> None:
        now = time.monotonic()
        phases = from_integers(stats.num_kv_fetch_reqs_by_stage)
        self._steps += 1
        self._stats = StepStats.of(phases, self._steps)
        outputs = self._collect()
        self._busy_since = now if self._live and not self._paused else None
        # A step that only waits for tickets to be used is not sent; the heartbeat has its state.
        if self._events is not None and (outputs or self._live):
            self._events.step_finished(EngineStep(tuple(outputs), self._stats))

    def _collect(self) -> list[EngineOutput]:
        outputs = []
        for request_id, live in list(self._live.items()):
            try:
                if (output := self._output(request_id, live)) is not None:
                    outputs.append(output)
            except Exception as error:  # noqa: BLE001 (the fault of one request)
                del self._live[request_id]
                self._commands.put_nowait(partial(self._fail, request_id, error))
        return outputs

    def _output(self, request_id: str, live: _Live) -> EngineOutput | None:
        output = live.outputs.get_nowait()
        if not isinstance(output, RequestOutput):
            return None
        got = engine_output(request_id, output, _preemptions(output), live.alternatives)
        if output.finished:
            del self._live[request_id]
        return got

    def _deliver(self, outputs: list[EngineOutput]) -> None:
        if outputs and self._events is not None:
            self._events.step_finished(EngineStep(tuple(outputs), self._stats))


def _preemptions(output: RequestOutput) -> int:
    return output.metrics.num_preemptions if output.metrics is not None else 0
