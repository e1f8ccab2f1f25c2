"""What the dispatcher makes of vLLM's requests: which lack only memory, and what resuming costs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.request import RequestStatus

from workers.policy.resume_cost import ResumeCosts
from workers.policy.settings import PolicySettings
from workers.scheduler.dispatch import Dispatcher


def made() -> Dispatcher:
    """A dispatcher without an engine."""
    spec = SimpleNamespace(block_size=32)
    scheduler: Any = SimpleNamespace(
        max_num_scheduled_tokens=64,
        connector=None,
        finished_recving_kv_req_ids={"loaded"},
        kv_cache_config=SimpleNamespace(
            kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec)],
        ),
    )
    return Dispatcher(scheduler, PolicySettings(policy="slack"), {})


@pytest.mark.parametrize(
    ("request_id", "status", "stale", "dropped", "ready"),
    [
        ("a", RequestStatus.WAITING, 0, False, True),
        ("a", RequestStatus.PREEMPTED, 0, False, True),
        ("a", RequestStatus.PREEMPTED, 1, False, False),
        ("a", RequestStatus.PREEMPTED, 1, True, True),
        ("a", RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR, 0, False, False),
        ("a", RequestStatus.WAITING_FOR_STREAMING_REQ, 0, False, False),
        ("a", RequestStatus.WAITING_FOR_REMOTE_KVS, 0, False, False),
        ("loaded", RequestStatus.WAITING_FOR_REMOTE_KVS, 0, False, True),
    ],
)
def test_memory_is_made_only_for_requests_that_lack_nothing_else(
    request_id: str, status: RequestStatus, stale: int, dropped: bool, ready: bool
) -> None:
    request: Any = SimpleNamespace(
        request_id=request_id,
        status=status,
        num_stale_output_tokens=stale,
        drop_stale_output=dropped,
    )
    assert made()._ready(request) == ready


@pytest.mark.parametrize(
    ("changed", "fit"),
    [
        ({}, True),
        ({"free": 11}, False),  # 4 requests, a step of 64 tokens in blocks of 32, the watermark
        ({"max_num_active_reqs": 3}, False),
        ({"num_spec_tokens": 3}, False),  # 8 tokens of running requests instead of 2
        ({"_inflight_prefills": {"a"}}, False),
    ],
)
def test_nothing_is_to_be_decided_where_the_next_step_admits_all(
    changed: dict[str, Any], fit: bool
) -> None:
    dispatcher = made()
    changed = dict(changed)
    free = changed.pop("free", 12)
    scheduler: Any = dispatcher._scheduler
    scheduler.running = [SimpleNamespace()] * 2
    scheduler._inflight_prefills = set()
    scheduler.num_spec_tokens = 0
    scheduler.num_waiting_for_streaming_input = 0
    scheduler.max_num_active_reqs = 4
    scheduler.kv_cache_manager = SimpleNamespace(watermark_blocks=5)
    for name, value in changed.items():
        setattr(scheduler, name, value)
    waiting: Any = [SimpleNamespace(num_tokens=31)] * 2
    assert dispatcher._all_fit(waiting, free) == fit


def test_resuming_costs_what_the_measured_model_says_where_there_is_one() -> None:
    dispatcher = made()
    assert dispatcher._resume_s(1000) == pytest.approx(0.1)  # the setting
    offload: Any = SimpleNamespace(costs=ResumeCosts("reload"))
    dispatcher._offload = offload
    assert dispatcher._resume_s(1000) == pytest.approx(0.1)  # nothing measured yet
    offload.costs.transferred(100, 0.003)
    assert dispatcher._resume_s(1000) == pytest.approx(0.03)


def test_a_request_whose_kv_is_on_its_way_is_not_ready() -> None:
    dispatcher = made()
    offload: Any = SimpleNamespace(moving=lambda request_id: request_id == "a")
    dispatcher._offload = offload
    for request_id, ready in (("a", False), ("b", True)):
        request: Any = SimpleNamespace(
            request_id=request_id, status=RequestStatus.PREEMPTED, num_stale_output_tokens=0
        )
        assert dispatcher._ready(request) == ready
