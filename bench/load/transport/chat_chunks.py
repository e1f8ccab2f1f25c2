"""Translates the chunks of a streamed chat completion to the events of a response.

With it, one record (`bench.load.record`) and one set of metrics serve both APIs. Pure. A chat
completion says less than a response, so the translation assumes:

* The reasoning ends with its last delta. That is one step before the end-of-reasoning token, which
  has no text, so TTFAT is about a step longer than on the Responses API.
* A call ends with its last delta.
* Every delta is one token.
* There is no final text to compare the deltas with, and no sequence number that could show a gap.

It checks that both names of a reasoning delta carry the same text, that the choice ends exactly
once, that ``data: [DONE]`` arrives once, and that no text follows it.
"""

from __future__ import annotations

import msgspec

from bench.load.record import (
    CALL,
    Error,
    Event,
    IncompleteDetails,
    InputDetails,
    Item,
    OutputDetails,
    Part,
    ResponseObject,
    ResponseRecord,
    ServerQoE,
    Timing,
    Usage,
)

_DONE = b"[DONE]"


class FunctionDelta(msgspec.Struct, frozen=True):
    """The name of the tool, in the first delta of a call, and a piece of the arguments."""

    name: str | None = None
    arguments: str | None = None


class CallDelta(msgspec.Struct, frozen=True):
    """A piece of a call."""

    index: int
    id: str | None = None  # in the first delta of a call
    function: FunctionDelta = FunctionDelta()


class Delta(msgspec.Struct, frozen=True):
    """The text that a chunk adds. Servers differ in the name of reasoning text."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[CallDelta, ...] | None = None


class Choice(msgspec.Struct, frozen=True):
    """One choice of a chunk; there is only one in a stream."""

    delta: Delta = Delta()
    finish_reason: str | None = None


class CompletionDetails(msgspec.Struct, frozen=True):
    """Parts of the output tokens."""

    reasoning_tokens: int | None = None


class ChatUsage(msgspec.Struct, frozen=True):
    """Tokens of a completion."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    completion_tokens_details: CompletionDetails | None = None
    prompt_tokens_details: InputDetails | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One ``chat.completion.chunk``; fields that are not named here are ignored."""

    id: str = ""
    choices: tuple[Choice, ...] = ()
    usage: ChatUsage | None = None
    error: Error | None = None
    instance: str | None = None  # this field and the next two are our extensions
    timing: Timing | None = None
    qoe: ServerQoE | None = None


_decoder = msgspec.json.Decoder(Chunk)


class ChatReader:
    """Feeds one record with the data of every event of a chat completion."""

    def __init__(self, record: ResponseRecord) -> None:
        self._record = record
        self._sequence = 0
        self._thoughts: list[str] = []
        self._answer: list[str] = []
        self._thought_s: float | None = None  # the last one, until something else begins
        self._calls: dict[int, Item] = {}  # by their index
        self._call_s: float | None = None  # the last piece of a call that has not ended
        self._finish: Chunk | None = None
        self._usage: ChatUsage | None = None

    def receive(self, data: bytes, received_s: float) -> None:
        """Take the data of one event; :raises msgspec.DecodeError: if it is not a chunk."""
        if data == _DONE:
            self._done(received_s)
            return
        chunk = _decoder.decode(data)
        if chunk.error is not None:
            self._record.abandon(f"error in the stream: {chunk.error}", received_s)
            return
        if self._sequence == 0:
            self._emit(received_s, "response.created", response=ResponseObject(id=chunk.id))
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices:
            self._choose(chunk, choice, received_s)

    def _choose(self, chunk: Chunk, choice: Choice, received_s: float) -> None:
        delta = choice.delta
        thought = delta.reasoning or delta.reasoning_content
        if thought:
            if delta.reasoning and delta.reasoning_content not in (None, delta.reasoning):
                self._record.fail("delta.reasoning and delta.reasoning_content differ")
            self._end_call()
            self._thoughts.append(thought)
            self._thought_s = received_s
            self._emit(received_s, "response.reasoning_text.delta", delta=thought)
        if delta.content:
            self._end_reasoning()
            self._end_call()
            self._answer.append(delta.content)
            self._emit(received_s, "response.output_text.delta", delta=delta.content)
        for piece in delta.tool_calls or ():
            self._end_reasoning()
            self._add_to_call(piece, received_s)
        if choice.finish_reason is not None:
            if self._finish is not None:
                self._record.fail("the choice was finished twice")
            self._finish = chunk

    def _end_reasoning(self) -> None:
        if self._thought_s is not None:
            item = Item("reasoning")
            self._emit(self._thought_s, "response.output_item.done", item=item)
            self._thought_s = None

    def _add_to_call(self, piece: CallDelta, received_s: float) -> None:
        name, text = piece.function.name or "", piece.function.arguments or ""
        item = self._calls.get(piece.index)
        if item is None:
            self._end_call()
            item = Item(CALL, id=str(piece.index), call_id=piece.id or "", name=name)
            self._emit(received_s, "response.output_item.added", item=item)
        self._calls[piece.index] = msgspec.structs.replace(item, arguments=item.arguments + text)
        self._call_s = received_s
        if text:
            kind = "response.function_call_arguments.delta"
            self._emit(received_s, kind, delta=text, item_id=item.id)

    def _end_call(self) -> None:
        """End the last call, if there is one that has not ended."""
        if self._call_s is not None:
            item = next(reversed(self._calls.values()))
            self._emit(self._call_s, "response.output_item.done", item=item)
            self._call_s = None

    def _done(self, received_s: float) -> None:
        if self._finish is None:
            self._record.abandon("[DONE] came before a finish_reason", received_s)
            return
        self._end_call()
        reason = self._finish.choices[0].finish_reason
        match reason:
            case "stop" | "tool_calls":
                status, details = "completed", None
            case "length":
                status, details = "incomplete", IncompleteDetails("max_output_tokens")
            case _:
                status, details = "incomplete", IncompleteDetails(f"finish_reason {reason}")
        self._emit(received_s, f"response.{status}", response=self._response(status, details))

    def _response(self, status: str, details: IncompleteDetails | None) -> ResponseObject:
        assert self._finish is not None
        return ResponseObject(
            id=self._finish.id,
            status=status,
            output=(
                Item("reasoning", (Part("reasoning_text", "".join(self._thoughts)),)),
                Item("message", (Part("output_text", "".join(self._answer)),)),
                *self._calls.values(),
            ),
            usage=self._tokens(),
            incomplete_details=details,
            instance=self._finish.instance,
            timing=self._finish.timing,
            qoe=self._finish.qoe,
        )

    def _tokens(self) -> Usage | None:
        """The usage. If the server does not report reasoning tokens, their deltas are counted."""
        usage = self._usage
        if usage is None:
            return None
        details = usage.completion_tokens_details
        reasoning = details.reasoning_tokens if details else None
        if reasoning is None:
            reasoning = min(len(self._thoughts), usage.completion_tokens)
        return Usage(
            usage.prompt_tokens,
            usage.completion_tokens,
            OutputDetails(reasoning),
            usage.prompt_tokens_details,
        )

    def _emit(
        self,
        received_s: float,
        kind: str,
        *,
        delta: str = "",
        item: Item | None = None,
        item_id: str = "",
        response: ResponseObject | None = None,
    ) -> None:
        number = self._sequence
        self._sequence += 1
        event = Event(
            type=kind,
            sequence_number=number,
            delta=delta,
            item=item,
            item_id=item_id,
            response=response,
        )
        self._record.receive(event, received_s)
