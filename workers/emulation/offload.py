"""KV offload of an emulated device: the worker's side of vLLM's offloading connector, without KV.

vLLM's own worker code runs, in the order in which a model runner calls it; only the copies are
modelled (`workers.emulation.transfers`). It lives in the device's time: a transfer starts when the
step it came with starts on the device, which may be later than the engine said so.
"""

from __future__ import annotations

from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.v1 import KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.offloading_connector import OffloadingConnector
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import KVCacheConfig
from vllm.v1.outputs import KVConnectorOutput

from workers.emulation.transfers import ModelledTransfers


class EmulatedOffload:
    """One device's. For every step: `begin`, then `end`."""

    def __init__(
        self,
        vllm_config: VllmConfig,
        kv_cache_config: KVCacheConfig,
        *,
        block_bytes: int,
        bytes_per_s: float,
    ) -> None:
        """:raises ValueError: if the configured connector is not vLLM's for offloading."""
        connector = KVConnectorFactory.create_connector(
            vllm_config, KVConnectorRole.WORKER, kv_cache_config
        )
        if not isinstance(connector, OffloadingConnector):
            raise ValueError(f"an emulated device cannot drive a {type(connector).__name__}")
        self._now_s = float("-inf")
        self.transfers = ModelledTransfers(
            block_bytes=block_bytes, bytes_per_s=bytes_per_s, now=lambda: self._now_s
        )
        assert connector.connector_worker is not None
        connector.connector_worker.worker = self.transfers
        self._connector = connector

    def begin(self, scheduled: SchedulerOutput, start_s: float) -> float:
        """Submit what must go before the step: stores of the step before, and of blocks it loses.

        :param start_s: when the device could begin.
        :return: when it can: blocks that are taken from a request must have been stored.
        """
        self._now_s = max(self._now_s, start_s)
        self._connector.handle_preemptions(scheduled.kv_connector_metadata)
        return max(self._now_s, self.transfers.waited_until_s)

    def end(self, scheduled: SchedulerOutput, start_s: float, due_s: float) -> KVConnectorOutput:
        """Submit what goes along with the step; :return: what is over when the step is."""
        connector = self._connector
        self._now_s = start_s
        connector.bind_connector_metadata(scheduled.kv_connector_metadata)
        connector.start_load_kv(None)  # its forward context is of no use to this connector
        connector.wait_for_save()
        self._now_s = due_s
        results = connector.get_transfer_results(scheduled.finished_req_ids)
        output = KVConnectorOutput(
            finished_sending=results.finished_sending,
            finished_recving=results.finished_recving,
            kv_connector_worker_meta=connector.build_connector_worker_meta(),
        )
        connector.clear_connector_metadata()
        return output
