"""Logits processor: exact lengths for load tests, and an upper bound on thinking.

Decides which token may come next for requests that ask for it under `REQUEST_KEY` in
``SamplingParams.extra_args``; all counts are from the first token the engine generates:

    forced_reasoning, forced_answer   exact number of tokens of each phase
    forced_call                       ids of the tokens that follow them: a call
    thinking_budget                   most reasoning tokens, with those that end the thoughts

The budget follows the phases as the scheduler does, by `workers.policy.phase`. So it never ends
thoughts inside a call, which vLLM's own ``thinking_token_budget`` does (vLLM issue 44676); it also
serves models that write no start of thinking, and continues exactly on another engine.

State is computed from the live list of output tokens, so preemption does not disturb it. This is
the interface of vLLM's V1 model runner. Its V2 runner (GPUs only) has another one, so the worker
starts the engine with V1.

Pass it to vLLM as ``logits_processors=["workers.engine.forced_lengths:LengthsProcessor"]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from workers.policy.phase import Markers, Phase, PhaseTracker
from workers.scheduler.plugin import REQUEST_KEY, markers_of, phase_config

_FORBIDDEN = float("-inf")
_NUMBERS = ("forced_reasoning", "forced_answer", "thinking_budget", "known_tokens")


@dataclass(frozen=True, slots=True)
class Constraint:
    """What may be sampled next: one token only, or all but some."""

    only: int | None = None
    never: Sequence[int] = ()


_FREE = Constraint()


class Lengths(Protocol):
    """What one request asks for."""

    def next(self, output: Sequence[int]) -> Constraint:
        """:param output: the tokens so far."""


class ForcedLengths:
    """One request with exact lengths: thoughts, an answer, a call; each may have no token.

    The thoughts may begin with the start of thinking, which many models write themselves.
    """

    def __init__(
        self,
        reasoning: int,
        answer: int,
        call: Sequence[int],
        markers: Markers | None,
        ending: Sequence[int],
        known: int = 0,
    ) -> None:
        """:param call: its tokens.

        :param ending: tokens that end or garble a text, the markers not among them.
        :param known: how many tokens other engines have written.
        """
        markers = markers or Markers()
        self._reasoning, self._answer, self._call = reasoning, answer, call
        # A header must open the thoughts. Where a marker does, the model may write it or not.
        self._opening = markers.opening[known:]
        self._closing = markers.closing_ids
        starts = {ids[-1] for ids in markers.reasoning_starts}
        turning = (*markers.reasoning_ends, *markers.call_starts, *markers.call_ends)
        first = {*ending, *(ids[-1] for ids in turning)}
        if markers.channels is not None:
            first |= {markers.channels.start, markers.channels.channel, markers.channels.message}
        self._first = tuple(sorted(first - starts))
        self._later = tuple(sorted(first | starts))

    def next(self, output: Sequence[int]) -> Constraint:
        """:param output: the tokens so far."""
        place = len(output) - self._reasoning
        if -len(self._closing) <= place < 0:
            return Constraint(only=self._closing[place])
        if self._call and place >= self._answer:
            at = place - self._answer
            return Constraint(only=self._call[at]) if at < len(self._call) else _FREE
        if place < 0 and len(output) < len(self._opening):
            return Constraint(only=self._opening[len(output)])
        if not output and self._reasoning > 0:
            return Constraint(never=self._first)
        return Constraint(never=self._later)


class ThinkingBudget:
    """One request whose thoughts are bounded.

    Thoughts that open again past the budget are closed at once. A header that is open is left to
    the model, and may be past the budget.
    """

    def __init__(
        self, budget: int, markers: Markers, start: Phase, before: Sequence[int] = ()
    ) -> None:
        """:param start: phase of the first token.

        :param before: output of other engines.
        """
        self._tracker = PhaseTracker(markers, start, before)
        self._closing = list(markers.closing_ids)
        self._headers = markers.channels is not None
        self._free = budget - len(self._closing)  # reasoning tokens before the end must begin
        self._before = list(before[-len(self._closing) :]) if self._closing else []
        self._seen = 0  # output tokens that the tracker has got

    def next(self, output: Sequence[int]) -> Constraint:
        """:param output: the tokens so far."""
        self._tracker.feed(output[self._seen :])
        self._seen = len(output)
        tracker = self._tracker
        if tracker.phase is not Phase.REASONING or tracker.reasoning_tokens < self._free:
            return _FREE
        begun = self._begun(output)
        if not self._closing or (self._headers and tracker.alert and not begun):
            return _FREE
        return Constraint(only=self._closing[begun])

    def _begun(self, output: Sequence[int]) -> int:
        """How many tokens of the end are there already."""
        recent = [*self._before, *output[-len(self._closing) :]]
        for length in range(len(self._closing) - 1, 0, -1):
            if recent[-length:] == self._closing[:length]:
                return length
        return 0


class LengthsProcessor(LogitsProcessor):
    """All such requests of the running batch, by row."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._markers = markers_of(vllm_config)
        known = set() if self._markers is None else self._markers.watched
        ending = phase_config(vllm_config).get("ending_token_ids", ())
        self._ending = tuple(token_id for token_id in ending if token_id not in known)
        self._rows: dict[int, tuple[Lengths, Sequence[int]]] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse what would make a step raise: in a stock server anybody can write it.

        :raises ValueError: naming the key.
        """
        facts = (sampling_params.extra_args or {}).get(REQUEST_KEY)
        if facts is None:
            return
        if not isinstance(facts, dict):
            raise ValueError(f"extra_args: {REQUEST_KEY} must be an object")
        for name in _NUMBERS:
            if not isinstance(facts.get(name, 0), int):
                raise ValueError(f"extra_args: {REQUEST_KEY}.{name} must be a whole number")
        call = facts.get("forced_call", ())
        if not isinstance(call, list | tuple) or not all(isinstance(i, int) for i in call):
            raise ValueError(f"extra_args: {REQUEST_KEY}.forced_call must be a list of token ids")
        if facts.get("phase", "reasoning") not in {phase.value for phase in Phase}:
            raise ValueError(f"extra_args: {REQUEST_KEY}.phase must be the name of a phase")

    def is_argmax_invariant(self) -> bool:
        """Lengths are forced for greedy requests too."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests that join, leave or move within the batch."""
        process_dict_updates(self._rows, batch_update, self._new_row)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Constrain the next token of every row that asks for it."""
        for row, (lengths, output) in self._rows.items():
            constraint = lengths.next(output)
            if constraint.only is not None:
                logits[row] = _FORBIDDEN
                logits[row, constraint.only] = 0.0
            elif constraint.never:
                logits[row, list(constraint.never)] = _FORBIDDEN
        return logits

    def _new_row(
        self, params: SamplingParams, prompt: list[int] | None, output: list[int]
    ) -> tuple[Lengths, Sequence[int]] | None:
        facts: Mapping[str, Any] = (params.extra_args or {}).get(REQUEST_KEY) or {}
        markers, known = self._markers, facts.get("known_tokens", 0)
        if "forced_answer" in facts:
            reasoning, answer = facts.get("forced_reasoning", 0), facts["forced_answer"]
            call = facts.get("forced_call", ())
            return ForcedLengths(reasoning, answer, call, markers, self._ending, known), output
        if "thinking_budget" in facts and markers is not None:
            before = (prompt or [])[-known:] if known > 0 else []
            start = Phase(facts.get("phase", Phase.REASONING))
            markers = markers if facts.get("calls", True) else markers.without_calls
            if markers is None:
                return None
            return ThinkingBudget(facts["thinking_budget"], markers, start, before), output
        return None
