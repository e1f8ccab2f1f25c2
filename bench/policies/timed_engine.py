"""A real engine in this process, under requests that arrive in real time, or its processor's.

Steps vLLM's `LLMEngine` itself and stamps every token at the end of the step that made it. The
policy is exchanged between runs. What arrives when is decided by `bench.policies.real_engines`.
Import only in a process of its own: the environment is set here, before vLLM and torch read it.
"""

from __future__ import annotations

import os

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"}
os.environ |= {"VLLM_USE_V2_MODEL_RUNNER": "0", "TOKENIZERS_PARALLELISM": "false"}
os.environ |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.core.kv_cache_utils import KVCacheBlock
from vllm.v1.engine.core_client import InprocClient
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.request import Request

from bench.policies.engine_clock import EngineClock, WallClock
from bench.simulator.timeline import Timeline
from workers.engine.vllm_config import vllm_config
from workers.engine.warm_up import warm_up_params, warm_up_rounds
from workers.policy.phase import Phase
from workers.policy.settings import PolicySettings
from workers.scheduler.plugin import REQUEST_KEY, PhaseAsyncScheduler, PhaseScheduler, phase_config
from workers.settings import WorkerSettings

_WORDS = range(300, 1000)  # ordinary tokens of the embedded model's vocabulary


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step that generated something."""

    ended_s: float
    seconds: float
    tokens: int  # generated: one for each request that took part
    kv_blocks: int  # in use after it
    prefill: bool  # somebody's first token after arrival or preemption was among them


@dataclass(slots=True)
class EngineRun:
    """What the engine did in one run."""

    steps: list[Step] = field(default_factory=list)
    generated_tokens: int = 0
    recomputed_tokens: int = 0
    reloaded_tokens: int = 0
    kv_peak_blocks: int = 0


@dataclass(slots=True)
class _Live:
    """A request in the engine."""

    record: Request  # the scheduler's, which outlives the request there
    timeline: Timeline
    generated: int = 0


class TimedEngine:
    """One engine, for run after run."""

    def __init__(self, settings: WorkerSettings, clock: EngineClock | None = None) -> None:
        """Load the model and warm up; takes seconds.

        :param clock: on which requests arrive and tokens are stamped; None: that on the wall.
        """
        self._clock = WallClock() if clock is None else clock
        config = vllm_config(settings)
        self._llm = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        client = self._llm.engine_core
        assert isinstance(client, InprocClient)
        scheduler = client.engine_core.scheduler
        assert isinstance(scheduler, PhaseScheduler | PhaseAsyncScheduler)
        scheduler.now = self._clock.now  # type: ignore[method-assign]  # it decides by the same
        self._scheduler = scheduler
        self._pool = scheduler.kv_cache_manager.block_pool
        self._withheld: list[KVCacheBlock] = []
        self._free_at_rest = self._pool.get_num_free_blocks()
        self._boundary: int = phase_config(config)["think_end_token_id"]
        self._chance = random.Random(settings.seed)
        self._names = 0
        self._live: dict[str, _Live] = {}
        for prompts in warm_up_rounds(config):
            for prompt in prompts:
                self._llm.add_request("warm-up", tokens_input(prompt), warm_up_params())
                self._finish()
            self._llm.reset_prefix_cache()

    def run(
        self,
        policy: PolicySettings,
        kv_blocks: int,
        requests: Sequence[Timeline],
        measured: Sequence[Timeline],
        least_running: int = 0,
    ) -> EngineRun:
        """Let requests arrive and fill in their timelines; all times are from the start of the run.

        Ends when ``measured`` are finished, or fewer than ``least_running`` are left of requests
        that have all arrived; what is still running then is dropped.

        :param kv_blocks: of the engine's memory, what requests may use.
        :param requests: in the order of their arrival.
        """
        self._withhold_but(kv_blocks)
        self._scheduler.use_policy(policy)
        before = self._scheduler.phase_stats()
        run = EngineRun()
        coming, began = 0, self._clock.now()
        while any(timeline.finished_s is None for timeline in measured):
            now = self._clock.now() - began
            while coming < len(requests) and requests[coming].arrival_s <= now:
                self._add(requests[coming], policy.tau_s)
                coming += 1
            if self._live:
                self._step(run, began)
            elif coming < len(requests):
                self._clock.wait(began + requests[coming].arrival_s)
            if coming == len(requests) and len(self._live) < least_running:
                break
        self._llm.abort_request([live.record.request_id for live in self._live.values()], True)
        self._live.clear()
        self._finish()
        after = self._scheduler.phase_stats()
        run.recomputed_tokens = after.recomputed_tokens_total - before.recomputed_tokens_total
        run.reloaded_tokens = after.reloaded_tokens_total - before.reloaded_tokens_total
        return run

    def _add(self, timeline: Timeline, tau_s: float) -> None:
        """Queue a request with forced lengths, whose prompt is like no other's."""
        self._names += 1
        name = f"request-{self._names}"
        lengths = timeline.lengths
        told = {
            "request_id": name,
            "phase": Phase.REASONING.value,
            "pace": {"tau_s": tau_s},
            "forced_reasoning": lengths.reasoning,
            "forced_answer": lengths.answer,
        }
        params = SamplingParams(
            temperature=0.0,
            max_tokens=lengths.reasoning + lengths.answer,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={REQUEST_KEY: told},
        )
        prompt = tokens_input(self._chance.choices(_WORDS, k=lengths.prompt))
        internal_id = self._llm.add_request(name, prompt, params)
        self._live[name] = _Live(self._scheduler.requests[internal_id], timeline)

    def _step(self, run: EngineRun, began: float) -> None:
        before = self._clock.now()
        outputs = self._llm.step()
        after = self._clock.now()
        now = after - began
        prefill = False
        for output in outputs:
            assert isinstance(output, RequestOutput)
            live = self._live[output.request_id]
            preemptions = live.record.num_preemptions
            prefill |= not live.generated or preemptions != live.timeline.preemptions
            for _ in output.outputs[0].token_ids:
                live.timeline.produced(live.generated, now, preemptions)
                live.generated += 1
            if output.finished:
                self._check_lengths(live)
                live.timeline.finished_s = now
                del self._live[output.request_id]
        used = self._free_at_rest - self._pool.get_num_free_blocks()
        if outputs:
            run.steps.append(Step(now, after - before, len(outputs), used, prefill))
            run.generated_tokens += len(outputs)
        run.kv_peak_blocks = max(run.kv_peak_blocks, used)

    def _check_lengths(self, live: _Live) -> None:
        """A timeline is only true if the lengths came out as they were forced."""
        output, lengths = list(live.record.output_token_ids), live.timeline.lengths
        assert len(output) == lengths.reasoning + lengths.answer
        assert output.index(self._boundary) == lengths.reasoning - 1

    def _withhold_but(self, kv_blocks: int) -> None:
        """Forget all KV and let requests have so many blocks, as if the engine had no more.

        One engine for all runs: vLLM keeps its KV connector once per process.
        """
        self._pool.free_blocks(self._withheld)
        assert self._llm.reset_prefix_cache(reset_connector=True)
        self._withheld = self._pool.get_new_blocks(self._pool.get_num_free_blocks() - kv_blocks)
        self._free_at_rest = kv_blocks

    def _finish(self) -> None:
        """Step until nothing is left, not even KV of ended requests that is still being stored."""
        while self._scheduler.has_requests():
            self._llm.step()
