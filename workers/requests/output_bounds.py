"""From a `Submit` and its rendered prompt to what the engine and the stream need.

Decides which requests are wrong, the bound on their output that holds, and how much of every count
is left when part of the output is known already (a request that goes on here after another
instance died). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.errors import RequestRejected
from workers.messages import ForcedLengths, Submit
from workers.policy.phase import Markers, Phase, PhaseTracker
from workers.requests.chat_template import Prompt


@dataclass(frozen=True, slots=True)
class OutputBounds:
    """All counts are in tokens; those of the engine begin after the known output."""

    phase: Phase  # of the next token
    left: int  # what of it is left; 0: the known output is complete already
    thinking_budget: int | None
    forced_reasoning: int | None
    forced_answer: int | None
    forced_total: int | None  # length of the whole output, if it was prescribed
    forced_call: int = 0  # how many tokens of a prescribed call are left


def output_bounds(
    submit: Submit, prompt: Prompt, markers: Markers | None, max_model_len: int
) -> OutputBounds:
    """:raises RequestRejected: naming the offending field of the submit."""
    check_values(submit)
    known = submit.known_token_ids
    progress = PhaseTracker(markers, prompt.phase)
    progress.feed(known)
    room = max_model_len - len(prompt.token_ids)
    forced = submit.forced_lengths
    if forced is not None:
        return _forced(submit, forced, prompt, progress, room)
    bound = min(submit.sampling.max_tokens or room, room)
    budget = submit.sampling.thinking_budget
    if budget is not None:
        # The boundary belongs to the budget; past it, it comes as soon as it can.
        budget = max(1, budget - progress.reasoning_tokens)
    return OutputBounds(
        phase=progress.phase,
        left=max(0, bound - len(known)),
        thinking_budget=budget if progress.phase is Phase.REASONING else None,
        forced_reasoning=None,
        forced_answer=None,
        forced_total=None,
    )


def check_values(submit: Submit) -> None:
    """Check what vLLM does not see; :raises RequestRejected: naming the field."""
    sampling = submit.sampling
    if submit.prompt is not None:
        if submit.messages or submit.tools:
            raise _wrong("prompt", "a prompt comes instead of messages and tools")
    elif not submit.messages:
        raise _wrong("messages", "messages must contain at least one message")
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise _wrong(
            "sampling.max_tokens", f"max_tokens must be at least 1, got {sampling.max_tokens}"
        )
    if sampling.thinking_budget is not None and sampling.thinking_budget < 1:
        raise _wrong(
            "sampling.thinking_budget",
            f"thinking_budget must be at least 1, got {sampling.thinking_budget}: "
            "the end-of-thinking token counts",
        )
    if not all(sampling.stop):
        raise _wrong("sampling.stop", "stop must not contain an empty string")
    if not submit.pace.possible:
        raise _wrong("pace.tau_s", f"tau_s must be seconds above 0, got {submit.pace.tau_s}")


def _forced(
    submit: Submit, forced: ForcedLengths, prompt: Prompt, progress: PhaseTracker, room: int
) -> OutputBounds:
    reasoning, answer, call = forced.reasoning_tokens, forced.answer_tokens, forced.call_tokens
    total = reasoning + answer + call
    if call < 0:
        raise _wrong("forced_lengths.call_tokens", f"call_tokens must not be {call}")
    if call and not submit.tools:
        raise _wrong("forced_lengths.call_tokens", "without tools there is nothing to call")
    starts_reasoning = prompt.phase is Phase.REASONING
    if (reasoning > 0) != starts_reasoning or reasoning < 0:
        raise _wrong(
            "forced_lengths.reasoning_tokens",
            f"reasoning_tokens must be {'at least 1' if starts_reasoning else '0'} for this "
            f"request, got {reasoning}",
        )
    if answer < 0 or total < 1:
        raise _wrong("forced_lengths.answer_tokens", f"answer_tokens must not be {answer} here")
    if total > room:
        raise RequestRejected(
            "context_length_exceeded",
            f"the forced lengths add up to {total} tokens, and the prompt leaves room for {room}",
            "forced_lengths",
        )
    limit = submit.sampling.max_tokens
    if limit is not None and limit < total:
        raise _wrong(
            "sampling.max_tokens", f"the forced lengths add up to {total} tokens, got {limit}"
        )
    thinks = progress.phase is Phase.REASONING
    left_reasoning = reasoning - progress.reasoning_tokens if thinks else 0
    left_answer, left_call = answer - progress.answering_tokens, call
    if call:  # where it begins is known, whether or not its markers are tokens
        answered = len(submit.known_token_ids) - (0 if thinks else reasoning)
        left_answer = answer if thinks else max(0, answer - answered)
        left_call = call if thinks else call - max(0, answered - answer)
    if (thinks and left_reasoning < 1) or left_answer < 0 or left_call < 0:
        raise _wrong("known_token_ids", "the known output is longer than the forced lengths")
    left = left_reasoning + left_answer + left_call
    return OutputBounds(
        phase=progress.phase,
        left=left,
        thinking_budget=None,
        forced_reasoning=left_reasoning,
        forced_answer=left_answer,
        forced_total=len(submit.known_token_ids) + left,
        forced_call=left_call,
    )


def _wrong(param: str, message: str) -> RequestRejected:
    return RequestRejected("invalid_value", message, param)
