"""One response as the client received it: its events, collected and checked.

Decides whether a response kept the protocol (`docs/reference/api.md`). Pure: the caller stamps
every event with its own clock, in seconds, when it reads it off the socket. This module must not
know sockets, and computes no results (`bench.load.measure` does).

A response *fails* when it is refused or ends in ``response.failed``, when its connection is lost,
or when it breaks a rule of the protocol:

* ``sequence_number`` counts 0, 1, 2, ... without a gap,
* exactly one terminal event arrives, and nothing after it,
* the joined deltas equal the text of the final object, for the reasoning, the answer and the
  calls of tools,
* forced lengths are met exactly,
* it is incomplete only for a reason that lies in the request or the model.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

Outcome: TypeAlias = Literal["completed", "incomplete", "failed", "interrupted"]

TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})

CALL = "function_call"  # the type of an item

# Endings that a correct server may produce by itself. "cancelled" is not among them: the load
# generator cancels only requests that it has already given up.
EXPECTED_INCOMPLETE = frozenset({"max_output_tokens", "no_answer"})


# The parts of the server's objects that are read here; other fields are ignored.


class Part(msgspec.Struct, frozen=True):
    """One content part of an output item."""

    type: str
    text: str = ""


class Item(msgspec.Struct, frozen=True):
    """One output item: the reasoning, the answer, or a call of a tool."""

    type: str
    content: tuple[Part, ...] | None = None
    id: str = ""
    call_id: str = ""  # this field and the next two are those of a call
    name: str = ""
    arguments: str = ""

    @property
    def text(self) -> str:
        """The text of all parts."""
        return "".join(part.text for part in self.content or ())


class Error(msgspec.Struct, frozen=True):
    """OpenAI's error object."""

    message: str = ""
    code: str | None = None
    type: str | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.code or self.type, self.message) if part)


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why a response is incomplete."""

    reason: str = ""


class OutputDetails(msgspec.Struct, frozen=True):
    """Parts of the output tokens."""

    reasoning_tokens: int = 0


class InputDetails(msgspec.Struct, frozen=True):
    """Parts of the input tokens."""

    cached_tokens: int | None = None  # that were in the KV cache; None if not reported


class Usage(msgspec.Struct, frozen=True):
    """Tokens of a response. Output tokens include those of the reasoning."""

    input_tokens: int = 0
    output_tokens: int = 0
    output_tokens_details: OutputDetails = OutputDetails()
    input_tokens_details: InputDetails | None = None


class Delivery(msgspec.Struct, frozen=True):
    """The server's own metrics of one stream of tokens, in seconds."""

    ttft_s: float | None = None
    ttfat_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None


class Timing(msgspec.Struct, frozen=True):
    """Tokens as the engine delivered them (``raw``), and as the reader got them (``paced``)."""

    raw: Delivery | None = None
    paced: Delivery | None = None
    reasoning_s: float | None = None


class ServerQoE(msgspec.Struct, frozen=True):
    """The three scores of the server (paper, "QoE, exactly")."""

    qoe: float | None = None
    qoe_ttfat: float | None = None
    qoe_e2e: float | None = None


class ResponseObject(msgspec.Struct, frozen=True):
    """The response object that events carry."""

    id: str
    status: str = ""
    output: tuple[Item, ...] = ()
    usage: Usage | None = None
    error: Error | None = None
    incomplete_details: IncompleteDetails | None = None
    instance: str | None = None
    timing: Timing | None = None
    qoe: ServerQoE | None = None
    underruns: int | None = None
    preemptions: int | None = None
    migrations: int | None = None

    def text(self, kind: str) -> str:
        """The text of all items of one type, ``reasoning`` or ``message``."""
        return "".join(item.text for item in self.output if item.type == kind)

    def calls(self) -> list[tuple[str, str, str]]:
        """Id, name and arguments of each call."""
        return [(i.call_id, i.name, i.arguments) for i in self.output if i.type == CALL]


class Event(msgspec.Struct, frozen=True):
    """Any event of the server."""

    type: str
    sequence_number: int | None = None
    stream_id: str | None = None
    delta: str = ""
    tokens: Annotated[int, msgspec.Meta(ge=1)] = 1  # tokens that the delta completes
    buffered_tokens: int | None = None  # generated, and not yet released to the reader
    item: Item | None = None
    item_id: str = ""  # of a delta
    response: ResponseObject | None = None
    status: int | None = None  # of an error
    error: Error | None = None


_decoder = msgspec.json.Decoder(Event)


def decode(message: str | bytes) -> Event:
    """:raises msgspec.DecodeError: if it is not JSON, or not an event."""
    return _decoder.decode(message)


class ForcedLengths(msgspec.Struct, frozen=True, kw_only=True):
    """Exact lengths that a request asks for, in tokens."""

    reasoning_tokens: int
    answer_tokens: int
    call_tokens: int = 0  # of a call behind the answer; 0: no call

    def body(self) -> dict[str, int]:
        """The field of the request."""
        lengths = {"reasoning_tokens": self.reasoning_tokens, "answer_tokens": self.answer_tokens}
        return lengths | ({"call_tokens": self.call_tokens} if self.call_tokens else {})


class Call:
    """A call of a tool, as it arrives."""

    def __init__(self, item: Item) -> None:
        self.call_id = item.call_id
        self.name = item.name
        self.deltas: list[str] = []
        self.ended_s: float | None = None  # it was complete

    @property
    def arguments(self) -> str:
        """The arguments as they arrived: JSON, if the model wrote them right."""
        return "".join(self.deltas)


class AnswerDelta(msgspec.Struct, frozen=True):
    """One delta of the answer, as it arrived."""

    received_s: float
    tokens: int
    buffered: int | None = None  # tokens that the server still held back; None if not reported


class ResponseRecord:
    """Collects the events of one response.

    Set `sent_s`, then call `receive` for every event, in order. After the end it still checks that
    nothing more arrives. `abandon` ends it from outside, also before it was sent. `failure` keeps
    the first reason.
    """

    def __init__(self, forced: ForcedLengths | None = None) -> None:
        self.sent_s: float | None = None  # when the request was written to the socket
        self.forced = forced
        self.response_id: str | None = None
        self.first_token_s: float | None = None  # the first delta, of reasoning or answer
        self.reasoning_end_s: float | None = None  # the reasoning item was done
        self.answer: list[AnswerDelta] = []
        self.calls: list[Call] = []
        self.ended_s: float | None = None  # the terminal event, or when it was abandoned
        self.final: ResponseObject | None = None
        self.failure: str | None = None
        self.interrupted = False
        self._next_sequence = 0
        self._reasoning_text: list[str] = []
        self._answer_text: list[str] = []
        self._calls: dict[str, Call] = {}  # by item
        self._terminal: str | None = None

    @property
    def ended(self) -> bool:
        """True when nothing more is expected."""
        return self.ended_s is not None

    @property
    def answer_text(self) -> str:
        """The answer as it arrived."""
        return "".join(self._answer_text)

    @property
    def reasoning_text(self) -> str:
        """The thoughts as they arrived."""
        return "".join(self._reasoning_text)

    @property
    def outcome(self) -> Outcome:
        """How the response ended; one that has not ended is ``failed``."""
        if self.interrupted:
            return "interrupted"
        if self.failure is not None:
            return "failed"
        match self._terminal:
            case "response.completed":
                return "completed"
            case "response.incomplete":
                return "incomplete"
            case _:
                return "failed"

    @property
    def sound(self) -> bool:
        """Whether it ended as a correct server may end it: completed or incomplete."""
        return self.outcome in ("completed", "incomplete")

    @property
    def incomplete_reason(self) -> str | None:
        """The server's reason for an incomplete response; None if it gave none."""
        details = self.final.incomplete_details if self.final else None
        return details.reason if details else None

    def receive(self, event: Event, received_s: float) -> None:
        """Account for the next event of this response."""
        if self.ended:
            if self._terminal is not None:
                self.fail(f"{event.type} came after the terminal event {self._terminal}")
            return  # a late event of a response that was given up
        if event.type == "error":
            self.abandon(f"error {event.status}: {event.error or 'no message'}", received_s)
            return
        self._check_sequence(event)
        if event.response is not None:
            self.response_id = event.response.id
        match event.type:
            case "response.output_text.delta":
                self.answer.append(AnswerDelta(received_s, event.tokens, event.buffered_tokens))
                self._answer_text.append(event.delta)
                if self.first_token_s is None:
                    self.first_token_s = received_s
            case "response.reasoning_text.delta":
                self._reasoning_text.append(event.delta)
                if self.first_token_s is None:
                    self.first_token_s = received_s
            case "response.function_call_arguments.delta":
                if (call := self._calls.get(event.item_id)) is None:
                    self.fail(f"arguments arrived for {event.item_id!r}, which is no call")
                else:
                    call.deltas.append(event.delta)
            case "response.output_item.added":
                if event.item is not None and event.item.type == CALL:
                    self._begin_call(event.item, received_s)
            case "response.output_item.done":
                self._end_item(event.item, received_s)
            case terminal if terminal in TERMINAL:
                self._end(event, received_s)

    def abandon(self, reason: str, now: float) -> None:
        """End it as failed: refused, timed out, connection lost. Ignored after its end."""
        if not self.ended:
            self.fail(reason)
            self.ended_s = now

    def interrupt(self, now: float) -> None:
        """End it because the run was stopped. Ignored after its end."""
        if not self.ended:
            self.interrupted = True
            self.ended_s = now

    def fail(self, reason: str) -> None:
        """Note why it failed; the first reason stays."""
        if self.failure is None:
            self.failure = reason

    def _begin_call(self, item: Item, received_s: float) -> None:
        call = self._calls[item.id] = Call(item)
        self.calls.append(call)
        if self.first_token_s is None:
            self.first_token_s = received_s

    def _end_item(self, item: Item | None, received_s: float) -> None:
        if item is None:
            return
        if item.type == "reasoning" and not self.answer:  # the model may think again later
            self.reasoning_end_s = received_s
        elif item.type == CALL and item.id in self._calls:
            self._calls[item.id].ended_s = received_s

    def _check_sequence(self, event: Event) -> None:
        number = event.sequence_number
        if number != self._next_sequence:
            self.fail(
                f"{event.type} has sequence_number {number} where {self._next_sequence} was due"
            )
        self._next_sequence = (self._next_sequence if number is None else number) + 1

    def _end(self, event: Event, received_s: float) -> None:
        self.ended_s = received_s
        self._terminal = event.type
        self.final = event.response
        if self.final is None:
            self.fail(f"{event.type} carries no response object")
            return
        if event.type != f"response.{self.final.status}":
            self.fail(f"{event.type} carries a response with status {self.final.status!r}")
        if event.type == "response.failed":
            self.fail(f"response failed: {self.final.error or 'no message'}")
            return
        if event.type == "response.incomplete":
            reason = self.incomplete_reason
            if reason not in EXPECTED_INCOMPLETE:
                self.fail(f"incomplete for an unexpected reason: {reason or 'none given'}")
        self._check_text("reasoning", self._reasoning_text, self.final.text("reasoning"))
        self._check_text("answer", self._answer_text, self.final.text("message"))
        calls = [(call.call_id, call.name, call.arguments) for call in self.calls]
        if calls != self.final.calls():
            self.fail("the calls of tools differ from those of the final response")
        self._check_lengths()

    def _check_text(self, what: str, deltas: list[str], final: str) -> None:
        joined = "".join(deltas)
        if joined != final:
            where = next(
                (i for i, (a, b) in enumerate(zip(joined, final, strict=False)) if a != b),
                min(len(joined), len(final)),
            )
            self.fail(
                f"the deltas of the {what} ({len(joined)} characters) differ from the final text "
                f"({len(final)} characters) at character {where}"
            )

    def _check_lengths(self) -> None:
        if self.forced is None:
            return
        usage = self.final.usage if self.final is not None else None
        if usage is None:
            self.fail("no usage to check the forced lengths against")
            return
        reasoning = usage.output_tokens_details.reasoning_tokens
        got = (reasoning, usage.output_tokens - reasoning)
        # The usage does not tell calls from answers.
        asked = (self.forced.reasoning_tokens, self.forced.answer_tokens + self.forced.call_tokens)
        if got != asked:
            self.fail(
                f"lengths {got[0]} + {got[1]} tokens where {asked[0]} + {asked[1]} were forced"
            )
