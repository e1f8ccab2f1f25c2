"""Bodies of completions, and of the routes about tokens: every accepted field, and its check."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.schemas.bodies import (
    MOST_BIASES,
    MOST_CHOICES,
    MOST_STOP_STRINGS,
    MOST_TOP_LOGPROBS,
    CacheKey,
    ForcedLengthsBody,
    Identifier,
    Pacing,
    Penalty,
    StreamOptions,
    TokenBound,
    TokenId,
    check_cache_key,
    known_fields,
    unsupported,
)
from gateway.schemas.errors import InvalidRequest, convert

MOST_COMPLETIONS = 64  # of one request: prompts times choices
DEFAULT_TOKENS = 16  # as in this API everywhere


class CompletionsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/completions``."""

    prompt: str | list[str | TokenId | list[TokenId]]
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: TokenBound | None = None  # None: `DEFAULT_TOKENS`
    min_tokens: Annotated[int, Meta(ge=0, le=2**31)] = 0
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] = 1
    best_of: int | None = None
    suffix: str | None = None
    add_special_tokens: bool = True
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Meta(max_length=MOST_STOP_STRINGS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=128)] | None = None
    ignore_eos: bool = False
    logit_bias: (
        Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=MOST_BIASES)]
        | None
    ) = None
    logprobs: Annotated[int, Meta(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    pacing: Pacing | bool | None = None  # ours, as in the other APIs
    forced_lengths: ForcedLengthsBody | None = None
    user: str | None = None
    safety_identifier: Identifier | None = None
    prompt_cache_key: CacheKey | None = None


class TextBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /tokenize`` with a prompt."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool = True


class TokensBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /detokenize``."""

    tokens: list[TokenId]
    model: str | None = None


def parse_completions(document: dict[str, Any]) -> CompletionsBody:
    """Check a decoded JSON document. Raises `InvalidRequest` naming the first wrong field."""
    fields = known_fields(document, CompletionsBody.__struct_fields__)
    body = convert(fields, CompletionsBody)
    check_cache_key(body.prompt_cache_key)
    if body.suffix:
        raise unsupported("suffix", "Text behind the completion is")
    if body.best_of not in (None, body.n):
        raise unsupported("best_of", "Choosing the best of several completions is")
    if body.max_tokens == 0:
        raise InvalidRequest(
            "'max_tokens': must be at least 1, or -1 for no bound, not 0.", param="max_tokens"
        )
    bound = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    if body.forced_lengths is None and bound != -1 and body.min_tokens > bound:
        raise InvalidRequest(
            f"'min_tokens' is {body.min_tokens}, more than 'max_tokens', {bound}.",
            param="min_tokens",
        )
    forced = body.forced_lengths
    if forced is not None:
        for name in ("reasoning_tokens", "call_tokens"):
            if getattr(forced, name):
                raise InvalidRequest(
                    f"'forced_lengths.{name}' must be 0: a completion is nothing but an answer.",
                    param=f"forced_lengths.{name}",
                )
        if not forced.answer_tokens:
            raise InvalidRequest(
                "'forced_lengths.answer_tokens' must be at least 1.",
                param="forced_lengths.answer_tokens",
            )
    return body


def parse_text(document: dict[str, Any]) -> TextBody:
    """Check a decoded JSON document. Raises `InvalidRequest` naming the first wrong field."""
    return convert(known_fields(document, TextBody.__struct_fields__), TextBody)


def parse_tokens(document: dict[str, Any]) -> TokensBody:
    """Check a decoded JSON document. Raises `InvalidRequest` naming the first wrong field."""
    return convert(known_fields(document, TokensBody.__struct_fields__), TokensBody)
