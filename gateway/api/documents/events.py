"""The events of a response as types, by the API that sends them; see `objects`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType

from gateway.api.documents.objects import (
    Answer,
    Count,
    ErrorObject,
    Logprob,
    OutputItem,
    OutputText,
    ReasoningText,
    Response,
    SummaryText,
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


class Pong(Answer, tag_field="type", tag=events.PONG):
    """The answer to a ping. It is no event of a response.

    ``ahead``: how many requests wait before the response of the ping, which waits, too.
    """

    ahead: Annotated[int, Meta(ge=0)] | None = None


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
