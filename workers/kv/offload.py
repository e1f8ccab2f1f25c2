"""KV of preempted requests in host memory: vLLM's offloading connector, made to weigh its cost.

vLLM's `OffloadingConnector` copies every full KV block to host memory while a request runs, and
loads the blocks of a request that lost them. Added here is what it lacks:

    ResumeConnector   claims blocks only where loading them is cheaper than computing them
    HostMemorySpec    the connector's memory where "device" and host are one: the CPU platform

On GPUs the memory is vLLM's own `CPUOffloadingSpec`. `kv_transfer_config` turns it on. When the
memory is full, the blocks that were used longest ago are evicted. Blocks that are not found are
computed again.

The scheduler's side copies nothing and decides by no clock: durations come from the transfers, so
that a simulator can use it with modelled ones.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm.config import KVTransferConfig, VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1 import KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import OffloadingWorkerMetadata
from vllm.distributed.kv_transfer.kv_connector.v1.offloading_connector import OffloadingConnector
from vllm.platforms import current_platform
from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.kv_cache_interface import KVCacheConfig
from vllm.v1.kv_offload.base import (
    CanonicalKVCaches,
    GPULoadStoreSpec,
    LoadStoreSpec,
    OffloadingWorker,
    TransferResult,
)
from vllm.v1.kv_offload.config import OffloadingConfig
from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec
from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec
from vllm.v1.outputs import KVConnectorOutput
from vllm.v1.request import Request

from workers.kv.connectors import may_move
from workers.policy.resume_cost import ResumeCosts

RESUME_KEY = "resume"  # in kv_connector_extra_config: one of `workers.policy.resume_cost.RESUMES`


def kv_transfer_config(host_bytes: int, resume: str) -> KVTransferConfig:
    """Settings that offload all KV, also that of generated tokens, into host memory.

    :param resume: one of `workers.policy.resume_cost.RESUMES`.
    :raises ValueError: for another one.
    """
    ResumeCosts(resume)
    extra: dict[str, Any] = {
        "cpu_bytes_to_use": host_bytes,
        "offload_prompt_only": False,  # else a preempted request finds its prompt only
        RESUME_KEY: resume,
    }
    if current_platform.is_cpu():
        extra |= {"spec_name": HostMemorySpec.__name__, "spec_module_path": __name__}
    return KVTransferConfig(
        kv_connector=ResumeConnector.__name__,
        kv_connector_module_path=__name__,
        kv_role="kv_both",
        kv_connector_extra_config=extra,
    )


def offloads(config: VllmConfig) -> bool:
    """Whether the engine has host memory for KV."""
    transfer = config.kv_transfer_config
    if transfer is None:
        return False
    children = transfer.kv_connector_extra_config.get("connectors", ())
    names = [transfer.kv_connector, *(child["kv_connector"] for child in children)]
    return ResumeConnector.__name__ in names


class ResumeConnector(OffloadingConnector):
    """vLLM's offloading connector, which reloads only what is cheaper to reload."""

    def __init__(
        self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig
    ) -> None:
        """:raises ValueError: for an unknown way to resume."""
        super().__init__(vllm_config, role, kv_cache_config)
        transfer = vllm_config.kv_transfer_config
        assert transfer is not None
        resume = transfer.kv_connector_extra_config.get(RESUME_KEY, "auto")
        self.costs = ResumeCosts(resume if may_move(kv_cache_config) else "recompute")
        self.reloaded_tokens = 0  # after preemptions
        self._bytes_per_token = 0.0  # of one worker
        if role is KVConnectorRole.SCHEDULER:
            groups = kv_cache_config.kv_cache_groups
            self._bytes_per_token = sum(
                len(group.layer_names)
                * group.kv_cache_spec.page_size_bytes
                / group.kv_cache_spec.block_size
                for group in groups
            )

    def moving(self, request_id: str) -> bool:
        """Whether KV of the request is on its way; until it has arrived nothing can be loaded."""
        status = self.scheduler._req_status.get(request_id)
        return status is not None and bool(status.transfer_jobs)

    # ---- vLLM's override points, on the scheduler's side

    def get_num_new_matched_tokens(
        self, request: Request, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        """Claim what host memory holds, unless computing it is cheaper."""
        if self.costs.resume == "recompute":
            tokens, later = 0, False
        else:
            tokens, later = super().get_num_new_matched_tokens(request, num_computed_tokens)
        if tokens and not self.costs.reloads(tokens):
            tokens, later = 0, False
        if tokens == 0:
            # It begins anew, and stores again what memory has lost since.
            for group in self.scheduler._req_status[request.request_id].group_states:
                group.block_ids.clear()
                group.next_stored_chunk_idx = 0
        return tokens, later

    def update_state_after_alloc(
        self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int
    ) -> None:
        """Count what is about to be loaded."""
        super().update_state_after_alloc(request, blocks, num_external_tokens)
        if request.num_preemptions:
            self.reloaded_tokens += num_external_tokens

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        """Learn how long loads took."""
        meta = connector_output.kv_connector_worker_meta
        if isinstance(meta, OffloadingWorkerMetadata) and meta.transfer_stats.load.sizes:
            load = meta.transfer_stats.load
            # Several at once are told apart by their size only; they shared the time.
            tokens = load.bytes / len(load.sizes) / self._bytes_per_token
            self.costs.transferred(round(tokens), load.time / len(load.sizes))
        super().update_connector_output(connector_output)


class HostMemorySpec(CPUOffloadingSpec):
    """vLLM's host memory, which refuses the CPU platform, with copies that work there."""

    def __init__(self, config: OffloadingConfig) -> None:
        """:raises ValueError: if the memory does not hold a single chunk."""
        super().__init__(config)
        if self.kv_bytes_per_chunk and not self.num_chunks:
            raise ValueError(
                f"the memory for KV offload, {self.extra_config['cpu_bytes_to_use']} bytes, "
                f"is less than one chunk of {self.kv_bytes_per_chunk}"
            )

    def get_worker(self, kv_caches: CanonicalKVCaches) -> OffloadingWorker:
        """The worker's side, which holds the memory."""
        return HostMemoryWorker(kv_caches, self.blocks_per_chunk, self.num_chunks)


class HostMemoryWorker(OffloadingWorker):
    """Copies between the KV cache and the memory for offloaded KV, at once, in this thread."""

    def __init__(
        self, kv_caches: CanonicalKVCaches, blocks_per_chunk: int, num_chunks: int
    ) -> None:
        """Reserve the memory; the system provides it when it is first written."""
        self._blocks_per_chunk = blocks_per_chunk
        self._caches: list[NDArray[np.int8]] = []
        self.memory: list[NDArray[np.int8]] = []  # a row per block; a chunk's follow each other
        for cache in kv_caches.tensors:
            rows = cache.tensor.numpy()
            self._caches.append(rows)
            self.memory.append(np.empty((num_chunks * blocks_per_chunk, rows.shape[1]), np.int8))
        # For each group of layers, which of them it uses.
        self._used: list[list[int]] = [
            sorted({ref.tensor_idx for ref in refs}) for refs in kv_caches.group_data_refs
        ]
        self._finished: list[TransferResult] = []

    def submit_store(
        self, job_id: int, src_spec: GPULoadStoreSpec, dst_spec: LoadStoreSpec
    ) -> bool:
        """From the KV cache."""
        began = time.perf_counter()
        copied = 0
        for used, blocks, rows in self._groups(src_spec, dst_spec):
            for index in used:
                self.memory[index][rows] = self._caches[index][blocks]
                copied += len(rows) * self.memory[index].shape[1]
        self._finish(job_id, copied, began)
        return True

    def submit_load(self, job_id: int, src_spec: LoadStoreSpec, dst_spec: GPULoadStoreSpec) -> bool:
        """Into the KV cache."""
        began = time.perf_counter()
        copied = 0
        for used, blocks, rows in self._groups(dst_spec, src_spec):
            for index in used:
                self._caches[index][blocks] = self.memory[index][rows]
                copied += len(rows) * self.memory[index].shape[1]
        self._finish(job_id, copied, began)
        return True

    def get_finished(self) -> list[TransferResult]:
        """All transfers that ended since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def wait(self, job_ids: set[int]) -> None:
        """Return at once: copies are done when they are submitted."""

    def _finish(self, job_id: int, copied: int, began: float) -> None:
        self._finished.append(TransferResult(job_id, True, copied, time.perf_counter() - began))

    def _groups(
        self, blocks: GPULoadStoreSpec, chunks: LoadStoreSpec
    ) -> list[tuple[list[int], NDArray[np.int32], NDArray[np.int32]]]:
        """For each group of layers: the tensors it uses, its blocks, and their rows of the memory.

        The first block of a group may lie anywhere in its chunk: a chunk is several blocks that
        follow each other in the request, and ``block_indices`` says where in it they begin.
        """
        assert isinstance(chunks, CPULoadStoreSpec)
        size = self._blocks_per_chunk
        groups = []
        block, chunk = 0, 0
        for used, count, first in zip(
            self._used, blocks.group_sizes, blocks.block_indices, strict=True
        ):
            if not count:
                continue
            places = np.arange(first % size, first % size + count, dtype=np.int32)
            rows = chunks.chunk_ids[chunk + places // size] * size + places % size
            groups.append((used, blocks.block_ids[block : block + count], rows))
            block += count
            chunk += int(places[-1]) // size + 1
        return groups
