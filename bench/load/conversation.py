"""Bodies of requests in either API, with the earlier turns of their conversation.

With the Responses API the server keeps the history, and a turn names the response that it follows.
With chat completions the client resends the history: answers without their thoughts, but what an
agent's model wrote as a whole. Pure: it must not know how bodies travel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bench.load.options import Options
from bench.load.plan import Planned
from bench.load.record import ResponseRecord


class Conversation:
    """One conversation. Call `body` for every turn, and `answered` when it is complete."""

    def __init__(
        self, options: Options, model: str, tools: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """:param tools: of every turn, in the form of chat completions."""
        self._options = options
        self._model = model
        self._tools = tools
        self._previous: str | None = None  # the response of the turn before
        self._history: list[dict[str, Any]] = []

    def body(self, planned: Planned) -> dict[str, Any]:
        """The body of the next turn."""
        options = self._options
        chat = options.api == "chat-sse"
        body: dict[str, Any] = {"model": self._model}
        asked = [msgspec.to_builtins(message) for message in planned.prompt.messages]
        if chat:
            self._history += asked
            self._history += [
                {"role": "tool", "tool_call_id": result.call_id, "content": result.text}
                for result in planned.results
            ]
            body["messages"] = list(self._history)
            body["stream_options"] = {"include_usage": True}
        else:
            body["input"] = asked + [
                {"type": "function_call_output", "call_id": result.call_id, "output": result.text}
                for result in planned.results
            ]
            if self._previous is not None:
                body["previous_response_id"] = self._previous
        if self._tools:
            body["tools"] = list(self._tools) if chat else [_flat(tool) for tool in self._tools]
        if options.api != "responses-ws":
            body["stream"] = True
        if options.max_tokens is not None:
            body["max_tokens" if chat else "max_output_tokens"] = options.max_tokens
        if options.extensions is not False:
            body["pacing"] = {"tpot_s": options.tpot_s} if options.pacing else False
            if planned.forced is not None:
                body["forced_lengths"] = planned.forced.body()
        return body

    def answered(self, record: ResponseRecord) -> None:
        """Add what the model wrote in the turn, which ended normally."""
        self._previous = record.response_id
        message: dict[str, Any] = {"role": "assistant", "content": record.answer_text}
        if self._tools and record.reasoning_text:
            message["reasoning_content"] = record.reasoning_text
        if record.calls:
            message["tool_calls"] = [
                {
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in record.calls
            ]
        self._history.append(message)


def next_due_s(record: ResponseRecord, think_s: float) -> float:
    """When the reader sends the next question, on the clock of the record.

    It is sent ``think_s`` after the last token of the answer, but not before the response has
    ended: until then the server accepts no turn that follows it.

    :param record: of a response that has ended.
    """
    assert record.ended_s is not None
    last_s = record.answer[-1].received_s if record.answer else record.ended_s
    return max(last_s + think_s, record.ended_s)


def _flat(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in the form of the Responses API."""
    return {"type": "function", **tool["function"]}
