from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from workers.engine.forced_lengths import ForcedLengths, LengthsProcessor, ThinkingBudget
from workers.policy.phase import Phase, PhaseTracker, ThinkMarkers
from workers.scheduler.plugin import CONFIG_KEY, REQUEST_KEY

START, END, EOS = 3, 4, 2
MARKERS = ThinkMarkers(START, END)
VOCABULARY = 12


@given(st.integers(1, 30), st.integers(0, 30), st.randoms())
def test_forced_lengths_come_out_whatever_the_model_wants(
    reasoning: int, answer: int, rng: Any
) -> None:
    forced = ForcedLengths(reasoning, MARKERS, (EOS,))
    output: list[int] = []
    for _ in range(reasoning + answer):
        constraint = forced.next(output)
        wish = rng.choice([START, END, EOS, *range(5, VOCABULARY)])
        if constraint.only is not None:
            wish = constraint.only
        elif wish in constraint.never:
            wish = rng.choice([i for i in range(VOCABULARY) if i not in constraint.never])
        output.append(wish)
    tracker = PhaseTracker(Phase.REASONING, END)
    assert tracker.feed(output) == reasoning - 1
    assert output.count(END) == 1
    assert EOS not in output
    assert START not in output[1:]


def test_thoughts_may_begin_with_their_marker() -> None:
    assert START not in ForcedLengths(5, MARKERS, (EOS,)).next([]).never
    assert START in ForcedLengths(5, MARKERS, (EOS,)).next([7]).never
    assert START in ForcedLengths(0, MARKERS, (EOS,)).next([]).never  # an answer only


def test_budget_ends_the_thoughts_in_time_and_then_leaves_the_model_alone() -> None:
    budget = ThinkingBudget(3, END)
    assert budget.next([]).only is None
    assert budget.next([7]).only is None
    assert budget.next([7, 7]).only == END
    assert budget.next([7, 7, END]).only is None
    assert budget.next([7, 7, END, 7, 7, 7]).only is None


def test_budget_is_not_needed_when_the_model_ends_earlier() -> None:
    budget = ThinkingBudget(4, END)
    assert [budget.next(([7, END] + [7] * 9)[:length]).only for length in range(11)] == [None] * 11


def processor() -> LengthsProcessor:
    phase = {"think_start_token_id": START, "think_end_token_id": END, "ending_token_ids": [EOS]}
    config: Any = SimpleNamespace(additional_config={CONFIG_KEY: phase})
    return LengthsProcessor(config, torch.device("cpu"), False)


def params(**told: Any) -> SamplingParams:
    return SamplingParams(extra_args={REQUEST_KEY: told} if told else None)


def allowed(row: torch.Tensor) -> set[int]:
    return {int(token_id) for token_id in torch.nonzero(torch.isfinite(row))}


def test_rows_follow_their_requests_through_the_batch() -> None:
    lengths = processor()
    forced_output: list[int] = [7]
    added: list[Any] = [
        (0, params(), [1], []),
        (1, params(forced_reasoning=2, forced_answer=3), [1], forced_output),
        (2, params(thinking_budget=9), [1], []),
    ]
    lengths.update_state(BatchUpdate(3, removed=[], added=added, moved=[]))
    rows = lengths.apply(torch.zeros(3, VOCABULARY))
    everything = set(range(VOCABULARY))
    assert [allowed(row) for row in rows] == [everything, {END}, everything]

    # The first request leaves and the forced one takes its row.
    moved = [(1, 0, MoveDirectionality.UNIDIRECTIONAL)]
    lengths.update_state(BatchUpdate(2, removed=[0], added=[], moved=moved))
    forced_output.append(END)
    rows = lengths.apply(torch.zeros(2, VOCABULARY))
    assert allowed(rows[0]) == everything - {START, END, EOS}
    assert allowed(rows[1]) == everything


def test_request_without_wishes_is_not_touched() -> None:
    lengths = processor()
    added: list[Any] = [(0, params(), [1], [])]
    lengths.update_state(BatchUpdate(1, removed=[], added=added, moved=[]))
    assert torch.equal(lengths.apply(torch.ones(1, VOCABULARY)), torch.ones(1, VOCABULARY))


def test_lengths_hold_for_greedy_requests_too() -> None:
    assert not processor().is_argmax_invariant()


@pytest.mark.parametrize(
    "told",
    [
        [],
        "forced_answer",
        7,
        {"forced_answer": 1, "forced_reasoning": "many"},
        {"forced_answer": 1, "forced_reasoning": None},
        {"thinking_budget": [1]},
    ],
)
def test_what_would_make_a_step_raise_is_refused(told: object) -> None:
    """Clients of a stock server can send any value, and an error in a step ends the engine."""
    with pytest.raises(ValueError, match="extra_args: pascal"):
        LengthsProcessor.validate_params(SamplingParams(extra_args={REQUEST_KEY: told}))
    for good in (None, {}, {"forced_answer": 1}, {"thinking_budget": 3}):
        LengthsProcessor.validate_params(SamplingParams(extra_args={REQUEST_KEY: good}))
