"""Chunks of a streamed chat completion, told as the events of a response.

So that one record (`bench.load.record`) and one set of figures serve both APIs. Pure. What a chat
completion does not say is concluded:

* the thinking ends with its last delta (a step before the end-of-thinking token, which shows
  nothing), so TTFAT is about a step longer than on the Responses API;
* every delta counts as one token;
* there is no final text to compare the deltas with, and no numbers that could show a gap.

What can be checked is: the two names of a thought carry the same text, the choice ends exactly
once, ``data: [DONE]`` comes once, and no text follows it.
"""

from __future__ import annotations

import msgspec

from bench.load.record import (
    Error,
    Event,
    IncompleteDetails,
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


class Delta(msgspec.Struct, frozen=True):
    """What a chunk adds. Servers differ in the name of a thought."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


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


class Chunk(msgspec.Struct, frozen=True):
    """One ``chat.completion.chunk``; fields that are not named here are ignored."""

    id: str = ""
    choices: tuple[Choice, ...] = ()
    usage: ChatUsage | None = None
    error: Error | None = None
    instance: str | None = None  # this and the next are extensions of ours
    timing: Timing | None = None
    qoe: ServerQoE | None = None


_decoder = msgspec.json.Decoder(Chunk)


class ChatReader:
    """Feeds one record with what a chat completion streams. Give it every event's data."""

    def __init__(self, record: ResponseRecord) -> None:
        self._record = record
        self._sequence = 0
        self._thoughts: list[str] = []
        self._answer: list[str] = []
        self._thought_s: float | None = None  # the last one, as long as no answer has begun
        self._finish: Chunk | None = None
        self._usage: ChatUsage | None = None

    def receive(self, data: bytes, received_s: float) -> None:
        """:raises msgspec.DecodeError: if it is no chunk."""
        if data == _DONE:
            self._done(received_s)
            return
        chunk = _decoder.decode(data)
        if chunk.error is not None:
            self._record.abandon(f"error in the stream: {chunk.error}", received_s)
            return
        if self._sequence == 0:
            self._tell(received_s, "response.created", response=ResponseObject(id=chunk.id))
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
            self._thoughts.append(thought)
            self._thought_s = received_s
            self._tell(received_s, "response.reasoning_text.delta", delta=thought)
        if delta.content:
            self._end_thinking()
            self._answer.append(delta.content)
            self._tell(received_s, "response.output_text.delta", delta=delta.content)
        if choice.finish_reason is not None:
            if self._finish is not None:
                self._record.fail("the choice was finished twice")
            self._finish = chunk

    def _end_thinking(self) -> None:
        if self._thought_s is not None and not self._answer:
            item = Item("reasoning")
            self._tell(self._thought_s, "response.output_item.done", item=item)

    def _done(self, received_s: float) -> None:
        if self._finish is None:
            self._record.abandon("[DONE] came before a finish_reason", received_s)
            return
        reason = self._finish.choices[0].finish_reason
        match reason:
            case "stop":
                status, details = "completed", None
            case "length":
                status, details = "incomplete", IncompleteDetails("max_output_tokens")
            case _:
                status, details = "incomplete", IncompleteDetails(f"finish_reason {reason}")
        self._tell(received_s, f"response.{status}", response=self._response(status, details))

    def _response(self, status: str, details: IncompleteDetails | None) -> ResponseObject:
        assert self._finish is not None
        return ResponseObject(
            id=self._finish.id,
            status=status,
            output=(
                Item("reasoning", (Part("reasoning_text", "".join(self._thoughts)),)),
                Item("message", (Part("output_text", "".join(self._answer)),)),
            ),
            usage=self._tokens(),
            incomplete_details=details,
            instance=self._finish.instance,
            timing=self._finish.timing,
            qoe=self._finish.qoe,
        )

    def _tokens(self) -> Usage | None:
        """The usage; where a server does not say how much of it is thinking, the deltas do."""
        usage = self._usage
        if usage is None:
            return None
        said = usage.completion_tokens_details
        reasoning = said.reasoning_tokens if said else None
        if reasoning is None:
            reasoning = min(len(self._thoughts), usage.completion_tokens)
        return Usage(usage.prompt_tokens, usage.completion_tokens, OutputDetails(reasoning))

    def _tell(
        self,
        received_s: float,
        kind: str,
        *,
        delta: str = "",
        item: Item | None = None,
        response: ResponseObject | None = None,
    ) -> None:
        number = self._sequence
        self._sequence += 1
        self._record.receive(
            Event(type=kind, sequence_number=number, delta=delta, item=item, response=response),
            received_s,
        )
