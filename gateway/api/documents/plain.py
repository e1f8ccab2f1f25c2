"""Answers of completions and of the routes about tokens as types; see `objects`."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from gateway.api.documents.chat import CachedPromptTokens
from gateway.api.documents.objects import Answer, Count, Qoe, Timing


class CompletionLogprobs(Answer):
    """Log probabilities of the tokens of a text, with those of the likeliest in their place."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[Count]


class CompletionChoice(Answer):
    """One completion, or a piece of it."""

    index: Count
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class CompletionUsage(Answer):
    """Token counts of all prompts and choices."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: CachedPromptTokens


class Completion(Answer):
    """Whole completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage
    timing: Timing
    qoe: Qoe
    instance: str | None


class CompletionChunk(Answer):
    """One event of streamed completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | UnsetType = UNSET
    timing: Timing | UnsetType = UNSET
    qoe: Qoe | UnsetType = UNSET
    instance: str | UnsetType | None = UNSET


class Tokens(Answer):
    """The tokens of a prompt."""

    count: Count
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None


class TextOfTokens(Answer):
    """The text of tokens."""

    prompt: str
