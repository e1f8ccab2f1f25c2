"""The links of an emulated device, on a clock that the test sets."""

from __future__ import annotations

import pytest
from vllm.v1.kv_offload.base import BlockIDsLoadStoreSpec, GPULoadStoreSpec

from workers.emulation.transfers import ModelledTransfers


class HostBlocks(BlockIDsLoadStoreSpec):
    pass


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def transfers(clock: Clock) -> ModelledTransfers:
    """A block takes one second."""
    return ModelledTransfers(block_bytes=1000, bytes_per_s=1000.0, now=clock)


def device(blocks: int) -> GPULoadStoreSpec:
    return GPULoadStoreSpec(list(range(blocks)), group_sizes=[blocks], block_indices=[0])


def host(blocks: int) -> HostBlocks:
    return HostBlocks(list(range(blocks)))


def finished(transfers: ModelledTransfers) -> list[int]:
    results = transfers.get_finished()
    assert all(result.success for result in results)
    return [result.job_id for result in results]


def test_transfers_of_a_direction_queue_and_directions_do_not_disturb_each_other(
    clock: Clock, transfers: ModelledTransfers
) -> None:
    assert transfers.submit_store(1, device(2), host(2))
    assert transfers.submit_store(2, device(3), host(3))
    assert transfers.submit_load(3, host(4), device(4))
    assert transfers.next_due_s() == 2.0
    seen = []
    for second in range(7):
        clock.now = float(second)
        seen += [(second, job_id) for job_id in finished(transfers)]
    assert seen == [(2, 1), (4, 3), (5, 2)]
    assert transfers.next_due_s() is None
    assert (transfers.stored_blocks, transfers.loaded_blocks) == (5, 4)


def test_an_idle_link_starts_at_the_time_of_the_submission(
    clock: Clock, transfers: ModelledTransfers
) -> None:
    transfers.submit_store(1, device(1), host(1))
    clock.now = 10.0
    assert finished(transfers) == [1]
    transfers.submit_store(2, device(1), host(1))
    assert finished(transfers) == []
    assert transfers.next_due_s() == 11.0


def test_result_tells_size_and_time_on_the_link(clock: Clock, transfers: ModelledTransfers) -> None:
    transfers.submit_load(1, host(1), device(1))
    transfers.submit_load(2, host(3), device(3))
    clock.now = 4.0
    results = {result.job_id: result for result in transfers.get_finished()}
    assert results[2].transfer_size == 3000
    assert results[2].transfer_time == pytest.approx(3.0)  # without its time in the queue


def test_waiting_delays_the_device_up_to_the_last_of_the_jobs_once(
    clock: Clock, transfers: ModelledTransfers
) -> None:
    transfers.submit_store(1, device(2), host(2))
    transfers.submit_store(2, device(2), host(2))
    transfers.submit_store(3, device(9), host(9))
    clock.now = 1.0
    transfers.wait({1, 2})
    assert (transfers.waited_until_s, transfers.stall_s) == (4.0, 3.0)
    transfers.wait({2})
    assert (transfers.waited_until_s, transfers.stall_s) == (4.0, 3.0)
    clock.now = transfers.waited_until_s
    assert finished(transfers) == [1, 2]


def test_waiting_for_what_is_over_costs_nothing(clock: Clock, transfers: ModelledTransfers) -> None:
    transfers.submit_store(1, device(2), host(2))
    clock.now = 3.0
    transfers.wait({1, 99})
    assert transfers.stall_s == 0.0
    assert finished(transfers) == [1]
