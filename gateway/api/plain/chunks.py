"""What completions send: the chunks of a stream, and the choices of a whole completion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from gateway.api import sse
from gateway.api.chat_chunks import finish_reason
from gateway.response.output_item import OutputItem
from gateway.response.session import Session

_MARK = "\x00"  # stands for the text; the model's name may contain anything but this
_MARK_BYTES = b"\\u0000"


def head(session: Session) -> dict[str, Any]:
    """The fields with which a completion or a chunk begins."""
    return {
        "id": "cmpl-" + session.response_id.removeprefix("resp_"),
        "object": "text_completion",
        "created": int(session.created_at),
        "model": session.model,
    }


class Logprobs:
    """Log probabilities in the form of this API; the offsets go on from piece to piece."""

    def __init__(self) -> None:
        self._offset = 0

    def of(self, entries: Iterable[bytes]) -> dict[str, list[Any]]:
        """Convert those of some tokens.

        :param entries: insides of JSON arrays of tokens, as chat completions have them.
        """
        logged = orjson.loads(b"[%b]" % b",".join(filter(None, entries)))
        offsets = []
        for token in logged:
            offsets.append(self._offset)
            self._offset += len(token["token"])
        return {
            "tokens": [token["token"] for token in logged],
            "token_logprobs": [token["logprob"] for token in logged],
            "top_logprobs": [
                {one["token"]: one["logprob"] for one in (*token["top_logprobs"], token)}
                for token in logged
            ],
            "text_offset": offsets,
        }


class CompletionChunks:
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
        self._logprobs = Logprobs() if logprobs else None
        self._around = self.chunk(_MARK).split(_MARK_BYTES)  # the text of a chunk

    def chunk(
        self,
        text: str,
        finish: str | None = None,
        logprobs: dict[str, Any] | None = None,
        **extra: Any,
    ) -> bytes:
        """An event with one chunk."""
        choice = {
            "index": self._index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish,
        }
        return sse.frame(orjson.dumps({**self._head, "choices": [choice], **extra}))

    def text(self, item: OutputItem, text: bytes, deltas: range) -> bytes:
        """A piece of the text of an item; see `gateway.api.followers.Frames`."""
        if self._logprobs is not None:
            logged = self._logprobs.of(map(item.logprobs_of, deltas))
            return self._frame(self.chunk(orjson.loads(b'"%b"' % text), None, logged))
        before, after = self._around
        return self._frame(b"%b%b%b" % (before, text, after))

    def began(self, item: OutputItem) -> bytes:
        """Not called: a completion makes no calls."""
        raise AssertionError(item)


def choice(session: Session, index: int) -> dict[str, Any]:
    """A choice of a whole completion.

    :raises ApiError: as `gateway.api.chat_chunks.finish_reason`.
    """
    logprobs = None
    if session.generation.sampling.logprobs is not None:
        entries = [
            item.logprobs_of(delta)
            for item in session.transcript.items
            for delta in range(item.shown)
        ]
        logprobs = Logprobs().of(entries)
    return {
        "index": index,
        "text": session.answer_text,
        "logprobs": logprobs,
        "finish_reason": finish_reason(session),
    }


def usage(sessions: Sequence[Session], each: int) -> dict[str, Any]:
    """Token counts of all choices.

    :param each: how many choices, one after the other, share a prompt.
    """
    counts = [session.usage() for session in sessions]
    prompt = sum(one["input_tokens"] for one in counts[::each])
    cached = sum(one["input_tokens_details"]["cached_tokens"] for one in counts[::each])
    completion = sum(one["output_tokens"] for one in counts)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
