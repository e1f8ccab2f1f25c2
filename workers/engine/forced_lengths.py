"""Logits processor: exact lengths for load tests, and an upper bound on thinking.

Decides which token may come next for requests that ask for it under `REQUEST_KEY` in
``SamplingParams.extra_args``; all counts are from the first token the engine generates:

    forced_reasoning, forced_answer   exact number of tokens of each phase
    thinking_budget                   last index at which the end-of-thinking token comes

State is computed from the live list of output tokens, so preemption does not disturb it. This is
the interface of vLLM's V1 model runner. Its V2 runner (GPUs only) has another one, so the worker
starts the engine with V1.

Pass it to vLLM as ``logits_processors=["workers.engine.forced_lengths:LengthsProcessor"]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from workers.policy.phase import ThinkMarkers
from workers.scheduler.plugin import REQUEST_KEY, phase_config, think_markers

_FORBIDDEN = float("-inf")


@dataclass(frozen=True, slots=True)
class Constraint:
    """What may be sampled next: one token only, or all but some."""

    only: int | None = None
    never: Sequence[int] = ()


class ForcedLengths:
    """One request with exact lengths.

    The thoughts may begin with the start-of-thinking token, which many models emit themselves.
    """

    def __init__(self, reasoning: int, markers: ThinkMarkers | None, ending: Sequence[int]) -> None:
        """:param ending: tokens that end or garble a text, the markers not among them."""
        self._reasoning = reasoning
        self._end = None if markers is None else markers.end
        self._first = (*ending,) if markers is None else (*ending, markers.end)
        start = () if markers is None or markers.start is None else (markers.start,)
        self._later = (*self._first, *start)

    def next(self, output: Sequence[int]) -> Constraint:
        """:param output: the tokens so far."""
        if len(output) == self._reasoning - 1:
            return Constraint(only=self._end)
        if not output and self._reasoning > 0:
            return Constraint(never=self._first)
        return Constraint(never=self._later)


class ThinkingBudget:
    """One request whose thoughts are bounded."""

    def __init__(self, budget: int, end: int) -> None:
        self._budget = budget
        self._end = end
        self._seen = 0  # output tokens already searched for the boundary
        self._ended = False

    def next(self, output: Sequence[int]) -> Constraint:
        """:param output: the tokens so far."""
        if not self._ended:
            self._ended = self._end in output[self._seen :]
            self._seen = len(output)
        if not self._ended and len(output) >= self._budget - 1:
            return Constraint(only=self._end)
        return Constraint()


class LengthsProcessor(LogitsProcessor):
    """All such requests of the running batch, by row."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._markers = think_markers(vllm_config)
        markers = self._markers
        known = () if markers is None else (markers.start, markers.end)
        self._ending = tuple(
            token_id
            for token_id in phase_config(vllm_config).get("ending_token_ids", ())
            if token_id not in known
        )
        self._rows: dict[int, tuple[ForcedLengths | ThinkingBudget, Sequence[int]]] = {}

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
        names = ("forced_reasoning",) * ("forced_answer" in facts) + ("thinking_budget",)
        for name in names:
            if not isinstance(facts.get(name, 0), int):
                raise ValueError(f"extra_args: {REQUEST_KEY}.{name} must be a whole number")

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
    ) -> tuple[ForcedLengths | ThinkingBudget, Sequence[int]] | None:
        facts: Mapping[str, Any] = (params.extra_args or {}).get(REQUEST_KEY) or {}
        if "forced_answer" in facts:
            forced = ForcedLengths(facts.get("forced_reasoning", 0), self._markers, self._ending)
            return forced, output
        if "thinking_budget" in facts and self._markers is not None:
            return ThinkingBudget(facts["thinking_budget"], self._markers.end), output
        return None
