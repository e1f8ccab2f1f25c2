"""What a request says: the body of either API, with what was said in its conversation before.

`Conversation` holds what one reader and the model said so far. On the Responses API the server
remembers, and a turn names the response that it follows; on chat completions the client tells the
whole history again, answers without their thoughts. Pure: it must not know how bodies travel.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bench.load.options import Options
from bench.load.plan import Planned
from bench.load.prompts import ChatMessage
from bench.load.record import ResponseRecord


class Conversation:
    """What was said so far. For every turn: `body`, then `answered` when its answer is there."""

    def __init__(self, options: Options, model: str) -> None:
        self._options = options
        self._model = model
        self._previous: str | None = None  # the response of the turn before
        self._history: list[ChatMessage] = []

    def body(self, planned: Planned) -> dict[str, Any]:
        """What to send for the next turn."""
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
        """The turn has come to a sound end."""
        self._previous = record.response_id
        self._history.append(ChatMessage("assistant", record.answer_text))


def next_due_s(record: ResponseRecord, think_s: float) -> float:
    """When the reader sends the next question, on the clock of the record, which has ended.

    So long after the last token of the answer, but not before the response has ended: until then
    the server takes no turn that follows it.
    """
    assert record.ended_s is not None
    last_s = record.answer[-1].received_s if record.answer else record.ended_s
    return max(last_s + think_s, record.ended_s)
