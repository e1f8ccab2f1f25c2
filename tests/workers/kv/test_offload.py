"""Host memory for offloaded KV: copies in both directions, and the settings."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from vllm.v1.kv_offload.base import (
    CanonicalKVCacheRef,
    CanonicalKVCaches,
    CanonicalKVCacheTensor,
    GPULoadStoreSpec,
)
from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec

from tests.workers.support.harness import MODEL
from workers.engine.vllm_config import _kv_transfer, reachable_host, vllm_config
from workers.kv.migration import available
from workers.kv.offload import HostMemoryWorker, offloads
from workers.settings import WorkerSettings

BLOCKS, PAGE = 12, 16


def kv_caches(groups: int = 1) -> CanonicalKVCaches:
    """KV memory of two layers per group; the bytes of each block differ."""
    tensors, refs = [], []
    for group in range(groups):
        for layer in range(2):
            values = 50 * (2 * group + layer) + torch.arange(BLOCKS, dtype=torch.int8)
            rows = values[:, None].expand(BLOCKS, PAGE).contiguous()
            tensors.append(CanonicalKVCacheTensor(rows, PAGE))
        refs.append([CanonicalKVCacheRef(2 * group + layer, PAGE) for layer in range(2)])
    return CanonicalKVCaches(tensors, refs)


def first_bytes(caches: CanonicalKVCaches, tensor: int, blocks: list[int]) -> list[int]:
    rows = caches.tensors[tensor].tensor
    assert all(len(set(rows[block].tolist())) == 1 for block in blocks)
    return [int(rows[block][0]) for block in blocks]


def test_a_load_brings_back_what_was_stored() -> None:
    caches = kv_caches()
    worker = HostMemoryWorker(caches, blocks_per_chunk=1, num_chunks=4)
    worker.submit_store(1, GPULoadStoreSpec([3, 7], [2], [0]), CPULoadStoreSpec([2, 0]))
    worker.submit_load(2, CPULoadStoreSpec([0, 2]), GPULoadStoreSpec([5, 6], [2], [0]))
    assert first_bytes(caches, 0, [4, 5, 6]) == [4, 7, 3]
    assert first_bytes(caches, 1, [4, 5, 6]) == [54, 57, 53]
    done = worker.get_finished()
    assert [(one.job_id, one.success, one.transfer_size) for one in done] == [
        (1, True, 4 * PAGE),
        (2, True, 4 * PAGE),
    ]
    assert worker.get_finished() == []


def test_blocks_of_a_chunk_follow_each_other_and_may_begin_in_its_middle() -> None:
    caches = kv_caches()
    worker = HostMemoryWorker(caches, blocks_per_chunk=3, num_chunks=2)
    stored = GPULoadStoreSpec([1, 2, 3, 4, 5, 6], [6], [0])
    worker.submit_store(1, stored, CPULoadStoreSpec([1, 0]))
    # The request's blocks 2, 3 and 4: the last of its first chunk, two of its second.
    worker.submit_load(2, CPULoadStoreSpec([1, 0]), GPULoadStoreSpec([9, 10, 11], [3], [2]))
    assert first_bytes(caches, 0, [8, 9, 10, 11]) == [8, 3, 4, 5]


def test_groups_of_layers_keep_their_own_blocks_and_chunks() -> None:
    caches = kv_caches(groups=2)
    worker = HostMemoryWorker(caches, blocks_per_chunk=2, num_chunks=3)
    worker.submit_store(1, GPULoadStoreSpec([1, 2, 3, 4], [2, 2], [0, 2]), CPULoadStoreSpec([2, 0]))
    worker.submit_load(2, CPULoadStoreSpec([2, 0]), GPULoadStoreSpec([7, 8, 9], [1, 2], [1, 2]))
    assert first_bytes(caches, 0, [7, 8, 9]) == [2, 8, 9]
    assert first_bytes(caches, 2, [7, 8, 9]) == [107, 103, 104]


def test_memory_is_as_large_as_the_chunks_and_no_larger() -> None:
    worker = HostMemoryWorker(kv_caches(), blocks_per_chunk=2, num_chunks=3)
    assert [memory.nbytes for memory in worker.memory] == [3 * 2 * PAGE] * 2
    with pytest.raises(IndexError):
        worker.submit_store(1, GPULoadStoreSpec([1], [1], [0]), CPULoadStoreSpec([3]))
    assert all(memory.dtype == np.int8 for memory in worker.memory)


def settings(gib: float, resume: str) -> WorkerSettings:
    return WorkerSettings(
        instance_id="a",
        listen="unix:/x",
        model=str(MODEL),
        served_model_name="tiny",
        kv_offload_gib=gib,
        kv_resume=resume,
    )


def test_settings_reach_the_connector() -> None:
    transfer = vllm_config(settings(0.25, "reload")).kv_transfer_config
    assert transfer is not None
    extra = transfer.kv_connector_extra_config
    assert extra["cpu_bytes_to_use"] == 2**28
    assert extra["offload_prompt_only"] is False
    assert extra["resume"] == "reload"


@pytest.mark.parametrize(("gib", "resume"), [(0.0, "auto"), (1.0, "recompute")])
def test_without_a_use_for_it_there_is_no_connector(gib: float, resume: str) -> None:
    assert _kv_transfer(settings(gib, resume)) is None
    assert not offloads(vllm_config(settings(gib, resume)))


@pytest.mark.skipif(not available(), reason="NIXL is missing: `make setup` installs it")
def test_kv_that_moves_and_kv_that_is_offloaded_go_together() -> None:
    both = msgspec.structs.replace(settings(0.25, "reload"), kv_migration=True)
    config = vllm_config(both)
    transfer = config.kv_transfer_config
    assert transfer is not None
    assert transfer.kv_connector == "MultiConnector"
    children = transfer.kv_connector_extra_config["connectors"]
    # KV from a ticket comes before KV in host memory.
    names = [child["kv_connector"] for child in children]
    assert names == ["MigrationConnector", "ResumeConnector"]
    assert all("engine_id" not in child for child in children)
    assert offloads(config)
    alone = vllm_config(msgspec.structs.replace(both, kv_offload_gib=0.0))
    assert alone.kv_transfer_config is not None
    assert alone.kv_transfer_config.kv_connector == "MigrationConnector"
    assert not offloads(alone)


def test_kv_of_an_emulated_device_does_not_move() -> None:
    emulated = msgspec.structs.replace(
        settings(0.0, "auto"), kv_migration=True, emulate="h100-qwen32b"
    )
    transfer = _kv_transfer(emulated)
    assert transfer is None or transfer.kv_connector == "ResumeConnector"


@pytest.mark.parametrize(
    ("listen", "host"),
    [("unix:/x", "127.0.0.1"), ("tcp://10.1.2.3:99", "10.1.2.3"), ("tcp://[::1]:99", "::1")],
)
def test_other_engines_find_one_where_the_gateway_does(listen: str, host: str) -> None:
    assert reachable_host(listen) == host


def test_an_engine_that_listens_everywhere_is_found_by_its_own_address() -> None:
    assert reachable_host("tcp://0.0.0.0:99") not in ("0.0.0.0", "")


def test_an_unknown_way_to_resume_is_refused_before_the_model_is_loaded() -> None:
    with pytest.raises(ValueError, match="unknown way to resume 'reloads'; known: auto, reload"):
        vllm_config(settings(1.0, "reloads"))
