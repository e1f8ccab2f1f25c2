"""Messages and events of the Messages API as types; see `objects`."""

from __future__ import annotations

from typing import Any, Literal

from gateway.api.documents.objects import Answer, Count, ErrorObject, Qoe, Timing


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
