"""Offloaded KV under every policy, with a device that checks every cell before it is read.

Works as `tests.workers.scheduler.test_pipeline`, with vLLM's connector on both sides and transfers
that take any number of steps. A cell of KV memory names its request and token. If a request reads a
cell of another request, or an old one, its KV is wrong, even if its output is right.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from vllm.config import KVTransferConfig, VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.config import build_offloading_config
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.worker import OffloadingConnectorWorker
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_offload.base import (
    GPULoadStoreSpec,
    LoadStoreSpec,
    OffloadingWorker,
    TransferResult,
)
from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec
from vllm.v1.kv_offload.factory import OffloadingSpecFactory
from vllm.v1.outputs import KVConnectorOutput
from vllm.v1.request import RequestStatus

from tests.workers.scheduler.test_pipeline import BLOCK, SLOTS, Pipeline, run_and_check
from tests.workers.support.harness import MODEL
from workers.engine.vllm_config import vllm_config
from workers.kv.offload import ResumeConnector, kv_transfer_config
from workers.policy.settings import POLICIES, PolicySettings
from workers.policy.view import Decision, Memory, RequestView
from workers.scheduler.plugin import PhaseAsyncScheduler, PhaseScheduler
from workers.settings import WorkerSettings

CHUNK_BYTES = 4096  # vLLM rounds the 256 bytes of a block of this model up to a page
PLENTY = 1000 * CHUNK_BYTES


@pytest.fixture(scope="module")
def config() -> VllmConfig:
    return vllm_config(
        WorkerSettings(
            instance_id="a",
            listen="unix:/x",
            model=str(MODEL),
            served_model_name="tiny",
            max_model_len=1024,
            max_num_seqs=SLOTS,
            block_size=BLOCK,
        )
    )


class Links(OffloadingWorker):
    """Makes copies as late as allowed: when it reports that they are done."""

    def __init__(self, rng: random.Random) -> None:
        self.blocks: dict[int, dict[int, tuple[str, int]]] = {}  # block -> place -> whose token
        self.chunks: dict[int, dict[int, tuple[str, int]]] = {}
        self.pending: dict[int, tuple[bool, list[int], list[int]]] = {}
        self.finished: list[TransferResult] = []
        self.rng = rng
        self.loads = 0

    def submit_store(
        self, job_id: int, src_spec: GPULoadStoreSpec, dst_spec: LoadStoreSpec
    ) -> bool:
        assert isinstance(dst_spec, CPULoadStoreSpec)
        self.pending[job_id] = (True, list(src_spec.block_ids), list(dst_spec.chunk_ids))
        return True

    def submit_load(self, job_id: int, src_spec: LoadStoreSpec, dst_spec: GPULoadStoreSpec) -> bool:
        assert isinstance(src_spec, CPULoadStoreSpec)
        self.pending[job_id] = (False, list(dst_spec.block_ids), list(src_spec.chunk_ids))
        self.loads += 1
        return True

    def complete(self, job_id: int) -> None:
        is_store, blocks, chunks = self.pending.pop(job_id)
        for block, chunk in zip(blocks, chunks, strict=True):
            if is_store:
                self.chunks[chunk] = dict(self.blocks[block])
            else:
                self.blocks[block] = dict(self.chunks[chunk])
        self.finished.append(TransferResult(job_id, True, 256 * len(blocks), 1e-4 * len(blocks)))

    def get_finished(self) -> list[TransferResult]:
        for job_id in list(self.pending):
            if self.rng.random() < 0.4:
                break  # each direction is a queue, and so is the sum of both
            self.complete(job_id)
        finished, self.finished = self.finished, []
        return finished

    def wait(self, job_ids: set[int]) -> None:
        for job_id in sorted(job_ids & self.pending.keys()):
            self.complete(job_id)


class OffloadPipeline(Pipeline):
    """A pipeline with host memory, and a device that remembers what was written where."""

    def __init__(
        self,
        kind: type[PhaseScheduler | PhaseAsyncScheduler],
        config: VllmConfig,
        seed: int,
        policy: str,
        transfer: KVTransferConfig,
        **numbers: Any,
    ) -> None:
        super().__init__(kind, config, seed, policy, transfer, **numbers)
        connector = self.scheduler.connector
        assert isinstance(connector, ResumeConnector)
        self.connector = connector
        kv_cache_config = self.scheduler.kv_cache_config
        spec = OffloadingSpecFactory.create_spec(build_offloading_config(config, kv_cache_config))
        self.worker = OffloadingConnectorWorker(spec, config, kv_cache_config)
        self.links = self.worker.worker = Links(random.Random(seed))
        self.aborted_loading = 0

    def execute(self, output: SchedulerOutput) -> KVConnectorOutput:
        metadata = output.kv_connector_metadata
        self.worker.handle_preemptions(metadata)
        for name, count in output.num_scheduled_tokens.items():
            (blocks,) = self.scheduler.kv_cache_manager.get_block_ids(name)
            end = self.scheduler.requests[name].num_computed_tokens
            for place in range(end - count, end):
                cells = self.links.blocks.setdefault(blocks[place // BLOCK], {})
                cells[place % BLOCK] = (name, place)
            if count > 1 or end % 8 == 0:  # always when it comes back, and now and then
                for place in range(end):
                    found = self.links.blocks[blocks[place // BLOCK]].get(place % BLOCK)
                    assert found == (name, place), "somebody else's KV"
        self.worker.start_kv_transfers(metadata)
        self.worker.prepare_store_kv(metadata)
        _, loaded = self.worker.get_finished(output.finished_req_ids)
        return KVConnectorOutput(
            finished_recving=loaded or None,
            kv_connector_worker_meta=self.worker.build_connector_worker_meta(),
        )

    def decide(
        self, settings: PolicySettings, views: list[RequestView], memory: Memory, now: float
    ) -> Decision:
        for r in views:  # vLLM passes over those whose KV is on its way
            assert r.running or not r.ready or not self.connector.moving(r.request_id)
        return super().decide(settings, views, memory, now)

    def loading_requests(self) -> set[str]:
        return {
            r.request_id
            for r in self.scheduler.kv_holding_waiting
            if r.status is RequestStatus.WAITING_FOR_REMOTE_KVS
            and r.request_id not in self.scheduler.finished_recving_kv_req_ids
        }

    def loading(self) -> int:
        return len(self.loading_requests())

    def abortable(self) -> tuple[list[str], float]:
        loading = sorted(self.loading_requests())
        return (loading, 0.1) if loading else super().abortable()

    def held_by_aborted(self) -> int:
        get_blocks = self.scheduler.kv_cache_manager.coordinator.get_blocks
        gone = [name for name, r in self.scheduler.requests.items() if r.is_finished()]
        self.aborted_loading += len(gone)
        return sum(len(get_blocks(name)[0]) for name in gone)

    def may_be_unready(self, request: RequestView) -> bool:
        moving = self.connector.moving(request.request_id)
        return moving or super().may_be_unready(request)

    def admitted(self, decision: Decision) -> set[str]:
        return set()  # they may load first, or wait for blocks that a step in flight still writes


@pytest.mark.parametrize("kind", [PhaseScheduler, PhaseAsyncScheduler])
@pytest.mark.parametrize("policy", POLICIES)
def test_reloaded_kv_is_the_requests_own(
    config: VllmConfig,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[PhaseScheduler | PhaseAsyncScheduler],
    policy: str,
) -> None:
    transfer = kv_transfer_config(PLENTY, "reload")
    pipeline = OffloadPipeline(kind, config, 7, policy, transfer)
    run_and_check(pipeline, monkeypatch, abort=False)
    stats = pipeline.scheduler.phase_stats()
    assert stats.reloaded_tokens_total == pipeline.connector.reloaded_tokens > 0
    # Only tokens of incomplete blocks are recomputed.
    assert stats.recomputed_tokens_total <= stats.preemptions_total * 2 * BLOCK


@pytest.mark.parametrize("policy", POLICIES)
def test_no_abort_while_kv_moves_spoils_a_stream_or_leaks_a_block(
    config: VllmConfig, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    aborted_loading = 0
    for seed in range(4):
        transfer = kv_transfer_config(PLENTY, "reload")
        pipeline = OffloadPipeline(PhaseAsyncScheduler, config, seed, policy, transfer)
        run_and_check(pipeline, monkeypatch, abort=True)
        aborted_loading += pipeline.aborted_loading
        assert pipeline.links.loads > 0
        assert not pipeline.links.pending
    assert aborted_loading > 0


@pytest.mark.parametrize("policy", ["rr", "slack"])
def test_what_host_memory_has_no_room_for_is_computed_again(
    config: VllmConfig, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    room = 60  # chunks, where the requests fill 180
    transfer = kv_transfer_config(room * CHUNK_BYTES, "reload")
    pipeline = OffloadPipeline(PhaseScheduler, config, 7, policy, transfer)
    run_and_check(pipeline, monkeypatch, abort=False)
    assert {*pipeline.links.chunks} <= {*range(room)}
    stats = pipeline.scheduler.phase_stats()
    assert stats.recomputed_tokens_total > stats.preemptions_total * BLOCK
    assert stats.reloaded_tokens_total > 0  # some were still there


def test_nothing_is_loaded_where_computing_is_cheaper(
    config: VllmConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = kv_transfer_config(PLENTY, "auto")
    pipeline = OffloadPipeline(PhaseScheduler, config, 7, "slack", transfer)
    costs = pipeline.connector.costs
    for _ in range(100):
        costs.reload.observe(BLOCK, 10.0)
        costs.recompute.observe(BLOCK, 0.001)
    run_and_check(pipeline, monkeypatch, abort=False)
    stats = pipeline.scheduler.phase_stats()
    assert stats.reloaded_tokens_total < 0.2 * stats.recomputed_tokens_total
