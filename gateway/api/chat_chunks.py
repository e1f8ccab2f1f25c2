"""What chat completions send: the chunks of a stream, and the choices of a whole completion.

Chunks carry reasoning text twice, as ``delta.reasoning`` and ``delta.reasoning_content``: some
clients read the one, some the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from gateway.api import sse
from gateway.response.output_item import OutputItem
from gateway.response.session import Session
from gateway.schemas.errors import Cancelled

_MARK = "\x00"  # stands for the text; the model's name may contain anything but this
_MARK_BYTES = b"\\u0000"


def head(session: Session, kind: str) -> dict[str, Any]:
    """The fields with which a completion or a chunk begins."""
    return {
        "id": "chatcmpl-" + session.response_id.removeprefix("resp_"),
        "object": kind,
        "created": int(session.created_at),
        "model": session.model,
    }


class ChoiceChunks:
    """The chunks of one choice. Texts are insides of JSON strings.

    :param first: fields of each chunk, as `head` returns them.
    :param frame: makes what goes to the connection of a server-sent event.
    :param logprobs: whether the client asked for log probabilities.
    """

    def __init__(
        self,
        first: dict[str, Any],
        index: int,
        frame: Callable[[bytes], bytes],
        *,
        logprobs: bool,
    ) -> None:
        self._head = first
        self._index = index
        self._frame = frame
        self._calls: dict[str, bytes] = {}  # by item: what stands before its arguments
        # What stands around the text in the chunks of a phase.
        self._answer = self.chunk({"content": _MARK}).split(_MARK_BYTES)
        self._reasoning = self.chunk({"reasoning": _MARK, "reasoning_content": _MARK}).split(
            _MARK_BYTES
        )
        self._logged = None
        if logprobs:
            both = self.chunk({"content": _MARK}, logprobs={"content": [_MARK]})
            self._logged = both.replace(b'"%b"]' % _MARK_BYTES, b"%b]" % _MARK_BYTES).split(
                _MARK_BYTES
            )

    def chunk(
        self,
        delta: dict[str, Any],
        finish: str | None = None,
        logprobs: dict[str, Any] | None = None,
        **extra: Any,
    ) -> bytes:
        """An event with one chunk."""
        choice = {
            "index": self._index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish,
        }
        return sse.frame(orjson.dumps({**self._head, "choices": [choice], **extra}))

    def text(self, item: OutputItem, text: bytes, deltas: range) -> bytes:
        """A piece of the text of an item; see `gateway.api.followers.Frames`."""
        if item.segment == "reasoning":
            before, between, after = self._reasoning
            return self._frame(b"%b%b%b%b%b" % (before, text, between, text, after))
        if item.segment == "call":
            before, after = self._arguments(item)
            return self._frame(b"%b%b%b" % (before, text, after))
        if self._logged is not None:
            before, between, after = self._logged
            logprobs = b",".join(filter(None, map(item.logprobs_of, deltas)))
            return self._frame(b"%b%b%b%b%b" % (before, text, between, logprobs, after))
        before, after = self._answer
        return self._frame(b"%b%b%b" % (before, text, after))

    def began(self, item: OutputItem) -> bytes:
        """A call began."""
        call = {
            "index": len(self._calls),
            "id": item.call_id,
            "type": "function",
            "function": {"name": item.name, "arguments": ""},
        }
        arguments = {"index": len(self._calls), "function": {"arguments": _MARK}}
        self._calls[item.item_id] = self.chunk({"tool_calls": [arguments]})
        return self._frame(self.chunk({"tool_calls": [call]}))

    def _arguments(self, item: OutputItem) -> list[bytes]:
        return self._calls[item.item_id].split(_MARK_BYTES)


def choice(session: Session, index: int) -> dict[str, Any]:
    """A choice of a whole completion.

    :raises ApiError: as `finish_reason`.
    """
    thoughts = session.reasoning_text or None
    calls = [
        {
            "id": call.call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in session.transcript.calls()
    ]
    text = session.answer_text
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if calls and not text else text,
        "reasoning": thoughts,
        "reasoning_content": thoughts,
        "refusal": None,
    }
    if calls:
        message["tool_calls"] = calls
    logprobs = None
    if session.generation.sampling.logprobs is not None:
        logprobs = {
            "content": [
                one
                for item in session.transcript.items
                if item.segment == "answer"
                for one in item.logprobs()
            ]
        }
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": finish_reason(session),
    }


# By `Session.incomplete_reason`. A model that stops without an answer also ends with "stop".
_FINISH_REASONS = {None: "stop", "no_answer": "stop", "max_output_tokens": "length"}


def finish_reason(session: Session) -> str:
    """Return why the model stopped.

    :raises ApiError: the response failed, was cancelled, or has not ended. The API has no reason
        for a response that was cut off.
    """
    if session.error is not None:
        raise session.error
    if not session.finished or session.incomplete_reason not in _FINISH_REASONS:
        raise Cancelled()
    reason = _FINISH_REASONS[session.incomplete_reason]
    return "tool_calls" if reason == "stop" and session.transcript.shown("call") else reason


def extensions(session: Session) -> dict[str, Any]:
    """What this server adds to the end of a choice."""
    return {**session.measurements(), "instance": session.instance_id}


def usage(sessions: list[Session]) -> dict[str, Any]:
    """Token counts of all choices; they share one prompt."""
    each = [session.usage() for session in sessions]
    first = each[0]
    completion = sum(one["output_tokens"] for one in each)
    reasoning = sum(one["output_tokens_details"]["reasoning_tokens"] for one in each)
    cached = max(one["input_tokens_details"]["cached_tokens"] for one in each)
    return {
        "prompt_tokens": first["input_tokens"],
        "completion_tokens": completion,
        "total_tokens": first["input_tokens"] + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
