"""KV offload of an emulated device: the worker side of vLLM's offloading connector, without KV.

It calls vLLM's own worker code in the same order as a model runner. Only the copies are modelled
(`workers.emulation.transfers`). Times are those of the device: a transfer starts when its step
starts on the device, which may be later than its submission.
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
    """KV offload of one device. For each step call `begin`, then `end`."""

    def __init__(
        self,
        vllm_config: VllmConfig,
        kv_cache_config: KVCacheConfig,
        *,
        block_bytes: int,
        bytes_per_s: float,
    ) -> None:
        """:raises ValueError: if the configured connector is not vLLM's offloading connector."""
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
        """Submit the stores before the step: those of the last step and of preempted requests.

        :param start_s: when the device is free.
        :return: when the step can begin, because blocks taken from a request must be stored first.
        """
        self._now_s = max(self._now_s, start_s)
        self._connector.handle_preemptions(scheduled.kv_connector_metadata)
        return max(self._now_s, self.transfers.waited_until_s)

    def end(self, scheduled: SchedulerOutput, start_s: float, due_s: float) -> KVConnectorOutput:
        """Submit the transfers that run during the step.

        :return: the transfers that are over when the step ends.
        """
        connector = self._connector
        self._now_s = start_s
        connector.bind_connector_metadata(scheduled.kv_connector_metadata)
        connector.start_load_kv(None)  # this connector does not use the forward context
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
