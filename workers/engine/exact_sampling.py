"""Logits processor: what a request draws depends on its tokens, not on the engine that goes on.

vLLM counts penalties over the tokens that *it* has generated, and keeps a random generator for each
seeded request. Both begin anew where a request goes on at another engine. So this processor does
both itself, for requests that say so under `EXACT_KEY` of their facts:

    penalties   of continued and seeded requests: vLLM's own function, over all output tokens
    seeds       the noise of the output's token number i is a function of the seed and of i

A seeded request is sampled here: all tokens but the chosen one are forbidden, and vLLM takes the
last one greedily. It computes log probabilities before any processor. No state outlives a step, so
preemption, chunked prompts and moves change nothing.

This is the interface of vLLM's V1 model runner, as in `workers.engine.forced_lengths`. The
processor must be the last one: vLLM would apply its penalties at the same point.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.sample.ops.penalties import apply_all_penalties
from vllm.v1.sample.ops.topk_topp_sampler import (
    apply_top_k_top_p,
    sample_with_exponential_noise,
)

from workers.scheduler.plugin import REQUEST_KEY

EXACT_KEY = "exact"  # in the facts under `REQUEST_KEY`
_FORBIDDEN = float("-inf")


class Exact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is done here for one request; `workers.engine.sampling` writes it."""

    known: int = 0  # tokens at the end of the prompt that are output
    presence: float = 0.0
    frequency: float = 0.0
    repetition: float = 1.0
    seed: int | None = None  # None: vLLM samples
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    @property
    def penalized(self) -> bool:
        """Whether any penalty changes anything."""
        return (self.presence, self.frequency, self.repetition) != (0.0, 0.0, 1.0)


def noise_seed(seed: int, position: int) -> int:
    """The state of the generator for one token of an output: 63 bits."""
    digest = hashlib.blake2b(struct.pack("<qq", seed, position), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class _Row:
    """One such request of the running batch."""

    def __init__(self, exact: Exact, prompt: Sequence[int], output: Sequence[int]) -> None:
        """:param output: vLLM's live list of the tokens generated here."""
        self.exact = exact
        cut = len(prompt) - exact.known
        self.prompt = list(prompt[:cut]) if exact.penalized else []
        self._known = list(prompt[cut:])
        self._output = output

    @property
    def position(self) -> int:
        """Number of output tokens so far."""
        return len(self._known) + len(self._output)

    @property
    def tokens(self) -> list[int]:
        """All output tokens so far."""
        return [*self._known, *self._output]


class ExactSampling(LogitsProcessor):
    """All such requests of the running batch, by row."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._device = device
        self._generator = torch.Generator(device=device)
        self._rows: dict[int, _Row] = {}
        self._penalized: _Penalties | None = None
        self._seeded: _Seeds | None = None

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse what would make a step raise: in a stock server anybody can write it.

        :raises ValueError: naming the key.
        """
        facts = (sampling_params.extra_args or {}).get(REQUEST_KEY)
        if not isinstance(facts, dict) or EXACT_KEY not in facts:
            return
        try:
            exact = _exact_of(facts)
        except msgspec.ValidationError as error:
            raise ValueError(f"extra_args: {REQUEST_KEY}.{EXACT_KEY}: {error}") from error
        if exact.known < 0 or exact.temperature <= 0 or not 0 < exact.top_p <= 1:
            raise ValueError(f"extra_args: {REQUEST_KEY}.{EXACT_KEY} is out of range")

    def is_argmax_invariant(self) -> bool:
        """It chooses the token, or changes which one is the most likely."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests that join, leave or move within the batch."""
        if process_dict_updates(self._rows, batch_update, _new_row):
            self._penalized = _Penalties.of(self._rows, self._device)
            self._seeded = _Seeds.of(self._rows, self._device)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Penalize and choose; :param logits: requests by vocabulary, float32."""
        if self._penalized is not None:
            self._penalized.apply(logits)
        if self._seeded is not None:
            self._seeded.apply(logits, self._generator)
        return logits


class _Penalties:
    """The penalized rows."""

    def __init__(self, rows: dict[int, _Row], device: torch.device) -> None:
        self._rows = list(rows.values())
        self._index = torch.tensor(list(rows), device=device)
        exacts = [row.exact for row in self._rows]
        self._presence = torch.tensor([exact.presence for exact in exacts], device=device)
        self._frequency = torch.tensor([exact.frequency for exact in exacts], device=device)
        self._repetition = torch.tensor([exact.repetition for exact in exacts], device=device)
        self._prompts: torch.Tensor | None = None  # needs the size of the vocabulary

    @classmethod
    def of(cls, rows: dict[int, _Row], device: torch.device) -> _Penalties | None:
        chosen = {index: row for index, row in rows.items() if row.exact.penalized}
        return cls(chosen, device) if chosen else None

    def apply(self, logits: torch.Tensor) -> None:
        if self._prompts is None:
            self._prompts = self._padded(logits.shape[1], logits.device)
        logits[self._index] = apply_all_penalties(
            logits[self._index],
            self._prompts,
            self._presence,
            self._frequency,
            self._repetition,
            [row.tokens for row in self._rows],
        )

    def _padded(self, vocabulary: int, device: torch.device) -> torch.Tensor:
        longest = max(len(row.prompt) for row in self._rows)
        padded = [row.prompt + [vocabulary] * (longest - len(row.prompt)) for row in self._rows]
        return torch.tensor(padded, dtype=torch.int64, device=device)


class _Seeds:
    """The seeded rows."""

    def __init__(self, rows: dict[int, _Row], device: torch.device) -> None:
        self._rows = list(rows.values())
        self._index = torch.tensor(list(rows), device=device)
        exacts = [row.exact for row in self._rows]
        self._temperature = torch.tensor([[e.temperature] for e in exacts], device=device)
        self._min_p = torch.tensor([[e.min_p] for e in exacts], device=device)
        self._top_p = torch.tensor([e.top_p for e in exacts], device=device)
        self._top_k = torch.tensor([e.top_k for e in exacts], device=device, dtype=torch.int64)
        self._any_min_p = any(e.min_p > 0 for e in exacts)
        self._any_top_p = any(e.top_p < 1 for e in exacts)
        self._any_top_k = any(e.top_k > 0 for e in exacts)

    @classmethod
    def of(cls, rows: dict[int, _Row], device: torch.device) -> _Seeds | None:
        chosen = {index: row for index, row in rows.items() if row.exact.seed is not None}
        return cls(chosen, device) if chosen else None

    def apply(self, logits: torch.Tensor, generator: torch.Generator) -> None:
        """In vLLM's order: temperature, min_p, top_k, top_p, then the highest p/noise."""
        mine = logits[self._index].div_(self._temperature)
        if self._any_min_p:
            probabilities = mine.softmax(dim=-1)
            least = probabilities.amax(dim=-1, keepdim=True).mul_(self._min_p)
            mine.masked_fill_(probabilities < least, _FORBIDDEN)
        mine = apply_top_k_top_p(mine, self._k(logits.shape[1]), self._p())
        scores = mine.softmax(dim=-1, dtype=torch.float32)
        noise = torch.empty_like(scores)
        for number, row in enumerate(self._rows):
            assert row.exact.seed is not None
            generator.manual_seed(noise_seed(row.exact.seed, row.position))
            noise[number].exponential_(generator=generator)
        chosen = sample_with_exponential_noise(scores, noise).unsqueeze(-1)
        logits[self._index] = torch.full_like(mine, _FORBIDDEN).scatter_(1, chosen, 0.0)

    def _k(self, vocabulary: int) -> torch.Tensor | None:
        if not self._any_top_k:
            return None
        all_of_them = (self._top_k <= 0) | (self._top_k > vocabulary)
        return self._top_k.masked_fill(all_of_them, vocabulary)

    def _p(self) -> torch.Tensor | None:
        return self._top_p if self._any_top_p else None


def _exact_of(facts: dict[str, Any]) -> Exact:
    return msgspec.convert(facts[EXACT_KEY], Exact)


def _new_row(params: SamplingParams, prompt: list[int] | None, output: list[int]) -> _Row | None:
    facts = (params.extra_args or {}).get(REQUEST_KEY)
    if not isinstance(facts, dict) or EXACT_KEY not in facts:
        return None
    return _Row(_exact_of(facts), prompt or [], output)
