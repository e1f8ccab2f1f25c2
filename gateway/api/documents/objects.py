"""The objects that the API answers with, as types: what `gateway.response` and others build.

Nothing is made of these classes. They are read for their JSON schemas, which hold every answer: a
field that is not declared here does not fit.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.schemas.events import ItemStatus
from workers.messages import PhaseName

Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
UnixTime = Annotated[int, Meta(description="Unix time in seconds.")]


class Answer(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An object of which every field is declared."""


# ---- errors -----------------------------------------------------------------------------------


class ErrorObject(Answer):
    """Why a request was refused; `param` names the wrong field."""

    type: str
    code: str
    message: str
    param: str | None
    retry_after_s: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class Error(Answer):
    """An error in the form of OpenAI's APIs."""

    error: ErrorObject


class ErrorDetails(Answer):
    """A reason that Anthropic's packages act on."""

    error_code: Literal["thread_unsupported_request"]


class MessagesErrorObject(ErrorObject):
    """The same in the Messages API."""

    details: ErrorDetails | UnsetType = UNSET


class MessagesError(Answer):
    """An error in the form of the Messages API."""

    type: Literal["error"]
    error: MessagesErrorObject


# ---- tokens -----------------------------------------------------------------------------------


class PlainLogprob(Answer):
    """The log probability of a token."""

    token: str
    logprob: float | None
    bytes: list[Annotated[int, Meta(ge=0, le=255)]] | None


class Logprob(PlainLogprob):
    """The same, with those of the likeliest tokens in its place."""

    top_logprobs: list[PlainLogprob]


class CachedTokens(Answer):
    """Tokens of the prompt whose KV was in the cache."""

    cached_tokens: Count
    cache_write_tokens: Count


class ReasoningTokens(Answer):
    """Tokens of the thoughts."""

    reasoning_tokens: Count


class Usage(Answer):
    """Token counts of a response."""

    input_tokens: Count
    input_tokens_details: CachedTokens
    output_tokens: Count
    output_tokens_details: ReasoningTokens
    total_tokens: Count


class Times(Answer):
    """Durations in seconds; null where there is nothing to measure."""

    ttft_s: float | None
    ttfat_s: float | None
    tpot_s: float | None
    e2e_s: float | None


class Timing(Answer):
    """How a response was delivered: by the engine (`raw`), and to the reader (`paced`)."""

    reasoning_s: float | None
    raw: Times
    paced: Times


class Qoe(Answer):
    """Quality of experience."""

    qoe: Share | None
    qoe_ttfat: Share | None
    qoe_e2e: Share | None


# ---- items of the Responses API ---------------------------------------------------------------


class OutputText(Answer, tag_field="type", tag="output_text"):
    """Text of the answer."""

    text: str
    annotations: list[Any]
    logprobs: list[Logprob]


class ReasoningText(Answer, tag_field="type", tag="reasoning_text"):
    """Text of thoughts."""

    text: str


class SummaryText(Answer, tag_field="type", tag="summary_text"):
    """Text of a summary of thoughts."""

    text: str


class InputText(Answer, tag_field="type", tag="input_text"):
    """Text of the client."""

    text: str


class Refusal(Answer, tag_field="type", tag="refusal"):
    """A refusal that the client sent back."""

    refusal: str


class OutputMessage(Answer, tag_field="type", tag="message"):
    """The answer, or a stretch of it."""

    id: str
    role: Literal["assistant"]
    content: list[OutputText]
    status: ItemStatus


class OutputReasoning(Answer, tag_field="type", tag="reasoning"):
    """Thoughts."""

    id: str
    summary: list[SummaryText]
    content: list[ReasoningText]
    status: ItemStatus
    encrypted_content: str | UnsetType = UNSET


class FunctionCall(Answer, tag_field="type", tag="function_call"):
    """A call of a function."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus
    namespace: str | UnsetType = UNSET


class CustomToolCall(Answer, tag_field="type", tag="custom_tool_call"):
    """A call of a custom tool."""

    id: str
    call_id: str
    name: str
    input: str
    status: ItemStatus
    namespace: str | UnsetType = UNSET


OutputItem = OutputMessage | OutputReasoning | FunctionCall | CustomToolCall
ThoughtPart = SummaryText | ReasoningText | Refusal


class ListedMessage(Answer, tag_field="type", tag="message"):
    """A message of a client, or an answer that it sent back."""

    id: str
    role: str
    content: list[InputText | OutputText | Refusal]
    status: ItemStatus


class ListedReasoning(Answer, tag_field="type", tag="reasoning"):
    """Thoughts that were sent back."""

    id: str
    summary: list[ThoughtPart]
    content: list[ThoughtPart]
    status: ItemStatus
    encrypted_content: str | UnsetType = UNSET


class FunctionCallOutput(Answer, tag_field="type", tag="function_call_output"):
    """The result of a call."""

    id: str
    output: str | list[InputText | Refusal]
    status: ItemStatus
    call_id: str | UnsetType = UNSET  # absent: of no call, but of `name`
    name: str | UnsetType = UNSET
    namespace: str | UnsetType = UNSET


class CustomToolCallOutput(Answer, tag_field="type", tag="custom_tool_call_output"):
    """The result of a call of a custom tool."""

    id: str
    output: str | list[InputText | Refusal]
    status: ItemStatus
    call_id: str | UnsetType = UNSET  # absent: of no call, but of `name`
    name: str | UnsetType = UNSET
    namespace: str | UnsetType = UNSET


ListedItem = (
    ListedMessage
    | ListedReasoning
    | FunctionCall
    | CustomToolCall
    | FunctionCallOutput
    | CustomToolCallOutput
)


# ---- the response object ----------------------------------------------------------------------


class ResponseFailure(Answer):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(Answer):
    """Why a response ended early."""

    reason: Literal["cancelled", "max_output_tokens", "no_answer"]


class ConversationId(Answer):
    """The conversation that a response belongs to."""

    id: str


class ReasoningEcho(Answer):
    """What the request said about thinking."""

    effort: str | None
    summary: str | None


class FormatEcho(Answer):
    """The form of the answer that the request asked for."""

    type: str
    name: str | UnsetType | None = UNSET
    schema: dict[str, Any] | UnsetType = UNSET
    strict: bool | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET


class TextEcho(Answer):
    """What the request said about the text."""

    format: FormatEcho
    verbosity: str | UnsetType = UNSET


class Response(Answer):
    """A response as it stands. The measurements are there at its end."""

    id: str
    object: Literal["response"]
    created_at: UnixTime
    status: Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    store: bool
    temperature: float | None
    text: TextEcho
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_p: float | None
    truncation: Literal["auto", "disabled"]
    usage: Usage | None
    user: str | None
    metadata: dict[str, str]
    instance: str | None
    phase: PhaseName
    reasoning: ReasoningEcho
    top_logprobs: Count
    max_tool_calls: int | None
    prompt_cache_key: str | None
    safety_identifier: str | None
    conversation: ConversationId | UnsetType = UNSET
    timing: Timing | UnsetType = UNSET
    qoe: Qoe | UnsetType = UNSET
    underruns: Count | UnsetType = UNSET
    preemptions: Count | UnsetType = UNSET
    migrations: Count | UnsetType = UNSET
    failovers: Count | UnsetType = UNSET


class BrokenResponse(Answer):
    """What can be said of a response in which something is broken."""

    id: str
    object: Literal["response"]
    created_at: UnixTime
    status: Literal["failed"]
    error: ResponseFailure | None
    model: str
    output: list[Any]


class DeletedResponse(Answer):
    """A response was deleted."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputTokens(Answer):
    """The length of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: Count


class ItemList(Answer):
    """Part of a list of items."""

    object: Literal["list"]
    data: list[ListedItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Conversation(Answer):
    """A conversation."""

    id: str
    object: Literal["conversation"]
    created_at: UnixTime
    metadata: dict[str, str]


class DeletedConversation(Answer):
    """A conversation was deleted."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]
