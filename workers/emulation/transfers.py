"""KV transfers of an emulated device: vLLM's offloading worker with a clock instead of a bus.

Decides only when a transfer is over; no bytes move. vLLM's own `OffloadingConnectorWorker` submits
the transfers that its scheduler side decided. So vLLM decides to store one step late, to flush at
preemption, and which host blocks to use. Each direction has its own link, which is first in, first
out. Knows neither executor nor simulator: both pass in their clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from vllm.v1.kv_offload.base import (
    GPULoadStoreSpec,
    LoadStoreSpec,
    OffloadingWorker,
    TransferResult,
)


@dataclass(frozen=True, slots=True)
class _Transfer:
    job_id: int
    size: int  # bytes
    due_s: float


@dataclass(slots=True)
class _Link:
    """The link in one direction."""

    bytes_per_s: float
    blocks: int = 0  # submitted so far
    free_at_s: float = float("-inf")  # when all submitted transfers are over
    pending: deque[_Transfer] = field(default_factory=deque)

    def submit(self, job_id: int, blocks: int, size: int, now: float) -> None:
        self.blocks += blocks
        self.free_at_s = max(now, self.free_at_s) + size / self.bytes_per_s
        self.pending.append(_Transfer(job_id, size, self.free_at_s))

    def take_finished(self, now: float) -> list[TransferResult]:
        finished = []
        while self.pending and self.pending[0].due_s <= now:
            done = self.pending.popleft()
            finished.append(
                TransferResult(done.job_id, True, done.size, done.size / self.bytes_per_s)
            )
        return finished


class ModelledTransfers(OffloadingWorker):
    """The `OffloadingWorker` of one emulated instance.

    The caller must not start a step before `waited_until_s`.
    """

    def __init__(self, *, block_bytes: int, bytes_per_s: float, now: Callable[[], float]) -> None:
        """Create idle links.

        :param block_bytes: KV bytes of one device block in all layers.
        :param bytes_per_s: payload rate of each direction.
        :param now: clock in seconds, which must not go back.
        """
        self.stall_s = 0.0  # total time that the device waited for transfers
        self.waited_until_s = float("-inf")  # end of the last transfer that the device waits for
        self._block_bytes = block_bytes
        self._now = now
        self._store = _Link(bytes_per_s)
        self._load = _Link(bytes_per_s)

    @property
    def stored_blocks(self) -> int:
        """Device blocks submitted so far for storing on the host."""
        return self._store.blocks

    @property
    def loaded_blocks(self) -> int:
        """Device blocks submitted so far for loading from the host."""
        return self._load.blocks

    def next_due_s(self) -> float | None:
        """When the next transfer ends, for callers without a step in flight; None if none runs."""
        heads = [link.pending[0].due_s for link in (self._store, self._load) if link.pending]
        return min(heads, default=None)

    def next_load_s(self) -> float | None:
        """When the next transfer to the device ends; None if none runs."""
        return self._load.pending[0].due_s if self._load.pending else None

    # ---- vLLM's interface

    def submit_store(
        self, job_id: int, src_spec: GPULoadStoreSpec, dst_spec: LoadStoreSpec
    ) -> bool:
        """Begin a transfer from the device to the host."""
        return self._submit(self._store, job_id, src_spec)

    def submit_load(self, job_id: int, src_spec: LoadStoreSpec, dst_spec: GPULoadStoreSpec) -> bool:
        """Begin a transfer from the host to the device."""
        return self._submit(self._load, job_id, dst_spec)

    def get_finished(self) -> list[TransferResult]:
        """Return the transfers that have ended since the last call."""
        now = self._now()
        return self._store.take_finished(now) + self._load.take_finished(now)

    def wait(self, job_ids: set[int]) -> None:
        """Make the device wait for these jobs: set `waited_until_s`. The call does not sleep."""
        waiting_from_s = max(self._now(), self.waited_until_s)
        until_s = max(
            (
                transfer.due_s
                for link in (self._store, self._load)
                for transfer in link.pending
                if transfer.job_id in job_ids
            ),
            default=waiting_from_s,
        )
        if until_s > waiting_from_s:
            self.stall_s += until_s - waiting_from_s
            self.waited_until_s = until_s

    def _submit(self, link: _Link, job_id: int, device: GPULoadStoreSpec) -> bool:
        blocks = len(device.block_ids)
        link.submit(job_id, blocks, blocks * self._block_bytes, self._now())
        return True
