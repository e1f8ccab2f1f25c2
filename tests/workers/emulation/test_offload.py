"""Transfers of an emulated device with a scripted connector: their start, their end and stalls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorTransferResults
from vllm.distributed.kv_transfer.kv_connector.v1.offloading_connector import OffloadingConnector
from vllm.v1.kv_offload.base import BlockIDsLoadStoreSpec, GPULoadStoreSpec

from workers.emulation.offload import EmulatedOffload
from workers.emulation.transfers import ModelledTransfers


class Host(BlockIDsLoadStoreSpec):
    pass


def blocks(count: int) -> GPULoadStoreSpec:
    return GPULoadStoreSpec(list(range(count)), group_sizes=[count], block_indices=[0])


class Connector(OffloadingConnector):
    """A connector whose metadata are ``(job, seconds)`` of a store to wait for, and of a load."""

    def __init__(self) -> None:
        self.connector_worker = SimpleNamespace(worker=None)
        self._metadata: dict[str, tuple[int, int]] = {}

    @property
    def transfers(self) -> ModelledTransfers:
        worker = self.connector_worker.worker
        assert isinstance(worker, ModelledTransfers)
        return worker

    def handle_preemptions(self, metadata: dict[str, tuple[int, int]]) -> None:
        if "store" in metadata:
            job, seconds = metadata["store"]
            self.transfers.submit_store(job, blocks(seconds), Host([]))
            self.transfers.wait({job})

    def bind_connector_metadata(self, metadata: dict[str, tuple[int, int]]) -> None:
        self._metadata = metadata

    def clear_connector_metadata(self) -> None:
        self._metadata = {}

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        if "load" in self._metadata:
            job, seconds = self._metadata["load"]
            self.transfers.submit_load(job, Host([]), blocks(seconds))

    def wait_for_save(self) -> None:
        pass

    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        finished = {str(result.job_id) for result in self.transfers.get_finished()}
        return KVConnectorTransferResults(finished_sending=set(), finished_recving=finished)

    def build_connector_worker_meta(self) -> None:
        return None


@pytest.fixture
def offload(monkeypatch: pytest.MonkeyPatch) -> EmulatedOffload:
    """A block takes one second."""
    monkeypatch.setattr(KVConnectorFactory, "create_connector", lambda *_: Connector())
    return EmulatedOffload(None, None, block_bytes=8, bytes_per_s=8.0)


def step(
    offload: EmulatedOffload, start_s: float, step_s: float, **metadata: tuple[int, int]
) -> tuple[float, set[str]]:
    """When the step began, and the jobs that were over when it ended."""
    scheduled: Any = SimpleNamespace(kv_connector_metadata=metadata, finished_req_ids=set())
    began_s = offload.begin(scheduled, start_s)
    output = offload.end(scheduled, began_s, began_s + step_s)
    return began_s, output.finished_recving


def test_a_load_starts_with_its_step_and_is_told_with_the_step_that_outlasts_it(
    offload: EmulatedOffload,
) -> None:
    assert step(offload, 10.0, 2.0, load=(1, 1)) == (10.0, {"1"})
    assert step(offload, 12.0, 2.0, load=(2, 3)) == (12.0, set())
    assert step(offload, 14.0, 0.5) == (14.0, set())
    assert step(offload, 14.5, 1.0) == (14.5, {"2"})


def test_a_step_begins_when_the_blocks_that_it_takes_are_stored(offload: EmulatedOffload) -> None:
    assert step(offload, 10.0, 1.0, store=(1, 3), load=(2, 1)) == (13.0, {"1", "2"})
    assert offload.transfers.stall_s == 3.0
    assert step(offload, 14.0, 1.0) == (14.0, set())


def test_a_step_never_begins_before_the_one_before_it_ends(offload: EmulatedOffload) -> None:
    step(offload, 10.0, 5.0)
    assert step(offload, 11.0, 1.0)[0] == 15.0


def test_other_connectors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KVConnectorFactory, "create_connector", lambda *_: object())
    with pytest.raises(ValueError, match="cannot drive a object"):
        EmulatedOffload(None, None, block_bytes=1, bytes_per_s=1.0)
