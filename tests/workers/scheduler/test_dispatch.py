"""The state that the dispatcher keeps for a request: its queue state, and its reader's underrun."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.request import RequestStatus

from workers.messages import Pace
from workers.policy.phase import Phase, PhaseTracker
from workers.policy.resume_cost import ResumeCosts
from workers.policy.settings import PolicySettings
from workers.policy.view import HIGH_QUEUE, LOW_QUEUE
from workers.scheduler.dispatch import Dispatcher
from workers.scheduler.request_state import PhaseState, QueueState

END = 4
PACE = Pace(tau_s=0.5)


class Case:
    """One request with a dispatcher that has no engine."""

    def __init__(
        self, policy: str, pace: Pace | None = PACE, phase: Phase = Phase.REASONING
    ) -> None:
        spec = SimpleNamespace(block_size=32)
        scheduler: Any = SimpleNamespace(
            max_num_scheduled_tokens=64,
            connector=None,
            finished_recving_kv_req_ids={"loaded"},
            kv_cache_config=SimpleNamespace(
                kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec)],
            ),
        )
        settings = PolicySettings(policy=policy, quantum_tokens=10, demotion_tokens=15)
        self.dispatcher = Dispatcher(scheduler, settings, {})
        self.state = PhaseState(PhaseTracker(phase, END), None, pace)
        request: Any = SimpleNamespace(priority=0)
        self.dispatcher.arrived(request, self.state, None, 100.0)

    @property
    def queue_state(self) -> QueueState:
        assert self.state.queue_state is not None
        return self.state.queue_state

    def produce(self, *token_ids: int, now: float = 100.0) -> None:
        crossed = self.state.tracker.feed(token_ids) is not None
        self.dispatcher.produced(self.state, len(token_ids), crossed, now)

    def dry_at(self) -> float | None:
        return self.dispatcher._dry_at(self.state, self.queue_state)


def test_the_boundary_is_decided_upon_at_once() -> None:
    case = Case("slack")
    case.dispatcher.review_at = 105.0  # there are many others
    case.produce(9, now=101.0)
    assert case.dispatcher.review_at == 105.0
    case.produce(END, now=102.0)
    assert case.dispatcher.review_at == 102.0


def test_the_next_decision_comes_later_for_many_but_before_readers_are_in_danger() -> None:
    dispatcher = Case("slack").dispatcher

    def pause_s(requests: int) -> float:
        dispatcher._plan_review(requests, 100.0)
        return dispatcher.review_at - 100.0

    assert pause_s(1) == pause_s(600) == 0.25
    assert pause_s(1000) == pytest.approx(0.4)
    assert pause_s(10_000) == 0.5  # a quarter of the low-water mark


def test_what_happens_among_many_is_decided_upon_a_little_later() -> None:
    case = Case("slack")
    case.dispatcher._plan_review(1000, 100.0)
    case.produce(END, now=100.01)
    assert case.dispatcher.review_at == pytest.approx(100.2)
    case.dispatcher.paced(case.state, Pace(tau_s=0.2), 100.3)
    assert case.dispatcher.review_at == pytest.approx(100.2)  # it is due
    case.dispatcher._plan_review(10_000, 101.0)
    case.dispatcher.paced(case.state, Pace(tau_s=0.1), 101.1)
    assert case.dispatcher.review_at == 101.5  # never later than planned


def test_arrivals_and_other_paces_are_decided_upon_at_once() -> None:
    case = Case("slack")
    case.dispatcher.review_at = 105.0
    case.dispatcher.paced(case.state, Pace(tau_s=0.2), 103.0)
    assert case.dispatcher.review_at == 103.0
    case.dispatcher.review_at = 105.0
    request: Any = SimpleNamespace(priority=0)
    case.dispatcher.arrived(request, case.state, None, 104.0)
    assert case.dispatcher.review_at == 104.0


def test_a_quantum_used_up_is_a_new_ticket() -> None:
    case = Case("rr")
    first = case.queue_state.position
    case.produce(*[9] * 9)
    assert (case.queue_state.position, case.queue_state.quanta, case.queue_state.left_tokens) == (
        first,
        0,
        1,
    )
    case.produce(9)
    assert (case.queue_state.position, case.queue_state.quanta, case.queue_state.left_tokens) == (
        first + 1,
        1,
        10,
    )


@pytest.mark.parametrize("policy", ["rr", "pascal", "slack"])
def test_the_boundary_begins_a_turn_unless_the_policy_is_blind_to_it(policy: str) -> None:
    case = Case(policy)
    first = case.queue_state.position
    case.produce(9, 9, END)
    blind = policy == "rr"
    assert case.queue_state.queue == (HIGH_QUEUE if blind else LOW_QUEUE)
    assert (case.queue_state.position == first) == blind
    assert case.queue_state.left_tokens == (7 if blind else 10)


def test_quanta_are_counted_anew_in_the_answer() -> None:
    case = Case("slack")
    case.produce(*[9] * 12)
    assert case.queue_state.quanta == 1
    case.produce(END)
    assert case.queue_state.quanta == 0


def test_long_reasoning_is_demoted_once() -> None:
    case = Case("pascal")
    for _ in range(14):
        case.produce(9)
    assert case.queue_state.queue == HIGH_QUEUE
    case.produce(9)
    demoted = case.queue_state.position
    assert (case.queue_state.queue, case.queue_state.left_tokens) == (LOW_QUEUE, 10)
    case.produce(9)
    assert case.queue_state.position == demoted


def test_a_preemption_ends_the_run_but_not_the_turn() -> None:
    case = Case("slack")
    case.produce(9, 9, 9)
    case.dispatcher.preempted(case.state, 105.0)
    assert (case.queue_state.run_tokens, case.queue_state.waiting_since) == (0, 105.0)
    assert case.queue_state.left_tokens == 7


def test_the_buffer_runs_dry_tokens_times_pace_after_the_first() -> None:
    case = Case("slack")
    assert case.dry_at() is None
    case.produce(9, END, now=101.0)
    assert case.dry_at() == pytest.approx(101.25)  # the first token is due within the TTFAT target
    case.produce(9, now=101.5)
    assert case.dry_at() == pytest.approx(101.5 + 0.5)
    case.produce(9, 9, 9, now=101.6)
    assert case.dry_at() == pytest.approx(101.5 + 4 * 0.5)


def test_corrections_move_the_end_of_the_buffer() -> None:
    case = Case("slack", phase=Phase.ANSWERING)
    case.produce(9, 9, 9, 9, now=100.0)  # 2 s to read
    case.dispatcher.paced(case.state, Pace(tau_s=1.0), 101.0)  # two tokens left
    assert case.dry_at() == pytest.approx(103.0)
    case.dispatcher.paced(case.state, Pace(tau_s=1.0, paused=True), 102.0)
    assert case.dry_at() is None
    case.dispatcher.paced(case.state, Pace(tau_s=1.0), 110.0)
    assert case.dry_at() == pytest.approx(111.0)


def test_a_reader_who_never_reads_never_runs_dry() -> None:
    case = Case("slack", Pace(tau_s=0.5, paused=True))
    case.produce(END)
    assert case.dry_at() is None
    case.produce(9)
    assert case.dry_at() is None


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
    assert Case("slack").dispatcher._ready(request) == ready


def test_an_unknown_reader_reads_at_the_papers_pace() -> None:
    case = Case("slack", pace=None, phase=Phase.ANSWERING)
    assert case.dry_at() == pytest.approx(100.25)
    case.produce(9, 9, now=100.0)
    assert case.dry_at() == pytest.approx(100.2)


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
    case = Case("slack")
    changed = dict(changed)
    free = changed.pop("free", 12)
    scheduler: Any = case.dispatcher._scheduler
    scheduler.running = [SimpleNamespace()] * 2
    scheduler._inflight_prefills = set()
    scheduler.num_spec_tokens = 0
    scheduler.num_waiting_for_streaming_input = 0
    scheduler.max_num_active_reqs = 4
    scheduler.kv_cache_manager = SimpleNamespace(watermark_blocks=5)
    for name, value in changed.items():
        setattr(scheduler, name, value)
    waiting: Any = [SimpleNamespace(num_tokens=31)] * 2
    assert case.dispatcher._all_fit(waiting, free) == fit


def test_resuming_costs_what_the_measured_model_says_where_there_is_one() -> None:
    dispatcher = Case("slack").dispatcher
    assert dispatcher._resume_s(1000) == pytest.approx(0.1)  # the setting
    offload: Any = SimpleNamespace(costs=ResumeCosts("reload"))
    dispatcher._offload = offload
    assert dispatcher._resume_s(1000) == pytest.approx(0.1)  # nothing measured yet
    offload.costs.transferred(100, 0.003)
    assert dispatcher._resume_s(1000) == pytest.approx(0.03)


def test_a_request_whose_kv_is_on_its_way_is_not_ready() -> None:
    dispatcher = Case("slack").dispatcher
    offload: Any = SimpleNamespace(moving=lambda request_id: request_id == "a")
    dispatcher._offload = offload
    for request_id, ready in (("a", False), ("b", True)):
        request: Any = SimpleNamespace(
            request_id=request_id, status=RequestStatus.PREEMPTED, num_stale_output_tokens=0
        )
        assert dispatcher._ready(request) == ready
