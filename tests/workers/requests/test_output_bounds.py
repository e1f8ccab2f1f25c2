from __future__ import annotations

from typing import Any

import pytest

from workers.errors import RequestRejected
from workers.messages import ChatMessage, ForcedLengths, Pace, Sampling, Submit
from workers.policy.phase import Markers, Phase
from workers.requests.chat_template import Prompt
from workers.requests.output_bounds import output_bounds

MARKERS = Markers.of_thoughts(3, 4)
REASONING = Prompt((1,) * 100, Phase.REASONING)
ANSWERING = Prompt((1,) * 100, Phase.ANSWERING)
CONTEXT = 1000


def submit(sampling: Sampling = Sampling(), **fields: Any) -> Submit:
    turns = (ChatMessage(role="user", content="Hi"),)
    values: dict[str, Any] = {
        "request_id": "a",
        "messages": turns,
        "sampling": sampling,
        "pace": Pace(tau_s=0.1),
    }
    return Submit(**(values | fields))


def forced(reasoning: int, answer: int, call: int = 0) -> ForcedLengths:
    return ForcedLengths(reasoning_tokens=reasoning, answer_tokens=answer, call_tokens=call)


def test_output_may_fill_the_context() -> None:
    bounds = output_bounds(submit(), REASONING, MARKERS, CONTEXT)
    assert (bounds.left, bounds.phase) == (900, Phase.REASONING)


@pytest.mark.parametrize(("asked", "bound"), [(50, 50), (900, 900), (901, 900)])
def test_bound_is_the_smaller_of_wish_and_room(asked: int, bound: int) -> None:
    assert (
        output_bounds(submit(Sampling(max_tokens=asked)), REASONING, MARKERS, CONTEXT).left == bound
    )


def test_known_output_counts() -> None:
    message = submit(Sampling(max_tokens=10, thinking_budget=8), known_token_ids=(7, 7, 7))
    bounds = output_bounds(message, REASONING, MARKERS, CONTEXT)
    assert (bounds.left, bounds.thinking_budget) == (7, 5)


def test_known_output_with_the_boundary_continues_in_the_answer() -> None:
    message = submit(Sampling(thinking_budget=2), known_token_ids=(7, 4, 7))
    bounds = output_bounds(message, REASONING, MARKERS, CONTEXT)
    assert (bounds.phase, bounds.thinking_budget) == (Phase.ANSWERING, None)


def test_budget_that_is_used_up_ends_the_thoughts_at_once() -> None:
    message = submit(Sampling(thinking_budget=2), known_token_ids=(7, 7, 7))
    assert output_bounds(message, REASONING, MARKERS, CONTEXT).thinking_budget == 1


def test_complete_known_output_leaves_nothing() -> None:
    message = submit(Sampling(max_tokens=3), known_token_ids=(7, 7, 7))
    assert output_bounds(message, REASONING, MARKERS, CONTEXT).left == 0


def test_forced_lengths() -> None:
    bounds = output_bounds(submit(forced_lengths=forced(20, 30)), REASONING, MARKERS, CONTEXT)
    assert (bounds.left, bounds.forced_total) == (50, 50)
    assert (bounds.forced_reasoning, bounds.forced_answer) == (20, 30)


@pytest.mark.parametrize(
    ("known", "reasoning_left", "answer_left"),
    [((7,) * 5, 15, 30), ((7,) * 19 + (4,), 0, 30), ((7,) * 19 + (4,) + (7,) * 10, 0, 20)],
)
def test_forced_lengths_with_known_output(
    known: tuple[int, ...], reasoning_left: int, answer_left: int
) -> None:
    message = submit(forced_lengths=forced(20, 30), known_token_ids=known)
    bounds = output_bounds(message, REASONING, MARKERS, CONTEXT)
    assert (bounds.forced_reasoning, bounds.forced_answer) == (reasoning_left, answer_left)
    assert bounds.left == reasoning_left + answer_left
    assert bounds.forced_total == 50


TOOLS = ({"type": "function", "function": {"name": "clock"}},)


@pytest.mark.parametrize(
    ("known", "left"),
    [
        (0, (5, 3, 8)),
        (4, (1, 3, 8)),
        (5, (0, 3, 8)),
        (7, (0, 1, 8)),
        (8, (0, 0, 8)),
        (11, (0, 0, 5)),
    ],
)
def test_a_forced_call_follows_the_forced_answer(known: int, left: tuple[int, int, int]) -> None:
    """Whether or not the format of the call has tokens of its own."""
    output = ((7,) * 4 + (4,) + (7,) * 11)[:known]
    message = submit(forced_lengths=forced(5, 3, 8), known_token_ids=output, tools=TOOLS)
    bounds = output_bounds(message, REASONING, MARKERS, CONTEXT)
    assert (bounds.forced_reasoning, bounds.forced_answer, bounds.forced_call) == left
    assert (bounds.left, bounds.forced_total) == (sum(left), 16)


@pytest.mark.parametrize(
    ("message", "prompt", "code", "param"),
    [
        (submit(messages=()), REASONING, "invalid_value", "messages"),
        (submit(Sampling(max_tokens=0)), REASONING, "invalid_value", "sampling.max_tokens"),
        (submit(Sampling(stop=("a", ""))), REASONING, "invalid_value", "sampling.stop"),
        (
            submit(Sampling(thinking_budget=0)),
            REASONING,
            "invalid_value",
            "sampling.thinking_budget",
        ),
        (
            submit(forced_lengths=forced(0, 5)),
            REASONING,
            "invalid_value",
            "forced_lengths.reasoning_tokens",
        ),
        (
            submit(forced_lengths=forced(5, 5)),
            ANSWERING,
            "invalid_value",
            "forced_lengths.reasoning_tokens",
        ),
        (
            submit(forced_lengths=forced(5, -1)),
            REASONING,
            "invalid_value",
            "forced_lengths.answer_tokens",
        ),
        (
            submit(forced_lengths=forced(5, 1, 9)),
            REASONING,
            "invalid_value",
            "forced_lengths.call_tokens",
        ),
        (
            submit(forced_lengths=forced(5, 1, -9), tools=TOOLS),
            REASONING,
            "invalid_value",
            "forced_lengths.call_tokens",
        ),
        (
            submit(forced_lengths=forced(500, 401)),
            REASONING,
            "context_length_exceeded",
            "forced_lengths",
        ),
        (
            submit(Sampling(max_tokens=9), forced_lengths=forced(5, 5)),
            REASONING,
            "invalid_value",
            "sampling.max_tokens",
        ),
        (
            submit(forced_lengths=forced(2, 5), known_token_ids=(7, 7)),
            REASONING,
            "invalid_value",
            "known_token_ids",
        ),
    ],
)
def test_wrong_values_are_named(message: Submit, prompt: Prompt, code: str, param: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        output_bounds(message, prompt, MARKERS, CONTEXT)
    assert (caught.value.code, caught.value.param) == (code, param)
