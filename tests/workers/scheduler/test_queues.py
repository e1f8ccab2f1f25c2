"""The place of a request in the queues: quanta, calls, and when its reader runs dry."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.messages import Pace
from workers.policy.phase import Markers, Phase, PhaseTracker
from workers.policy.settings import PolicySettings
from workers.policy.view import HIGH_QUEUE, LOW_QUEUE
from workers.scheduler.queues import Queues
from workers.scheduler.request_state import PhaseState, QueueState

END = 4
PACE = Pace(tau_s=0.5)
THINKER = Markers.of_thoughts(None, END)


class Case:
    """One request in the queues of a policy."""

    def __init__(
        self,
        policy: str,
        pace: Pace | None = PACE,
        phase: Phase = Phase.REASONING,
        markers: Markers = THINKER,
        **numbers: Any,
    ) -> None:
        settings = PolicySettings(policy=policy, quantum_tokens=10, demotion_tokens=15, **numbers)
        self.queues = Queues(settings)
        self.state = PhaseState(PhaseTracker(markers, phase), None, pace)
        self.queues.arrived(self.state, None, 100.0)

    @property
    def queue_state(self) -> QueueState:
        assert self.state.queue_state is not None
        return self.state.queue_state

    def produce(self, *token_ids: int, now: float = 100.0) -> None:
        before = self.state.tracker.phase
        self.state.tracker.feed(token_ids)
        self.queues.produced(self.state, len(token_ids), before, now)

    def dry_at(self) -> float | None:
        return self.queues.dry_at(self.state)


def test_the_boundary_is_decided_upon_at_once() -> None:
    case = Case("slack")
    case.queues.review_at = 105.0  # there are many others
    case.produce(9, now=101.0)
    assert case.queues.review_at == 105.0
    case.produce(END, now=102.0)
    assert case.queues.review_at == 102.0


def test_the_next_decision_comes_later_for_many_but_before_readers_are_in_danger() -> None:
    queues = Case("slack").queues

    def pause_s(requests: int) -> float:
        queues.plan_review(requests, 100.0)
        return queues.review_at - 100.0

    assert pause_s(1) == pause_s(600) == 0.25
    assert pause_s(1000) == pytest.approx(0.4)
    assert pause_s(10_000) == 0.5  # a quarter of the low-water mark


def test_what_happens_among_many_is_decided_upon_a_little_later() -> None:
    case = Case("slack")
    case.queues.plan_review(1000, 100.0)
    case.produce(END, now=100.01)
    assert case.queues.review_at == pytest.approx(100.2)
    case.queues.paced(case.state, Pace(tau_s=0.2), 100.3)
    assert case.queues.review_at == pytest.approx(100.2)  # it is due
    case.queues.plan_review(10_000, 101.0)
    case.queues.paced(case.state, Pace(tau_s=0.1), 101.1)
    assert case.queues.review_at == 101.5  # never later than planned


def test_arrivals_and_other_paces_are_decided_upon_at_once() -> None:
    case = Case("slack")
    case.queues.review_at = 105.0
    case.queues.paced(case.state, Pace(tau_s=0.2), 103.0)
    assert case.queues.review_at == 103.0
    case.queues.review_at = 105.0
    case.queues.arrived(case.state, None, 104.0)
    assert case.queues.review_at == 104.0


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
    case.queues.preempted(case.state, 105.0)
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
    case.queues.paced(case.state, Pace(tau_s=1.0), 101.0)  # two tokens left
    assert case.dry_at() == pytest.approx(103.0)
    case.queues.paced(case.state, Pace(tau_s=1.0, paused=True), 102.0)
    assert case.dry_at() is None
    case.queues.paced(case.state, Pace(tau_s=1.0), 110.0)
    assert case.dry_at() == pytest.approx(111.0)


def test_a_reader_who_never_reads_never_runs_dry() -> None:
    case = Case("slack", Pace(tau_s=0.5, paused=True))
    case.produce(END)
    assert case.dry_at() is None
    case.produce(9)
    assert case.dry_at() is None


def test_an_unknown_reader_reads_at_the_papers_pace() -> None:
    case = Case("slack", pace=None, phase=Phase.ANSWERING)
    assert case.dry_at() == pytest.approx(100.25)
    case.produce(9, 9, now=100.0)
    assert case.dry_at() == pytest.approx(100.2)


# ---- calls, and thoughts that open again

START, CALL, CALLED = 3, 5, 6
AGENT = Markers(((START,),), ((END,),), ((CALL,),), ((CALLED,),), reopens=True, implicit=True)


def agent(policy: str = "slack", phase: Phase = Phase.REASONING, **numbers: Any) -> Case:
    return Case(policy, phase=phase, markers=AGENT, **numbers)


@pytest.mark.parametrize("policy", ["rr", "pascal", "slack"])
def test_a_call_after_thoughts_is_more_of_the_same(policy: str) -> None:
    case = agent(policy)
    case.produce(9, 9, 9)
    before = case.queue_state.position, case.queue_state.queue, case.queue_state.quanta
    case.queues.review_at = 105.0
    case.produce(CALL, 9, now=101.0)
    assert case.queue_state.phase is Phase.CALLING
    now = case.queue_state.position, case.queue_state.queue, case.queue_state.quanta
    assert now == before
    assert case.queue_state.left_tokens == 5
    assert case.queues.review_at == 105.0


@pytest.mark.parametrize("opener", [CALL, START])
def test_an_answer_that_turns_joins_the_high_queue_at_its_end(opener: int) -> None:
    case = agent("pascal", phase=Phase.ANSWERING)
    case.produce(9, 9, now=101.0)
    first = case.queue_state.position
    assert case.queue_state.queue == LOW_QUEUE
    case.queues.review_at = 105.0
    case.produce(opener, now=102.0)
    assert (case.queue_state.queue, case.queue_state.position) == (HIGH_QUEUE, first + 1)
    assert case.queue_state.left_tokens == 10
    assert case.queues.review_at == 102.0
    assert case.dry_at() is None  # its reader waits for nothing


def test_quanta_of_thoughts_count_on_after_an_answer() -> None:
    case = agent()
    case.produce(*[9] * 12)
    assert case.queue_state.quanta == 1
    case.produce(END, *[9] * 3)
    assert case.queue_state.quanta == 0
    case.produce(CALL)
    assert case.queue_state.quanta == 1


def test_calls_and_thoughts_together_are_demoted() -> None:
    case = agent("pascal")
    case.produce(*[9] * 10)
    case.produce(CALL, 9, 9, 9)
    assert case.queue_state.queue == HIGH_QUEUE
    case.produce(9)
    assert case.queue_state.queue == LOW_QUEUE


def test_the_first_tokens_after_a_call_count_as_part_of_it() -> None:
    case = agent("pascal", after_call_tokens=3)
    case.produce(CALL, 9)
    case.produce(CALLED)
    assert case.queue_state.phase is Phase.CALLING
    case.produce(9)
    case.produce(9)
    assert (case.queue_state.phase, case.queue_state.queue) == (Phase.CALLING, HIGH_QUEUE)
    assert case.state.quiet == 1
    case.produce(9)
    assert (case.queue_state.phase, case.queue_state.queue) == (Phase.ANSWERING, LOW_QUEUE)


def test_a_second_call_soon_after_the_first_changes_nothing() -> None:
    case = agent()
    case.produce(CALL, 9)
    first = case.queue_state.position
    case.produce(CALLED)
    case.produce(9)
    case.produce(CALL)
    assert case.queue_state.phase is Phase.CALLING
    assert case.queue_state.position == first
    assert case.queue_state.after_call == 0


def test_an_answer_after_a_call_begins_with_what_its_reader_has_left() -> None:
    case = agent(phase=Phase.ANSWERING, after_call_tokens=0)
    case.produce(*[9] * 6, now=100.0)  # read at 103
    case.produce(CALL, 9, now=101.0)
    case.produce(CALLED, now=102.0)
    assert case.dry_at() == pytest.approx(103.0)


def test_an_answer_after_a_long_thought_is_due_at_once() -> None:
    case = agent(phase=Phase.ANSWERING)
    case.produce(*[9] * 6, now=100.0)
    case.produce(START, 9, now=101.0)
    case.produce(END, now=130.0)
    assert case.dry_at() == pytest.approx(130.0)
    case.produce(9, 9, now=130.0)
    assert case.dry_at() == pytest.approx(131.0)


def test_a_text_that_ends_with_its_first_token_leaves_a_reader() -> None:
    case = agent()
    case.produce(END, 9, CALL, now=100.0)
    case.produce(CALLED, 9, now=110.0)  # the one token was read at 100.5
    assert case.queue_state.reader is not None
    assert case.queue_state.reader.dry_at(2) == pytest.approx(110.5)


def test_a_first_answer_after_a_call_is_due_within_the_ttfat_target() -> None:
    case = agent(after_call_tokens=0)
    case.produce(CALL, 9, now=100.0)
    assert case.dry_at() is None
    case.produce(CALLED, now=110.0)
    assert case.dry_at() == pytest.approx(110.25)


def test_calls_are_answers_where_that_is_to_be_compared() -> None:
    case = agent(phase=Phase.REASONING, calls="answering")
    case.produce(9, CALL, now=100.0)
    assert case.queue_state.phase is Phase.ANSWERING
    assert case.queue_state.queue == LOW_QUEUE
    case.produce(9, 9, 9, now=100.0)  # with the first, four tokens to read
    assert case.dry_at() == pytest.approx(102.0)
    position = case.queue_state.position
    case.produce(CALLED, 9, now=101.0)
    assert case.dry_at() == pytest.approx(103.0)
    assert (case.queue_state.position, case.queue_state.after_call) == (position, 0)


def test_a_phase_that_only_text_shows_is_told() -> None:
    case = Case("slack", markers=Markers(text_only=True))
    case.produce(9, 9)
    case.state.tracker.turn(Phase.ANSWERING)
    case.queues.turned(case.state, Phase.REASONING, 101.0)
    assert case.queue_state.queue == LOW_QUEUE
    assert case.dry_at() == pytest.approx(101.25)
    assert case.state.quiet == 1  # the first token of text starts the reader's clock


@given(
    st.lists(st.lists(st.sampled_from([9, END, START, CALL, CALLED]), max_size=4), max_size=40),
    st.sampled_from(["slack", "pascal", "rr"]),
    st.sampled_from(["calling", "answering"]),
)
def test_tokens_that_the_policy_need_not_see_change_nothing(
    feeds: list[list[int]], policy: str, calls: str
) -> None:
    """A request whose quiet tokens are only counted is where one is that sees every token."""
    seen, quiet = agent(policy, calls=calls), agent(policy, calls=calls)
    for step, token_ids in enumerate(feeds):
        now = 100.0 + step
        seen.produce(*token_ids, now=now)
        unseen = quiet.state.unseen + len(token_ids)
        if unseen < quiet.state.quiet and AGENT.watched.isdisjoint(token_ids):
            quiet.state.unseen = unseen
        else:
            quiet.state.settle()
            quiet.produce(*token_ids, now=now)
    seen.state.settle()
    quiet.state.settle()
    for name in ("phase", "queue", "quanta", "left_tokens", "run_tokens", "after_call"):
        assert getattr(seen.queue_state, name) == getattr(quiet.queue_state, name), name
    assert seen.dry_at() == quiet.dry_at()


def test_another_policy_finds_each_request_where_it_would_have_put_it() -> None:
    case = Case("rr")
    case.produce(*[9] * 17, now=101.0)
    before = case.queue_state
    assert before.queue == HIGH_QUEUE
    position = before.position
    case.queues.review_at = 105.0
    case.queues.change(
        PolicySettings(policy="pascal", quantum_tokens=10, demotion_tokens=15), [case.state]
    )
    assert case.queue_state is before
    assert (before.queue, before.position > position) == (LOW_QUEUE, True)
    assert (before.view, case.queues.review_at) == (None, 0.0)  # it decides in the next step
    with pytest.raises(ValueError, match="calls"):
        case.queues.change(PolicySettings(policy="slack", calls="answering"), [case.state])


def test_a_request_joins_with_its_quanta_and_its_reader() -> None:
    # 23 thoughts, then 12 tokens of text since 103.0.
    case = Case("slack")
    case.produce(*[9] * 22, END, now=102.0)
    case.produce(*[9] * 12, now=103.0)
    state = PhaseState(case.state.tracker, None, PACE, text_since=103.0)
    queues = Queues(PolicySettings(policy="slack", quantum_tokens=10, demotion_tokens=15))
    joined = queues.joined(state, 104.0)
    assert joined.phase is Phase.ANSWERING
    assert (joined.urgent_quanta, joined.quanta, joined.left_tokens) == (2, 1, 8)
    assert queues.dry_at(state) == case.dry_at() == pytest.approx(103.0 + 12 * 0.5)

    thinking = PhaseState(PhaseTracker(THINKER, Phase.REASONING), None, PACE)
    thinking.tracker.feed([9] * 17)
    joined = queues.joined(thinking, 104.0)
    assert (joined.quanta, joined.left_tokens, joined.queue) == (1, 3, HIGH_QUEUE)
    assert queues.dry_at(thinking) is None

    waiting = PhaseState(PhaseTracker(THINKER, Phase.ANSWERING), None, PACE, text_since=103.5)
    queues.joined(waiting, 104.0)
    assert queues.dry_at(waiting) == pytest.approx(103.5 + PolicySettings().ttfat_s)

    paused = PhaseState(case.state.tracker, None, Pace(tau_s=0.5, paused=True), text_since=103.0)
    queues.joined(paused, 104.0)
    assert queues.dry_at(paused) is None
