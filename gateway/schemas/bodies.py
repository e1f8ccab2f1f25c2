"""Request bodies of the public APIs: every accepted field, and its check.

`ResponsesBody` and `ChatBody` declare the fields. An `InvalidRequest` names a field that is
unknown, of the wrong type or out of range. It also names a field that asks for something this
server cannot do (tools, several choices, images): ignoring it would answer a different question.
Fields without an effect here are accepted and ignored.

A null field counts as absent, known or not: many clients send null for options that are not set.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from gateway.schemas.errors import InvalidRequest
from workers.checked import closest

# A bound on generated tokens; common clients send -1 for no bound. `_refuse_unsupported` refuses 0.
TokenBound = Annotated[int, Meta(ge=-1, le=2**31)]
Seconds = Annotated[float, Meta(ge=0.001, le=60)]  # per token
Delay = Annotated[float, Meta(ge=0, le=3600)]
MOST_STOP_STRINGS = 64  # editors send about 20
_LONGEST_NAME = 64  # characters of an unknown parameter that are compared and quoted
Penalty = Annotated[float, Meta(ge=-2, le=2)]


class Pacing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pace that a reader asks for; None: the server's target."""

    tpot_s: Seconds | None = None
    ttfat_s: Delay | None = None


class ForcedLengthsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exact lengths, for load tests."""

    reasoning_tokens: Annotated[int, Meta(ge=0)]  # 0 if thinking is switched off
    answer_tokens: Annotated[int, Meta(ge=1)]


class Reasoning(msgspec.Struct, frozen=True):
    """``reasoning`` of the Responses API; ``effort: "none"`` switches thinking off."""

    effort: str | None = None
    summary: str | None = None
    max_tokens: TokenBound | None = None


class ChatTemplateKwargs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the chat template; ``enable_thinking`` false asks for an answer at once."""

    enable_thinking: bool | None = None


class Format(msgspec.Struct, frozen=True):
    """Form of the output; only ``text`` is supported."""

    type: str = "text"


class TextConfig(msgspec.Struct, frozen=True):
    """``text`` of the Responses API."""

    format: Format = Format()
    verbosity: str | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """``stream_options``; of the chat completions only ``include_usage`` has an effect."""

    include_usage: bool = False


class Part(msgspec.Struct, frozen=True):
    """One part of a message's content."""

    type: str
    text: str | None = None


class InputMessage(msgspec.Struct, frozen=True):
    """One message of either API, or an earlier output item that is sent back as input."""

    role: str | None = None
    content: str | list[Part] | None = None
    type: str = "message"


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields that both APIs share."""

    model: str | None = None
    stream: bool = False
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Meta(max_length=MOST_STOP_STRINGS)] | None = None
    ignore_eos: bool = False
    pacing: Pacing | bool | None = None
    forced_lengths: ForcedLengthsBody | None = None
    chat_template_kwargs: ChatTemplateKwargs | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    # Accepted with values that ask for nothing; see `_refuse_unsupported`.
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    top_logprobs: int | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    stream_options: StreamOptions | None = None


class ResponsesBody(_Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/responses`` and of ``response.create``."""

    input: str | list[InputMessage] | None = None
    instructions: str | None = None
    max_output_tokens: TokenBound | None = None
    previous_response_id: str | None = None
    reasoning: Reasoning | None = None
    truncation: str | None = None
    include: list[str] | None = None
    text: TextConfig | None = None
    background: bool | None = None
    max_tool_calls: int | None = None


class ChatBody(_Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    max_tokens: TokenBound | None = None
    max_completion_tokens: TokenBound | None = None
    reasoning_effort: str | None = None
    n: int | None = None
    logprobs: bool | None = None
    logit_bias: dict[str, float] | None = None
    response_format: Format | None = None
    modalities: list[str] | None = None
    verbosity: str | None = None


Body = TypeVar("Body", ResponsesBody, ChatBody)


def parse_json_object(text: str | bytes) -> dict[str, Any]:
    """Decode a JSON object and drop its null fields, at any depth.

    :raises InvalidRequest: it is something else.
    """
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"Not JSON: {error}.", param=None, code="invalid_json") from error
    if not isinstance(document, dict):
        raise InvalidRequest("The body must be a JSON object.", param=None)
    _drop_nulls(document)
    return document


def _drop_nulls(document: dict[str, Any]) -> None:
    """Remove every null field, in place. Null elements of lists stay."""
    waiting: list[Any] = [document]  # no recursion: a body may be nested deeper than Python's stack
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for name in [name for name, field in value.items() if field is None]:
                del value[name]
            inner = value.values()
        else:
            inner = value
        waiting.extend(field for field in inner if isinstance(field, dict | list))


def parse_body(document: dict[str, Any], kind: type[Body]) -> Body:
    """Check a decoded JSON document. Raises `InvalidRequest` naming the first wrong field."""
    known = kind.__struct_fields__
    for name in document:
        if name not in known:
            shown = name[:_LONGEST_NAME]  # comparing a name of a megabyte would take seconds
            near = closest(shown, known)
            hint = f" Did you mean '{near}'?" if near else ""
            raise InvalidRequest(
                f"Unknown parameter: '{shown}'.{hint}", param=shown, code="unknown_parameter"
            )
    try:
        body = msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest.of_validation(error) from error
    _refuse_unsupported(body)
    return body


def _refuse_unsupported(body: ResponsesBody | ChatBody) -> None:
    def refuse(param: str, what: str) -> None:
        raise InvalidRequest(
            f"{what} not supported by this server.", param=param, code="unsupported_value"
        )

    for param, bound in _token_bounds(body):
        if bound == 0:
            raise InvalidRequest(
                f"'{param}': must be at least 1, or -1 for no bound, not 0.", param=param
            )
    if body.tools:
        refuse("tools", "Tools are")
    if body.tool_choice not in (None, "auto", "none"):
        refuse("tool_choice", "Tools are")
    if body.top_logprobs:
        refuse("top_logprobs", "Log probabilities are")
    if isinstance(body, ResponsesBody):
        if body.background:
            refuse("background", "Background mode is")
        if body.text is not None and body.text.format.type != "text":
            refuse("text.format", "Structured output is")
        if body.truncation not in (None, "disabled"):
            refuse("truncation", "Truncation of the input is")
    else:
        if body.n not in (None, 1):
            refuse("n", "More than one choice is")
        if body.logprobs:
            refuse("logprobs", "Log probabilities are")
        if body.logit_bias:
            refuse("logit_bias", "Logit bias is")
        if body.response_format is not None and body.response_format.type != "text":
            refuse("response_format", "Structured output is")
        if body.modalities not in (None, ["text"]):
            refuse("modalities", "Output other than text is")


def _token_bounds(body: ResponsesBody | ChatBody) -> list[tuple[str, int | None]]:
    if isinstance(body, ChatBody):
        return [
            ("max_tokens", body.max_tokens),
            ("max_completion_tokens", body.max_completion_tokens),
        ]
    reasoning = body.reasoning or Reasoning()
    return [
        ("max_output_tokens", body.max_output_tokens),
        ("reasoning.max_tokens", reasoning.max_tokens),
    ]
