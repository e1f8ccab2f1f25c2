"""What the Messages API sends: the events of a stream, and a whole message.

Each output item is one block of the content. A block that is shown ends when the next one begins,
or with the message.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import orjson

from gateway.api import sse
from gateway.api.refusals import messages_error
from gateway.response.output_item import OutputItem
from gateway.response.session import Session
from gateway.schemas.errors import ApiError, Cancelled

_MARK = "\x00"  # stands for the text
_MARK_BYTES = b"\\u0000"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


class Blocks:
    """The events of one stream, as a `gateway.api.followers.Frames`.

    :param frame: makes what goes to the connection of a server-sent event.
    :param shows_thoughts: False: the client wants thinking blocks without their text.
    """

    def __init__(self, frame: Callable[[bytes], bytes], *, shows_thoughts: bool) -> None:
        self._frame = frame
        self._shows_thoughts = shows_thoughts
        self._item: OutputItem | None = None  # whose block is open
        self._index = -1  # of that block
        self._delta: list[bytes] = []  # what stands around the text of its deltas

    def text(self, item: OutputItem, text: bytes, deltas: range) -> bytes:
        """A piece of the text of an item."""
        begin = b"" if item is self._item else self._begin(item)
        if item.segment == "reasoning" and not self._shows_thoughts:
            return self._frame(begin) if begin else b""
        before, after = self._delta
        return self._frame(b"%b%b%b%b" % (begin, before, text, after))

    def began(self, item: OutputItem) -> bytes:
        """A call began."""
        return self._frame(self._begin(item))

    def end(self) -> bytes:
        """The end of the open block, if there is one."""
        if (item := self._item) is None:
            return b""
        self._item = None
        stop = _event({"type": "content_block_stop", "index": self._index})
        if item.segment != "reasoning":
            return stop
        delta = {"type": "signature_delta", "signature": signature()}
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta}) + stop

    def _begin(self, item: OutputItem) -> bytes:
        before = self.end()
        self._item = item
        self._index += 1
        block: dict[str, Any]
        if item.segment == "reasoning":
            block = {"type": "thinking", "thinking": "", "signature": ""}
            delta = {"type": "thinking_delta", "thinking": _MARK}
        elif item.segment == "answer":
            block = {"type": "text", "text": ""}
            delta = {"type": "text_delta", "text": _MARK}
        else:
            block = {"type": "tool_use", "id": item.call_id, "name": item.name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": _MARK}
        event = _event({"type": "content_block_delta", "index": self._index, "delta": delta})
        self._delta = event.split(_MARK_BYTES)
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return before + _event(start)


def message_start(session: Session) -> bytes:
    """The first event. The tokens found in the cache are known at the end."""
    usage = {
        "input_tokens": session.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0,
    }
    message = {**_head(session), "content": [], "stop_reason": None, "stop_sequence": None}
    return _event({"type": "message_start", "message": {**message, "usage": usage}})


def message_end(session: Session) -> bytes:
    """The last two events.

    :raises ApiError: as `stop_of`.
    """
    delta = stop_of(session)
    end = {"type": "message_delta", "delta": delta, "usage": usage(session), **_ours(session)}
    return _event(end) + _event({"type": "message_stop"})


def message(session: Session, *, shows_thoughts: bool) -> dict[str, Any]:
    """A whole message, for orjson.

    :raises ApiError: as `stop_of`.
    """
    content = [
        _block(item, shows_thoughts) for item in session.transcript.items if item.index is not None
    ]
    return {
        **_head(session),
        "content": content,
        **stop_of(session),
        "usage": usage(session),
        **_ours(session),
    }


def stop_of(session: Session) -> dict[str, Any]:
    """Why the model stopped: ``stop_reason`` and ``stop_sequence``.

    :raises ApiError: the response failed, was cancelled, or has not ended.
    """
    if session.error is not None:
        raise session.error
    reason = session.incomplete_reason
    if not session.finished or reason not in (None, "no_answer", "max_output_tokens"):
        raise Cancelled()
    stop = session.finish.stop if session.finish is not None else None
    if reason == "max_output_tokens":
        named = "max_tokens"
    elif session.transcript.shown("call"):
        named = "tool_use"
    else:
        named = "end_turn" if stop is None else "stop_sequence"
    return {"stop_reason": named, "stop_sequence": stop if named == "stop_sequence" else None}


def usage(session: Session) -> dict[str, Any]:
    """Token counts: ``input_tokens`` are those that were not found in the cache."""
    counted = session.usage()
    cached = counted["input_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": counted["input_tokens"] - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": counted["output_tokens"],
    }


def error_event(error: ApiError) -> bytes:
    """An error within a stream."""
    return _event(messages_error(error))


def signature() -> str:
    """A signature for a thinking block. Nothing checks it: the thoughts belong to the client."""
    return secrets.token_urlsafe(24)


def _head(session: Session) -> dict[str, Any]:
    return {
        "id": "msg_" + session.response_id.removeprefix("resp_"),
        "type": "message",
        "role": "assistant",
        "model": session.model,
    }


def _ours(session: Session) -> dict[str, Any]:
    return {**session.measurements(), "instance": session.instance_id}


def _block(item: OutputItem, shows_thoughts: bool) -> dict[str, Any]:
    if item.segment == "reasoning":
        text = item.fragment() if shows_thoughts else ""
        return {"type": "thinking", "thinking": text, "signature": signature()}
    if item.segment == "answer":
        return {"type": "text", "text": item.fragment()}
    return {
        "type": "tool_use",
        "id": item.call_id,
        "name": item.name,
        "input": _input(item.decoded()),
    }


def _input(arguments: str) -> Any:
    """The arguments as an object. What is none is passed on in the field ``arguments``."""
    try:
        decoded = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        decoded = {"arguments": arguments}
    return orjson.Fragment(msgspec.json.encode(decoded))


def _event(event: dict[str, Any]) -> bytes:
    return sse.frame(orjson.dumps(event), event["type"])
