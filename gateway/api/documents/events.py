"""The events of a response as types, by the API that sends them; see `objects`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType

from gateway.api.documents.objects import (
    Answer,
    Count,
    ErrorObject,
    Logprob,
    OutputItem,
    OutputText,
    Qoe,
    ReasoningText,
    Response,
    SummaryText,
    Timing,
)
from gateway.schemas import events

StreamId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]


class Event(Answer, tag_field="type"):
    """An event of a response. On a WebSocket it has the `stream_id` of its request, too."""

    sequence_number: Count


class Created(Event, tag="response.created"):
    """The response exists."""

    response: Response


class InProgress(Event, tag="response.in_progress"):
    """The response is being generated."""

    response: Response


class Completed(Event, tag=events.COMPLETED):
    """The last event of a response that is complete."""

    response: Response


class Incomplete(Event, tag=events.INCOMPLETE):
    """The last event of a response that ended early."""

    response: Response


class Failed(Event, tag=events.FAILED):
    """The last event of a response that failed."""

    response: Response  # or a `BrokenResponse`: msgspec knows no such union


class ItemEvent(Event):
    """An event of one output item."""

    output_index: Count


class ItemAdded(ItemEvent, tag="response.output_item.added"):
    """An output item begins."""

    item: OutputItem


class ItemDone(ItemEvent, tag="response.output_item.done"):
    """An output item is whole. `reasoning_s`: for how many seconds the model thought."""

    item: OutputItem
    reasoning_s: float | UnsetType | None = UNSET


class PartEvent(ItemEvent):
    """An event of one part of an item."""

    item_id: str
    content_index: Literal[0]


class PartAdded(PartEvent, tag="response.content_part.added"):
    """A part of an item begins."""

    part: OutputText | ReasoningText


class PartDone(PartEvent, tag="response.content_part.done"):
    """A part of an item is whole."""

    part: OutputText | ReasoningText


class ReasoningDelta(PartEvent, tag=events.REASONING_DELTA):
    """A piece of the thoughts, of so many `tokens`; of one if it does not say."""

    delta: str
    tokens: Annotated[int, Meta(ge=2)] | UnsetType = UNSET


class ReasoningDone(PartEvent, tag="response.reasoning_text.done"):
    """The thoughts are whole."""

    text: str


class AnswerDelta(PartEvent, tag=events.ANSWER_DELTA):
    """A piece of the answer. The last two fields describe the moment of its release."""

    delta: str
    logprobs: list[Logprob]
    tokens: Annotated[int, Meta(ge=2)] | UnsetType = UNSET
    buffered_tokens: Count | UnsetType = UNSET
    slack_s: float | UnsetType | None = UNSET


class AnswerDone(PartEvent, tag="response.output_text.done"):
    """The text of the answer is whole."""

    text: str
    logprobs: list[Logprob]


class SummaryEvent(ItemEvent):
    """An event of a summary, which has one part."""

    item_id: str
    summary_index: Literal[0]


class SummaryPartAdded(SummaryEvent, tag="response.reasoning_summary_part.added"):
    """A summary begins."""

    part: SummaryText


class SummaryDelta(SummaryEvent, tag=events.SUMMARY_DELTA):
    """A piece of a summary."""

    delta: str
    tokens: Annotated[int, Meta(ge=2)] | UnsetType = UNSET


class SummaryDone(SummaryEvent, tag="response.reasoning_summary_text.done"):
    """The text of a summary is whole."""

    text: str


class SummaryPartDone(SummaryEvent, tag="response.reasoning_summary_part.done"):
    """A summary is whole, unless its `status` says that it was cut off."""

    part: SummaryText
    status: Literal["incomplete"] | UnsetType = UNSET


class CallEvent(ItemEvent):
    """An event of a call."""

    item_id: str


class CallDelta(CallEvent, tag=events.CALL_DELTA):
    """A piece of the arguments of a call."""

    delta: str
    tokens: Annotated[int, Meta(ge=2)] | UnsetType = UNSET


class CallDone(CallEvent, tag="response.function_call_arguments.done"):
    """The arguments of a call are whole."""

    name: str
    arguments: str


class CustomCallDelta(CallEvent, tag=events.CUSTOM_CALL_DELTA):
    """The input of a call of a custom tool."""

    delta: str
    tokens: Annotated[int, Meta(ge=2)] | UnsetType = UNSET


class CustomCallDone(CallEvent, tag="response.custom_tool_call_input.done"):
    """The input of a call of a custom tool is whole."""

    input: str


class ErrorEvent(Answer, tag_field="type", tag="error"):
    """A message was refused, or a stream ended early. The socket goes on."""

    status: Annotated[int, Meta(ge=400, le=599)]
    error: ErrorObject


ResponseEvent = (
    Created
    | InProgress
    | ItemAdded
    | ItemDone
    | PartAdded
    | PartDone
    | ReasoningDelta
    | ReasoningDone
    | AnswerDelta
    | AnswerDone
    | SummaryPartAdded
    | SummaryDelta
    | SummaryDone
    | SummaryPartDone
    | CallDelta
    | CallDone
    | CustomCallDelta
    | CustomCallDone
    | Completed
    | Incomplete
    | Failed
    | ErrorEvent
)


# ---- chat completions -------------------------------------------------------------------------


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


# ---- the Messages API -------------------------------------------------------------------------


class TextBlock(Answer, tag_field="type", tag="text"):
    """Text of the answer."""

    text: str


class ThinkingBlock(Answer, tag_field="type", tag="thinking"):
    """Thoughts."""

    thinking: str
    signature: str


class ToolUseBlock(Answer, tag_field="type", tag="tool_use"):
    """A call of a tool."""

    id: str
    name: str
    input: dict[str, Any]


ContentBlock = TextBlock | ThinkingBlock | ToolUseBlock
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class MessagesUsage(Answer):
    """Token counts of a message."""

    input_tokens: Count
    cache_creation_input_tokens: Count
    cache_read_input_tokens: Count
    output_tokens: Count


class WrittenMessage(Answer, tag_field="type", tag="message"):
    """A whole message."""

    id: str
    role: Literal["assistant"]
    model: str
    content: list[ContentBlock]
    stop_reason: StopReason
    stop_sequence: str | None
    usage: MessagesUsage
    timing: Timing
    qoe: Qoe
    instance: str | None


class BegunMessage(Answer, tag_field="type", tag="message"):
    """A message at its begin."""

    id: str
    role: Literal["assistant"]
    model: str
    content: list[ContentBlock]
    stop_reason: None
    stop_sequence: None
    usage: MessagesUsage


class TokenCount(Answer):
    """The length of a prompt."""

    input_tokens: Count


class MessageStart(Answer, tag_field="type", tag="message_start"):
    """The first event."""

    message: BegunMessage


class BlockStart(Answer, tag_field="type", tag="content_block_start"):
    """A block begins."""

    index: Count
    content_block: ContentBlock


class TextDelta(Answer, tag_field="type", tag="text_delta"):
    """A piece of the answer."""

    text: str


class ThinkingDelta(Answer, tag_field="type", tag="thinking_delta"):
    """A piece of the thoughts."""

    thinking: str


class InputDelta(Answer, tag_field="type", tag="input_json_delta"):
    """A piece of the arguments of a call."""

    partial_json: str


class SignatureDelta(Answer, tag_field="type", tag="signature_delta"):
    """The signature of the thoughts."""

    signature: str


class BlockDelta(Answer, tag_field="type", tag="content_block_delta"):
    """A piece of a block."""

    index: Count
    delta: TextDelta | ThinkingDelta | InputDelta | SignatureDelta


class BlockStop(Answer, tag_field="type", tag="content_block_stop"):
    """A block is whole."""

    index: Count


class Stop(Answer):
    """Why the model stopped."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Answer, tag_field="type", tag="message_delta"):
    """The end of a message: why the model stopped, and what was measured."""

    delta: Stop
    usage: MessagesUsage
    timing: Timing
    qoe: Qoe
    instance: str | None


class MessageStop(Answer, tag_field="type", tag="message_stop"):
    """The last event."""


class Ping(Answer, tag_field="type", tag="ping"):
    """A sign of life."""


class MessagesErrorEvent(Answer, tag_field="type", tag="error"):
    """The message cannot be completed."""

    error: ErrorObject


MessagesEvent = (
    MessageStart
    | BlockStart
    | BlockDelta
    | BlockStop
    | MessageDelta
    | MessageStop
    | Ping
    | MessagesErrorEvent
)
