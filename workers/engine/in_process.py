"""The engine in this process: vLLM's `LLMEngine`, stepped by a thread.

It suits one engine per core on a CPU: one process, and no copies between processes. The thread owns
the engine. The event loop sends it commands, which the thread carries out between steps. Events go
back through `call_soon_threadsafe`, in order. With nothing to do the thread waits for a command.

If a step raises, the engine has failed: the thread reports that once and ends. If a command raises,
only its request or its caller gets the error (see `workers.engine.interface`), and the thread goes
on.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import msgspec
import structlog
import vllm
from vllm.config import VllmConfig
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.core_client import InprocClient
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.request import Request

from workers.emulation.executor import EmulatedExecutor
from workers.emulation.script import script_facts
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
from workers.messages import Endpoint, Pace, StepStats, Structure
from workers.policy.phase import Phase
from workers.scheduler.engine_core_calls import kv_endpoint, meet_peer, use_policy
from workers.scheduler.plugin import REQUEST_KEY, PhaseAsyncScheduler, PhaseScheduler

_log = structlog.get_logger()

_IDLE_S = 0.0005  # between two steps that compute nothing

T = TypeVar("T")


def _resolve(future: asyncio.Future[T], value: T | None, error: Exception | None) -> None:
    if future.done():  # its waiter may have been cancelled
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(cast("T", value))


@dataclass(frozen=True, slots=True)
class _Live:
    """A request in the engine."""

    internal_id: str  # vLLM makes its own of ours
    request: Request  # the scheduler's record, which outlives the request there
    alternatives: int | None  # to report for each token; None: no log probabilities


class InProcessEngine:
    """`workers.engine.interface.Engine` on an `LLMEngine`."""

    def __init__(self, config: VllmConfig) -> None:
        """Load the model and warm up; takes seconds."""
        self._structures = StructureCheck(config)
        self._llm = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        client = self._llm.engine_core
        assert isinstance(client, InprocClient), "vLLM put its engine into another process"
        scheduler = client.engine_core.scheduler
        assert isinstance(scheduler, PhaseScheduler | PhaseAsyncScheduler)
        self._scheduler = scheduler
        executor = client.engine_core.model_executor
        self._device = executor if isinstance(executor, EmulatedExecutor) else None
        self._defaults = config.model_config.get_diff_sampling_param()
        trust_structures(self._llm.input_processor)
        endpoint = kv_endpoint(client.engine_core)
        self._facts = EngineFacts(
            name=f"vllm {vllm.__version__} {self._kind()}",
            max_model_len=config.model_config.max_model_len,
            block_size=config.cache_config.block_size,
            kv_blocks_total=self._scheduler.phase_stats().kv_blocks_total,
            endpoint=None if endpoint is None else Endpoint(**endpoint),
        )
        self._core = client.engine_core
        self._prepare_thread()
        self._steps = 0
        self._busy_since: float | None = None  # end of the last step, or when work arrived
        self._warm_up(config)
        if self._device is not None:
            self._device.reset_stats()
        self._stats = self._new_stats()  # written by the thread, read by the loop: one reference

    def _kind(self) -> str:
        return "in-process" if self._device is None else f"emulated {self._device.name}"

    def _prepare_thread(self) -> None:
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._waiting: set[asyncio.Future[Any]] = set()  # for the thread; owned by the loop
        self._gone = False  # the thread has ended, or will not answer; owned by the loop
        self._live: dict[str, _Live] = {}  # owned by the thread, as all that follows
        self._paused = False
        self._closing = False

    # ---- on the event loop

    @property
    def facts(self) -> EngineFacts:
        """What does not change while the engine lives."""
        return self._facts

    def start(self, events: EngineEvents) -> None:
        """Begin to work, on the running event loop."""
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def check_structure(self, structure: Structure, began: Phase) -> None:
        """Compile a structure; :raises RequestRejected: if it cannot be compiled."""
        await self._structures.check(structure, began)

    def vocabulary(self) -> Sequence[bytes]:
        """The text of every token id as bytes; takes seconds once, in any thread."""
        return self._structures.vocabulary()

    def submit(self, request: EngineRequest) -> None:
        """Queue a request; :raises RequestRejected: for wrong sampling parameters."""
        params = sampling_params(request, self._defaults, emulated=self._device is not None)
        if self._device is not None:
            assert params.extra_args is not None
            params.extra_args[REQUEST_KEY] |= script_facts(
                request.tools, request.tool_choice, request.structure
            )
        self._commands.put(lambda: self._add(request, params))

    def cancel(self, request_id: str) -> None:
        """End a request and free its KV memory; unknown ones are ignored."""
        self._command(request_id, lambda: self._abort(request_id))

    def set_pace(self, request_id: str, pace: Pace) -> None:
        """Tell the scheduler the reader's new pace."""
        work = partial(self._scheduler.set_pace, request_id, pace)
        self._instruct(request_id, work, "pace_not_set")

    def turn(self, request_id: str, phase: Phase) -> None:
        """Tell the scheduler a phase that only the text of the request shows."""
        work = partial(self._scheduler.turn, request_id, phase)
        self._instruct(request_id, work, "phase_not_set")

    def _instruct(self, request_id: str, work: Callable[[], None], failure: str) -> None:
        """Tell the scheduler something; if that fails, the request is scheduled as before."""

        def call() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 (the request goes on)
                _log.error(failure, request_id=request_id, kind=type(error).__name__)

        self._commands.put(call)

    def hand_over(self, request_id: str) -> None:
        """End a request, to go on elsewhere; unknown ones are ignored."""
        self._command(request_id, lambda: self._scheduler.hand_over(request_id))

    def _command(self, request_id: str, work: Callable[[], None]) -> None:
        """Run ``work`` for one request on the engine's thread; the request ends if it raises."""

        def call() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 (the fault of one request)
                self._fail(request_id, error)

        self._commands.put(call)

    async def use_policy(self, policy: str) -> str | None:
        """Schedule by another policy, from the next step on; :return: why not, or None."""
        return await self._call(lambda: use_policy(self._core, policy))

    async def meet_peer(self, peer: Endpoint) -> str | None:
        """Connect to the KV memory of another engine; :return: why that failed, or None."""
        values = msgspec.structs.asdict(peer)
        return await until_known(lambda: self._call(lambda: meet_peer(self._core, values)))

    async def _call(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the engine's thread; raises what ``work`` raises.

        :raises EngineGone: if the thread has ended, or ends meanwhile.
        """
        if self._gone:
            raise EngineGone("the engine has stopped")
        done: asyncio.Future[T] = self._loop.create_future()
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)

        def call() -> None:
            value: T | None = None
            failure: Exception | None = None
            try:
                value = work()
            except Exception as error:  # noqa: BLE001 (it is raised where it is waited for)
                failure = error
            self._tell(_resolve, done, value, failure)

        self._commands.put(call)
        return await done

    def _end_waiting(self) -> None:
        self._gone = True
        for future in self._waiting.copy():
            _resolve(future, None, EngineGone("the engine has stopped"))

    def pause(self) -> None:
        """Make no further step until `resume`."""
        self._commands.put(lambda: self._set_paused(True))

    def resume(self) -> None:
        """Undo `pause`."""
        self._commands.put(lambda: self._set_paused(False))

    def stats(self) -> StepStats:
        """State after the last step."""
        return self._stats

    def since_step_s(self) -> float:
        """Seconds since the last step or, if later, since work arrived."""
        since = self._busy_since
        return 0.0 if since is None else max(0.0, time.monotonic() - since)

    async def close(self) -> None:
        """Stop, and free everything; a thread that hangs in a step is left behind."""
        self._commands.put(self._close)
        self._end_waiting()
        self._structures.close()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, CLOSE_S)
        if self._thread.is_alive():
            _log.error("engine_step_hung", seconds=round(self.since_step_s(), 1))

    # ---- on the engine's thread

    def _run(self) -> None:
        try:
            while not self._closing:
                self._obey()
                if self._may_step():
                    self._step()
            self._llm.engine_core.shutdown()
        except Exception as error:  # noqa: BLE001 (any error ends the engine and must be reported)
            # The process ends on this event: the state of the engine is unknown.
            self._busy_since = None
            self._tell(self._events.engine_failed, f"{type(error).__name__}: {error}")
        finally:
            self._tell(self._end_waiting)

    def _may_step(self) -> bool:
        return (bool(self._live) or self._storing()) and not self._paused and not self._closing

    def _storing(self) -> bool:
        """Whether KV of requests that have ended is still to be stored, or their blocks freed."""
        return self._scheduler.connector is not None and self._scheduler.has_requests()

    def _obey(self) -> None:
        """Carry out commands; wait for one if there is nothing else to do."""
        if not self._may_step():
            self._busy_since = None
            self._commands.get()()
        elif self._scheduler.connector is not None and self._scheduler.idle:
            # The engine only waits for KV transfers: sleep instead of spinning.
            with contextlib.suppress(queue.Empty):
                self._commands.get(timeout=_IDLE_S)()
        while not self._commands.empty():
            self._commands.get()()
        if self._may_step() and self._busy_since is None:
            self._busy_since = time.monotonic()

    def _step(self) -> None:
        outputs = []
        for output in self._llm.step():
            if not isinstance(output, RequestOutput):
                continue  # the other kind is for models that do not write
            if output.request_id not in self._live:
                continue  # it could not be taken out of vLLM
            try:
                outputs.append(self._output(output))
            except Exception as error:  # noqa: BLE001 (the fault of one request)
                self._fail(output.request_id, error)
        self._steps += 1
        self._busy_since = time.monotonic()
        if outputs or self._live:
            self._deliver(*outputs)
        else:
            self._stats = self._new_stats()  # the heartbeat tells

    def _output(self, output: RequestOutput) -> EngineOutput:
        request_id = output.request_id
        live = self._live[request_id]
        if output.finished:
            del self._live[request_id]
        return engine_output(request_id, output, live.request.num_preemptions, live.alternatives)

    def _add(self, request: EngineRequest, params: SamplingParams) -> None:
        prompt = tokens_input(list(request.prompt_token_ids))
        request_id = request.request_id
        try:
            internal_id = self._llm.add_request(request_id, prompt, params)
            record = self._scheduler.requests[internal_id]
            self._live[request_id] = _Live(internal_id, record, params.logprobs)
        except (VLLMClientError, ValueError) as error:
            self._forget(request_id)
            self._tell(
                self._events.request_rejected,
                request_id,
                str(error),
                "invalid_value",
                field_of(error),
            )
            return
        except Exception as error:  # noqa: BLE001 (the fault of one request)
            self._forget(request_id)
            _log.error("request_not_added", request_id=request_id, kind=type(error).__name__)
            reason = failure_of(error)
            self._tell(self._events.request_rejected, request_id, reason, "internal_error")
            return
        self._tell(self._events.request_accepted, request_id)

    def _abort(self, request_id: str) -> None:
        live = self._live.pop(request_id, None)
        if live is None:
            return
        self._llm.abort_request([live.internal_id], internal=True)
        self._deliver(
            EngineOutput(request_id, (), "cancelled", preemptions=live.request.num_preemptions)
        )

    def _fail(self, request_id: str, error: Exception) -> None:
        """End one request with an error; the others go on."""
        _log.error("request_failed_in_engine", request_id=request_id, kind=type(error).__name__)
        self._live.pop(request_id, None)
        self._forget(request_id)
        self._deliver(EngineOutput(request_id, (), "error", message=failure_of(error)))

    def _forget(self, request_id: str) -> None:
        """Take a request out of vLLM, in whatever state an exception has left it."""
        try:
            self._llm.abort_request([request_id])
        except Exception as error:  # noqa: BLE001 (nothing else can be done for it)
            _log.error("request_not_freed", request_id=request_id, kind=type(error).__name__)

    def _set_paused(self, paused: bool) -> None:
        self._paused = paused

    def _close(self) -> None:
        self._closing = True

    def _deliver(self, *outputs: EngineOutput) -> None:
        self._stats = self._new_stats()
        self._tell(self._events.step_finished, EngineStep(outputs, self._stats))

    def _tell(self, event: Callable[..., None], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(event, *values)

    def _new_stats(self) -> StepStats:
        device = None if self._device is None else self._device.stats()
        return StepStats.of(self._scheduler.phase_stats(), self._steps, device)

    def _warm_up(self, config: VllmConfig) -> None:
        params = warm_up_params()
        for prompts in warm_up_rounds(config):
            for prompt in prompts:
                self._llm.add_request("warm-up", tokens_input(prompt), params)
                while self._llm.has_unfinished_requests() or self._storing():
                    self._llm.step()
            self._llm.reset_prefix_cache()
        self._llm.reset_prefix_cache(reset_connector=True)
