"""Completions and chunks of chat completions as types; see `objects`."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from gateway.api.documents.objects import Answer, Count, Logprob, Qoe, Timing


class ChatFunction(Answer):
    """The function that a call names, and its arguments as JSON."""

    name: str
    arguments: str


class ChatCall(Answer):
    """A call of a tool."""

    id: str
    type: Literal["function"]
    function: ChatFunction


class ChatMessage(Answer):
    """What the model wrote."""

    role: Literal["assistant"]
    content: str | None
    reasoning: str | None
    reasoning_content: str | None
    refusal: None
    tool_calls: list[ChatCall] | UnsetType = UNSET


class ChatLogprobs(Answer):
    """Log probabilities of the tokens of the answer."""

    content: list[Logprob]


FinishReason = Literal["stop", "length", "tool_calls"]


class ChatChoice(Answer):
    """One choice of a completion."""

    index: Count
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class CachedPromptTokens(Answer):
    """Tokens of the prompt whose KV was in the cache."""

    cached_tokens: Count


class ReasoningTokensOfChat(Answer):
    """Tokens of the thoughts."""

    reasoning_tokens: Count


class ChatUsage(Answer):
    """Token counts of all choices."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: CachedPromptTokens
    completion_tokens_details: ReasoningTokensOfChat


class ChatCompletion(Answer):
    """A whole completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    timing: Timing
    qoe: Qoe
    instance: str | None


class FunctionDelta(Answer):
    """The begin of a call, or a piece of its arguments."""

    arguments: str
    name: str | UnsetType = UNSET


class CallChunk(Answer):
    """A piece of a call."""

    index: Count
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class ChatDelta(Answer):
    """What a chunk adds."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallChunk] | UnsetType = UNSET


class ChunkChoice(Answer):
    """One choice of a chunk."""

    index: Count
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(Answer):
    """One event of a streamed completion."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: ChatUsage | UnsetType = UNSET
    timing: Timing | UnsetType = UNSET
    qoe: Qoe | UnsetType = UNSET
    instance: str | UnsetType | None = UNSET
