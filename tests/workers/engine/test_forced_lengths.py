from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from workers.engine.forced_lengths import ForcedLengths, LengthsProcessor, ThinkingBudget
from workers.policy.phase import Channels, Markers, Phase, PhaseTracker
from workers.scheduler.plugin import CONFIG_KEY, REQUEST_KEY

START, END, EOS = 3, 4, 2
MARKERS = Markers.of_thoughts(START, END)
VOCABULARY = 12
HEADER, CHANNEL, MESSAGE, MESSAGE_END = 20, 21, 22, 23
ANALYSIS, FINAL, ASSISTANT, OTHER = 30, 31, 32, 33
HARMONY = Markers(
    channels=Channels(HEADER, CHANNEL, MESSAGE, ((ANALYSIS,),), ((FINAL,),)),
    opening=(CHANNEL, ANALYSIS, MESSAGE),
    closing=(MESSAGE_END, HEADER, ASSISTANT, CHANNEL, FINAL, MESSAGE),
)


@given(st.integers(1, 30), st.integers(0, 30), st.randoms())
def test_forced_lengths_come_out_whatever_the_model_wants(
    reasoning: int, answer: int, rng: Any
) -> None:
    forced = ForcedLengths(reasoning, answer, (), MARKERS, (EOS,))
    output: list[int] = []
    for _ in range(reasoning + answer):
        constraint = forced.next(output)
        wish = rng.choice([START, END, EOS, *range(5, VOCABULARY)])
        if constraint.only is not None:
            wish = constraint.only
        elif wish in constraint.never:
            wish = rng.choice([i for i in range(VOCABULARY) if i not in constraint.never])
        output.append(wish)
    tracker = PhaseTracker(MARKERS, Phase.REASONING)
    assert tracker.feed(output) == ((reasoning, Phase.ANSWERING),)
    assert output.count(END) == 1
    assert EOS not in output
    assert START not in output[1:]


def test_thoughts_may_begin_with_their_marker() -> None:
    assert START not in ForcedLengths(5, 9, (), MARKERS, (EOS,)).next([]).never
    assert START in ForcedLengths(5, 9, (), MARKERS, (EOS,)).next([7]).never
    assert START in ForcedLengths(0, 9, (), MARKERS, (EOS,)).next([]).never  # an answer only


def test_budget_ends_the_thoughts_in_time_and_then_leaves_the_model_alone() -> None:
    budget = ThinkingBudget(3, MARKERS, Phase.REASONING)
    assert budget.next([]).only is None
    assert budget.next([7]).only is None
    assert budget.next([7, 7]).only == END
    assert budget.next([7, 7, END]).only is None
    assert budget.next([7, 7, END, 7, 7, 7]).only is None


def test_budget_is_not_needed_when_the_model_ends_earlier() -> None:
    budget = ThinkingBudget(4, MARKERS, Phase.REASONING)
    assert [budget.next(([7, END] + [7] * 9)[:length]).only for length in range(11)] == [None] * 11


def test_a_budget_ends_thoughts_with_several_tokens_within_it() -> None:
    budget = ThinkingBudget(5, Markers(reasoning_ends=((7, 8, 9),)), Phase.REASONING)
    assert [budget.next([6] * count).only for count in range(3)] == [None, None, 7]
    assert budget.next([6, 6, 7]).only == 8
    assert budget.next([6, 6, 7, 8]).only == 9
    assert budget.next([6, 6, 7, 8, 9]).only is None


def test_an_end_that_has_begun_is_finished_also_on_another_engine() -> None:
    markers = Markers(reasoning_ends=((7, 8, 9),))
    assert ThinkingBudget(3, markers, Phase.REASONING).next([6, 7, 8]).only == 9
    moved = ThinkingBudget(1, markers, Phase.REASONING, [6, 6, 7, 8])
    assert moved.next([]).only == 9
    assert moved.next([9]).only is None


def test_a_budget_never_ends_thoughts_inside_a_call() -> None:
    markers = Markers(((START,),), ((END,),), ((5,),), ((6,),), implicit=True, reopens=True)
    budget = ThinkingBudget(4, markers, Phase.REASONING)
    output = [7, 5]  # the call ends the thoughts before the budget does
    while len(output) < 9:
        assert budget.next(output).only is None
        output.append(7)
    output += [6, START]
    assert budget.next(output).only is None  # one token of thoughts is left
    assert budget.next([*output, 7]).only == END


def test_thoughts_that_open_again_past_the_budget_are_closed_at_once() -> None:
    markers = Markers(((START,),), ((END,),), reopens=True)
    budget = ThinkingBudget(2, markers, Phase.REASONING)
    assert budget.next([7, END, 7]).only is None
    assert budget.next([7, END, 7, START]).only == END


def test_without_tokens_that_end_them_thoughts_have_no_bound() -> None:
    budget = ThinkingBudget(1, Markers(text_only=True), Phase.REASONING)
    assert budget.next([7] * 9).only is None


def test_forced_thoughts_end_with_all_tokens_of_their_end() -> None:
    markers = Markers(((START,),), ((7, 8),), closing=(6, 7, 8))
    forced = ForcedLengths(5, 2, (), markers, (EOS,))
    only = [forced.next([9] * count).only for count in range(7)]
    assert only == [None, None, 6, 7, 8, None, None]
    assert forced.next([9]).never == (EOS, START, 8)


def test_forced_thoughts_of_channels_have_the_headers_around_them() -> None:
    forced = ForcedLengths(11, 2, (), HARMONY, (EOS,))
    only = [forced.next([9] * count).only for count in range(13)]
    assert only == [*HARMONY.opening, None, None, *HARMONY.closing, None, None]
    assert forced.next([9] * 4).never == (EOS, HEADER, CHANNEL, MESSAGE)
    moved = ForcedLengths(9, 2, (), HARMONY, (EOS,), known=2)
    assert [moved.next([9] * count).only for count in range(2)] == [MESSAGE, None]


def test_a_budget_ends_thoughts_by_a_header_but_leaves_an_open_one_to_the_model() -> None:
    budget = ThinkingBudget(8, HARMONY, Phase.REASONING)
    output: list[int] = []
    for token in HARMONY.opening:  # the budget is used up by what it takes to end them
        assert budget.next(output).only is None
        output.append(token)
    for token in HARMONY.closing:
        assert budget.next(output).only == token
        output.append(token)
    assert budget.next(output).only is None
    began = [*HARMONY.opening, 9, MESSAGE_END, HEADER, ASSISTANT, CHANNEL]
    assert ThinkingBudget(8, HARMONY, Phase.REASONING).next(began).only == FINAL
    assert ThinkingBudget(8, HARMONY, Phase.REASONING).next([*began, OTHER]).only is None
    again = [*began, ANALYSIS, MESSAGE]
    assert ThinkingBudget(8, HARMONY, Phase.REASONING).next(again).only == MESSAGE_END


def test_a_forced_call_follows_the_answer_token_by_token() -> None:
    forced = ForcedLengths(2, 1, (5, 9, 6), MARKERS, (EOS,))
    only = [forced.next([9] * count).only for count in range(7)]
    assert only == [None, END, None, 5, 9, 6, None]
    at_once = ForcedLengths(0, 0, (5, 6), MARKERS, (EOS,))
    assert [at_once.next([9] * count).only for count in range(2)] == [5, 6]


def test_no_call_opens_in_a_forced_answer() -> None:
    markers = Markers(((START,),), ((END,),), ((5,),), ((6,),))
    assert set(ForcedLengths(0, 3, (), markers, (EOS,)).next([9]).never) == {START, END, EOS, 5, 6}


def processor() -> LengthsProcessor:
    phase = {"markers": msgspec.to_builtins(MARKERS), "ending_token_ids": [EOS]}
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
        {"thinking_budget": 1, "known_tokens": "all"},
        {"thinking_budget": 1, "phase": "dreaming"},
        {"forced_answer": 1, "forced_call": 3},
        {"forced_answer": 1, "forced_call": ["<tool_call>"]},
    ],
)
def test_what_would_make_a_step_raise_is_refused(told: object) -> None:
    """Clients of a stock server can send any value, and an error in a step ends the engine."""
    with pytest.raises(ValueError, match="extra_args: pascal"):
        LengthsProcessor.validate_params(SamplingParams(extra_args={REQUEST_KEY: told}))
    for good in (None, {}, {"forced_answer": 1}, {"thinking_budget": 3}):
        LengthsProcessor.validate_params(SamplingParams(extra_args={REQUEST_KEY: good}))


@pytest.mark.parametrize(("calls", "third"), [(True, None), (False, END)])
def test_what_opens_no_call_does_not_end_the_budget(calls: bool, third: int | None) -> None:
    markers = Markers(((START,),), ((END,),), ((5,),), ((6,),), implicit=True)
    phase = {"markers": msgspec.to_builtins(markers), "ending_token_ids": [EOS]}
    config: Any = SimpleNamespace(additional_config={CONFIG_KEY: phase})
    lengths = LengthsProcessor(config, torch.device("cpu"), False)
    added: list[Any] = [(0, params(thinking_budget=3, calls=calls), [1], [7, 5])]
    lengths.update_state(BatchUpdate(1, removed=[], added=added, moved=[]))
    (row,) = lengths.apply(torch.zeros(1, VOCABULARY))
    assert allowed(row) == (set(range(VOCABULARY)) if third is None else {third})
