"""Makes the parts of simulated instances: vLLM's scheduler, KV offload, and requests.

They are made as an engine makes them, for a device that exists only as a `DeviceProfile`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch
from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.config import build_offloading_config
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.worker import (
    OffloadingConnectorWorker,
)
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.kv_offload.factory import OffloadingSpecFactory
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from bench.simulator.defaults import LONGEST, MODEL, PROFILE
from bench.simulator.migration import Network, with_migration
from bench.simulator.scheduler import Clock, SimulatedScheduler
from bench.simulator.timeline import TAU_S
from bench.workloads.lengths import Lengths
from workers.emulation.profile import DeviceProfile, load_profile
from workers.emulation.transfers import ModelledTransfers
from workers.kv.offload import kv_transfer_config
from workers.policy.phase import Markers
from workers.scheduler.plugin import CONFIG_KEY, REQUEST_KEY

# Scripted tokens: any ids work.
BOUNDARY_ID, CALL_ID, CALLED_ID, WORD_ID = 5, 6, 7, 100
_PROMPT_ID = 101  # in the prompts of conversations
_MARKERS = Markers(
    reasoning_ends=((BOUNDARY_ID,),), call_starts=((CALL_ID,),), call_ends=((CALLED_ID,),)
)

_FIRST_UNIQUE_ID = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSettings:
    """Settings of every instance of a simulation."""

    profile: DeviceProfile = field(default_factory=lambda: load_profile(PROFILE))
    # Folder of any model that vLLM can configure: the shape of the KV cache is the profile's.
    model: str = str(MODEL)
    policy: str = "fcfs"
    policy_numbers: Mapping[str, Any] = field(default_factory=dict)
    kv_blocks: int | None = None  # None: the profile's
    offload: bool = True
    resume: str = "auto"  # see `workers.policy.resume_cost.RESUMES`
    max_num_seqs: int = 1024
    max_num_batched_tokens: int = 8192
    watermark: float = 0.0  # share of the KV blocks that vLLM keeps free when it admits requests
    migration: bool = False  # requests can change instances; this needs offload
    exact: bool = False  # no short cut: all of vLLM's work, every step by itself; slower
    leaps: bool = True  # take steps without a decision between them as one


class SchedulerFactory:
    """Makes the parts of the instances of one simulation."""

    def __init__(self, settings: InstanceSettings) -> None:
        self._settings = settings
        kv = settings.profile.kv
        self._blocks = settings.kv_blocks or kv.blocks
        self._config = _vllm_config(settings, self._blocks)
        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(kv.block_size, sha256)
        self.network = Network(settings.profile.links.network_bytes_per_s)
        self._requests = 0
        self._conversations: dict[str, int] = {}
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
        scheduler.look_at_s = lambda: math.inf
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

    def request(
        self, name: str, lengths: Lengths, now: float, conversation: str | None = None
    ) -> Request:
        """vLLM's record of a new request.

        :param conversation: prompts of one conversation share their beginning, up to the shorter
            one's length; no others do.
        :raises ValueError: it is longer than what an instance takes.
        """
        tokens, most = lengths.prompt + lengths.output, self._config.model_config.max_model_len
        if tokens > most:
            raise ValueError(
                f"a request of {tokens} tokens arrives at {now:g} s; an instance takes {most}"
            )
        self._requests += 1
        unique, word = self._requests, WORD_ID
        if conversation is not None:
            unique = self._conversations.setdefault(conversation, unique)
            word = _PROMPT_ID  # what one turn generates is computed again in the next prompt
        # Any integers: no model reads them.
        prompt = [_FIRST_UNIQUE_ID + unique, *[word] * (lengths.prompt - 1)]
        return self._record(name, prompt, lengths.output, "reasoning", now)

    def answering(self, name: str, before: Request, now: float) -> Request:
        """vLLM's record of a request that moved here at its boundary."""
        left = before.max_tokens - before.num_output_tokens
        return self._record(name, list(before.all_token_ids), left, "answering", now)

    def _record(
        self, name: str, prompt: list[int], max_tokens: int, phase: str, now: float
    ) -> Request:
        request_facts = {"request_id": name, "phase": phase, "pace": {"tau_s": TAU_S}}
        return Request(
            request_id=name,
            prompt_token_ids=prompt,
            sampling_params=SamplingParams(
                max_tokens=max_tokens,
                ignore_eos=True,
                detokenize=False,
                extra_args={REQUEST_KEY: request_facts},
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
    most = min(LONGEST, (blocks - 1) * kv.block_size)
    config = EngineArgs(
        model=settings.model,
        skip_tokenizer_init=True,
        enforce_eager=True,
        hf_overrides={"max_position_embeddings": most},
        max_model_len=most,
        block_size=kv.block_size,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        watermark=settings.watermark,
        enable_prefix_caching=True,
    ).create_engine_config()
    config.cache_config.num_gpu_blocks = blocks
    config.additional_config = {
        CONFIG_KEY: {
            "policy": settings.policy,
            "markers": msgspec.to_builtins(_MARKERS),
            **settings.policy_numbers,
        }
    }
    if settings.offload:
        transfer = kv_transfer_config(int(settings.profile.host.offload_bytes), settings.resume)
        config.kv_transfer_config = with_migration(transfer) if settings.migration else transfer
    return config
