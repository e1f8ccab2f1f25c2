"""Bodies of requests in either API, with the earlier turns of their conversation.

With the Responses API the server keeps the history, and a turn names the response that it follows.
With chat completions the client resends the history, answers without their reasoning. Pure: it
must not know how bodies travel.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bench.load.options import Options
from bench.load.plan import Planned
from bench.load.prompts import ChatMessage
from bench.load.record import ResponseRecord


class Conversation:
    """One conversation. Call `body` for every turn, and `answered` when its answer is complete."""

    def __init__(self, options: Options, model: str) -> None:
        self._options = options
        self._model = model
        self._previous: str | None = None  # the response of the turn before
        self._history: list[ChatMessage] = []

    def body(self, planned: Planned) -> dict[str, Any]:
        """The body of the next turn."""
        options = self._options
        body: dict[str, Any] = {"model": self._model}
        if options.api == "chat-sse":
            self._history += planned.prompt.messages
            body["messages"] = [msgspec.to_builtins(message) for message in self._history]
            body["stream_options"] = {"include_usage": True}
        else:
            body["input"] = [msgspec.to_builtins(message) for message in planned.prompt.messages]
            if self._previous is not None:
                body["previous_response_id"] = self._previous
        if options.api != "responses-ws":
            body["stream"] = True
        if options.max_tokens is not None:
            chat = options.api == "chat-sse"
            body["max_tokens" if chat else "max_output_tokens"] = options.max_tokens
        if options.extensions is not False:
            body["pacing"] = {"tpot_s": options.tpot_s} if options.pacing else False
            if planned.forced is not None:
                body["forced_lengths"] = msgspec.to_builtins(planned.forced)
        return body

    def answered(self, record: ResponseRecord) -> None:
        """Add the answer of the turn, which ended normally."""
        self._previous = record.response_id
        self._history.append(ChatMessage("assistant", record.answer_text))


def next_due_s(record: ResponseRecord, think_s: float) -> float:
    """When the reader sends the next question, on the clock of the record.

    It is sent ``think_s`` after the last token of the answer, but not before the response has
    ended: until then the server accepts no turn that follows it.

    :param record: of a response that has ended.
    """
    assert record.ended_s is not None
    last_s = record.answer[-1].received_s if record.answer else record.ended_s
    return max(last_s + think_s, record.ended_s)
