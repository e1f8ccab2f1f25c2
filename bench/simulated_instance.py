"""One instance in virtual time: vLLM's real scheduler and KV-cache manager on a modelled device.

The scheduler is the one that a worker runs, stepped by hand: `schedule`, a step whose duration
comes from a `DeviceProfile`, `update_from_output` with scripted tokens. KV offload is the real
connector's scheduler side and its worker's bookkeeping; only the copies are modelled. Left out is
the engine's own work between two steps.

Knows one instance, no cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import (
    OffloadingConnectorMetadata,
)
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.config import build_offloading_config
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.worker import (
    OffloadingConnectorWorker,
)
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.kv_offload.factory import OffloadingSpecFactory
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from bench.simulated_scheduler import Clock, SimulatedScheduler
from bench.timeline import SLO_QOE, TAU_S, Timeline
from gateway.placement import InstanceView
from pacer import RunningQoE
from workers.kv_offload import kv_transfer_config
from workers.modelled_transfers import ModelledTransfers
from workers.profile import DeviceProfile
from workers.scheduler import CONFIG_KEY, REQUEST_KEY

# Scripted tokens: any ids serve, as long as one of them is the boundary.
_BOUNDARY_ID, _WORD_ID = 5, 100
_NOTHING: list[int] = []

_FIRST_UNIQUE_ID = 1000

_MAX_MODEL_LEN = 32_768


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSettings:
    """What is simulated."""

    profile: DeviceProfile
    model: str  # folder of any model that vLLM can configure: the KV shape is the profile's
    policy: str = "fcfs"
    policy_numbers: Mapping[str, Any] = field(default_factory=dict)
    kv_blocks: int | None = None  # None: the profile's
    offload: bool = True
    resume: str = "auto"  # see `workers.resume_cost.RESUMES`
    max_num_seqs: int = 1024
    max_num_batched_tokens: int = 8192
    exact: bool = False  # skip nothing of vLLM's work, take every step by itself; slower
    leaps: bool = True  # take steps between which nothing can be decided in one go


@dataclass(slots=True)
class InstanceTotals:
    """What one instance did."""

    steps: int = 0
    busy_s: float = 0.0
    stall_s: float = 0.0  # of it, waiting for stores before a preempted request's blocks are reused
    computed_tokens: int = 0  # of prompts, lost KV and outputs
    generated_tokens: int = 0
    recomputed_tokens: int = 0  # KV that preemptions had lost
    reloaded_tokens: int = 0
    kv_peak_blocks: int = 0


class Live:
    """A request in an instance."""

    __slots__ = ("generated", "measured", "qoe", "request", "timeline")

    def __init__(self, request: Request, timeline: Timeline, measured: bool) -> None:
        self.request = request
        self.timeline = timeline
        self.measured = measured
        self.generated = 0
        self.qoe: RunningQoE | None = None  # from the first answering token on

    def within_slo(self, now: float) -> bool:
        """As the gateway's pacer says it."""
        return self.qoe is None or self.qoe.at(now) >= SLO_QOE

    @property
    def tokens_ahead(self) -> int:
        """Until it comes to its answer, or else to its end."""
        lengths = self.timeline.lengths
        left = lengths.reasoning - self.generated
        return left if left > 0 else left + lengths.answer

    def produced(self, now: float) -> None:
        """One more token."""
        self.timeline.produced(self.generated, now, self.request.num_preemptions)
        if self.generated >= self.timeline.lengths.reasoning:
            if self.qoe is None:
                self.qoe = RunningQoE(tau_s=TAU_S, origin_s=now)
            self.qoe.deliver(now)
        self.generated += 1


class SimulatedInstance:
    """One modelled device under a real scheduler."""

    def __init__(self, settings: InstanceSettings, factory: SchedulerFactory, clock: Clock) -> None:
        self.totals = InstanceTotals()
        self.busy = False  # between `begin_step` and `end_step`
        self._factory = factory
        self._clock = clock
        self._steps = settings.profile.step
        self._live: dict[str, Live] = {}
        self._kv_tokens = 0  # of all its requests, wherever their KV is
        self._transfers, self._worker = factory.offload(clock)
        scheduler = self._scheduler = factory.scheduler(clock)
        scheduler.tokens_ahead = lambda request: self._live[request.request_id].tokens_ahead
        if self._transfers is not None:
            scheduler.next_load_s = self._transfers.next_load_s
        self._output: SchedulerOutput
        self._result: ModelRunnerOutput

    def add(self, name: str, timeline: Timeline, measured: bool) -> None:
        """Queue a request, named as no other."""
        request = self._factory.request(name, timeline, self._clock.now)
        self._live[name] = Live(request, timeline, measured)
        self._kv_tokens += timeline.lengths.prompt
        self._scheduler.add_request(request)

    def view(self, name: str) -> InstanceView:
        """What placement sees of it; the footprint in tokens."""
        now = self._clock.now
        return InstanceView(
            instance_id=name,
            within_slo=all(live.within_slo(now) for live in self._live.values()),
            kv_footprint_blocks=self._kv_tokens,
            requests=len(self._live),
        )

    def begin_step(self) -> float | None:
        """Schedule a step and start it; :return: its end, or None if there is nothing to do."""
        now = self._clock.now
        self.busy = self._scheduler.has_requests()
        if not self.busy:
            return None
        output = self._output = self._scheduler.schedule()
        begin_s = now
        if self._worker is not None and self._transfers is not None:
            meta = output.kv_connector_metadata
            assert isinstance(meta, OffloadingConnectorMetadata)
            self._worker.handle_preemptions(meta)
            begin_s = max(now, self._transfers.waited_until_s)
            self._worker.start_kv_transfers(meta)
            self._worker.prepare_store_kv(meta)
        if not output.num_scheduled_tokens:
            self._ends = [now]
            self._result = ModelRunnerOutput(req_ids=[], req_id_to_index={})
            due_s = self._transfers.next_due_s() if self._transfers is not None else None
            # A transfer has ended for who asks after its end; with none, the engine looks again.
            return now + _IDLE_STEP_S if due_s is None else max(due_s, now) + _AFTER_S
        totals = self.totals
        step_s = self._run(output)
        ends = self._ends = self._scheduler.step_ends or [begin_s + step_s]
        totals.steps += len(ends)
        totals.stall_s += begin_s - now
        totals.busy_s += ends[-1] - now
        return ends[-1]

    def end_step(self) -> tuple[dict[float, int], list[Live]]:
        """Take the tokens of the step.

        :return: how many tokens came when, and the requests that are done.
        """
        now = self._clock.now
        if self._worker is not None:
            _, loaded = self._worker.get_finished(set())
            meta = self._worker.build_connector_worker_meta()
            if loaded or meta:
                self._result.kv_connector_output = KVConnectorOutput(
                    finished_recving=loaded or None, kv_connector_worker_meta=meta
                )
        done: list[Live] = []
        ends = self._ends
        requests = 0  # that got a token in each step
        for batch in self._scheduler.update_from_output(self._output, self._result).values():
            for output in batch.outputs:
                if output.new_token_ids:
                    requests += 1
                    produced = self._live[output.request_id].produced
                    for end_s in ends:
                        produced(end_s)
                if output.finish_reason is not None:
                    live = self._live.pop(output.request_id)
                    live.timeline.finished_s = now
                    self._kv_tokens -= live.timeline.lengths.prompt + live.generated
                    done.append(live)
        self._kv_tokens += requests * len(ends)
        self.totals.generated_tokens += requests * len(ends)
        if done:
            stats = self._scheduler.phase_stats()
            self.totals.recomputed_tokens = stats.recomputed_tokens_total
            self.totals.reloaded_tokens = stats.reloaded_tokens_total
        return dict.fromkeys(ends, requests), done

    def _run(self, output: SchedulerOutput) -> float:
        """Script the tokens of a step; :return: seconds that it takes, unless it is a leap."""
        requests, live, totals = self._scheduler.requests, self._live, self.totals
        decodes = decode_kv = prefill = prefill2 = 0
        steps = len(self._scheduler.step_ends) or 1
        words, thought = [_WORD_ID] * steps, [*[_WORD_ID] * (steps - 1), _BOUNDARY_ID]
        tokens: list[list[int]] = []
        for request_id, count in output.num_scheduled_tokens.items():
            request = requests[request_id]
            computed = request.num_computed_tokens  # this step's included
            sampled = _NOTHING
            if not request.is_prefill_chunk:
                mine = live[request_id]
                last = mine.timeline.lengths.reasoning - steps
                sampled = thought if mine.generated == last else words
            tokens.append(sampled)
            if count == steps and sampled:
                decodes += 1
                decode_kv += computed
            else:
                prefill += count
                prefill2 += count * (2 * computed - count)
        ids = list(output.num_scheduled_tokens)
        self._result = ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index={request_id: index for index, request_id in enumerate(ids)},
            sampled_token_ids=tokens,
        )
        totals.computed_tokens += output.total_num_scheduled_tokens
        pool = self._scheduler.kv_cache_manager.block_pool
        used = pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()
        totals.kv_peak_blocks = max(totals.kv_peak_blocks, used)
        return self._steps.seconds(decodes, decode_kv, prefill, prefill2)


_IDLE_STEP_S = 1e-3
_AFTER_S = 1e-6


class SchedulerFactory:
    """Makes what the instances of one simulation consist of."""

    def __init__(self, settings: InstanceSettings) -> None:
        self._settings = settings
        kv = settings.profile.kv
        self._blocks = settings.kv_blocks or kv.blocks
        self._config = _vllm_config(settings, self._blocks)
        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(kv.block_size, sha256)
        self._requests = 0
        self._outputs = StructuredOutputManager(self._config)

    def scheduler(self, clock: Clock) -> SimulatedScheduler:
        """One instance's scheduler."""
        size = self._settings.profile.kv.block_size
        scheduler = SimulatedScheduler(
            vllm_config=self._config,
            kv_cache_config=self._kv_config(),
            structured_output_manager=self._outputs,
            block_size=size,
            hash_block_size=size,
            log_stats=False,
        )
        scheduler.clock = clock
        scheduler.exact = self._settings.exact
        scheduler.leaps = self._settings.leaps and not self._settings.exact
        scheduler.step_times = self._settings.profile.step
        scheduler.next_load_s = lambda: None
        scheduler.prepare()
        return scheduler

    def offload(
        self, clock: Clock
    ) -> tuple[ModelledTransfers | None, OffloadingConnectorWorker | None]:
        """The links of one instance and the connector's worker on them; None without offload."""
        if not self._settings.offload:
            return None, None
        profile = self._settings.profile
        spec = OffloadingSpecFactory.create_spec(
            build_offloading_config(self._config, self._kv_config())
        )
        worker = OffloadingConnectorWorker(spec, self._config, self._kv_config())
        transfers = ModelledTransfers(
            block_bytes=profile.kv.block_size * profile.kv.bytes_per_token,
            bytes_per_s=profile.links.host_bytes_per_s,
            now=clock.read,
        )
        worker.worker = transfers
        return transfers, worker

    def request(self, name: str, timeline: Timeline, now: float) -> Request:
        """vLLM's record of a request whose prompt shares nothing with any other's."""
        self._requests += 1
        lengths = timeline.lengths
        told = {"request_id": name, "phase": "reasoning", "pace": {"tau_s": TAU_S}}
        return Request(
            request_id=name,
            # Of integers, not tokens: no model reads them.
            prompt_token_ids=[
                _FIRST_UNIQUE_ID + self._requests,
                *[_WORD_ID] * (lengths.prompt - 1),
            ],
            sampling_params=SamplingParams(
                max_tokens=lengths.reasoning + lengths.answer,
                ignore_eos=True,
                detokenize=False,
                extra_args={REQUEST_KEY: told},
            ),
            pooling_params=None,
            arrival_time=now,
            block_hasher=self._hasher,
        )

    def _kv_config(self) -> KVCacheConfig:
        kv = self._settings.profile.kv
        spec = FullAttentionSpec(
            block_size=kv.block_size,
            num_kv_heads=kv.heads,
            head_size=kv.head_dim,
            dtype=torch.bfloat16,
        )
        layers = [f"layers.{index}" for index in range(kv.layers)]
        return KVCacheConfig(
            num_blocks=self._blocks,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(layers, spec)],
        )


def _vllm_config(settings: InstanceSettings, blocks: int) -> VllmConfig:
    kv = settings.profile.kv
    most = min(_MAX_MODEL_LEN, (blocks - 1) * kv.block_size)
    config = EngineArgs(
        model=settings.model,
        skip_tokenizer_init=True,
        enforce_eager=True,
        hf_overrides={"max_position_embeddings": most},
        max_model_len=most,
        block_size=kv.block_size,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        enable_prefix_caching=True,
    ).create_engine_config()
    config.cache_config.num_gpu_blocks = blocks
    config.additional_config = {
        CONFIG_KEY: {
            "policy": settings.policy,
            "think_end_token_id": _BOUNDARY_ID,
            **settings.policy_numbers,
        }
    }
    if settings.offload:
        config.kv_transfer_config = kv_transfer_config(
            int(settings.profile.host.offload_bytes), settings.resume
        )
    return config
