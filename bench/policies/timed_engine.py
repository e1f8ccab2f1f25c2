"""A real engine in this process that serves requests as they arrive, on a chosen clock.

It steps vLLM's `LLMEngine` itself, and stamps every token at the end of its step. It does not
choose arrivals (`bench.policies.real_engines` does). Import this module only in a process of its
own (`bench.policies.local_engine`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.policies.engine_clock import EngineClock, WallClock
from bench.policies.local_engine import LocalEngine  # first: it sets the environment

# isort: split

from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.core.kv_cache_utils import KVCacheBlock
from vllm.v1.request import Request

from bench.simulator.timeline import Timeline
from workers.engine.warm_up import warm_up_params, warm_up_rounds
from workers.policy.phase import Phase
from workers.policy.settings import PolicySettings
from workers.scheduler.plugin import REQUEST_KEY, markers_of
from workers.settings import WorkerSettings

_WORDS = range(300, 1000)  # ordinary tokens of the embedded model's vocabulary


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step that generated tokens."""

    ended_s: float
    seconds: float
    tokens: int  # generated: one for each request in the batch
    kv_blocks: int  # in use after it
    prefill: bool  # it generated a request's first token after arrival or preemption


@dataclass(slots=True)
class EngineRun:
    """Steps and totals of one run."""

    steps: list[Step] = field(default_factory=list)
    generated_tokens: int = 0
    recomputed_tokens: int = 0
    reloaded_tokens: int = 0
    kv_peak_blocks: int = 0


@dataclass(slots=True)
class _Live:
    """A request in the engine."""

    record: Request  # the scheduler's record, which stays valid after the request has ended
    timeline: Timeline
    generated: int = 0


class TimedEngine(LocalEngine):
    """One engine that serves timelines, run after run."""

    def __init__(self, settings: WorkerSettings, clock: EngineClock | None = None) -> None:
        """Load the model and warm up; takes seconds.

        :param clock: stamps arrivals and tokens; None: the clock on the wall.
        """
        super().__init__(settings)
        self._clock = WallClock() if clock is None else clock
        self.scheduler.now = self._clock.now  # type: ignore[method-assign]  # for its decisions too
        self._pool = self.scheduler.kv_cache_manager.block_pool
        self._withheld: list[KVCacheBlock] = []
        self._free_at_rest = self._pool.get_num_free_blocks()
        markers = markers_of(self.config)
        assert markers is not None
        ((self._boundary,), *_) = markers.reasoning_ends
        self._rng = random.Random(settings.seed)
        self._names = 0
        self._live: dict[str, _Live] = {}
        for prompts in warm_up_rounds(self.config):
            for prompt in prompts:
                self.llm.add_request("warm-up", tokens_input(prompt), warm_up_params())
                self.finish()
            self.llm.reset_prefix_cache()

    def run(
        self,
        policy: PolicySettings,
        kv_blocks: int,
        requests: Sequence[Timeline],
        measured: Sequence[Timeline],
        least_running: int = 0,
        watermark: float = 0.0,
    ) -> EngineRun:
        """Serve requests and fill in their timelines; all times count from the start of the run.

        Ends when ``measured`` are finished. It also ends when all requests have arrived and fewer
        than ``least_running`` of them are left; these are dropped.

        :param kv_blocks: the part of the engine's memory that requests may use.
        :param requests: in the order of their arrival.
        :param watermark: share of this memory that vLLM keeps free when it admits requests.
        """
        self._withhold_but(kv_blocks)
        # As vLLM sets it at its start, for the memory of this run instead of all of it.
        self.scheduler.kv_cache_manager.watermark_blocks = int(watermark * kv_blocks)
        self.use_policy(policy)
        before = self.scheduler.phase_stats()
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
        self.llm.abort_request([live.record.request_id for live in self._live.values()], True)
        self._live.clear()
        self.finish()
        after = self.scheduler.phase_stats()
        run.recomputed_tokens = after.recomputed_tokens_total - before.recomputed_tokens_total
        run.reloaded_tokens = after.reloaded_tokens_total - before.reloaded_tokens_total
        return run

    def _add(self, timeline: Timeline, tau_s: float) -> None:
        """Queue a request with forced lengths and a random prompt."""
        self._names += 1
        name = f"request-{self._names}"
        lengths = timeline.lengths
        request_facts = {
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
            extra_args={REQUEST_KEY: request_facts},
        )
        prompt = tokens_input(self._rng.choices(_WORDS, k=lengths.prompt))
        internal_id = self.llm.add_request(name, prompt, params)
        self._live[name] = _Live(self.scheduler.requests[internal_id], timeline)

    def _step(self, run: EngineRun, began: float) -> None:
        before = self._clock.now()
        outputs = self.llm.step()
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
        """Check that the forced lengths were kept; otherwise the timeline is wrong."""
        output, lengths = list(live.record.output_token_ids), live.timeline.lengths
        assert len(output) == lengths.reasoning + lengths.answer
        assert output.index(self._boundary) == lengths.reasoning - 1

    def _withhold_but(self, kv_blocks: int) -> None:
        """Discard all KV, and hold blocks back until requests can use only ``kv_blocks``."""
        self._pool.free_blocks(self._withheld)
        self.forget()
        self._withheld = self._pool.get_new_blocks(self._pool.get_num_free_blocks() - kv_blocks)
        self._free_at_rest = kv_blocks
