"""Reads calls of tools out of the output, with vLLM's parsers.

Two readers with one interface: `CallReader` for calls that the model's markers enclose, and
`ForcedReader` for answers that are nothing but calls in JSON. Arguments are passed on as the model
writes them, even if they are no JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.tool_parsers import ToolParser
from vllm.tool_parsers.streaming import (
    extract_named_tool_call_streaming,
    extract_required_tool_call_streaming,
)

from workers.requests.detokenize import Decode, IncrementalDecoder

# How vLLM begins ids that it makes at random. A client gets one of the gateway's instead.
_RANDOM_IDS = ("chatcmpl-tool-", "call_")
_LONG_CALL = 512  # characters
_PORTION = 1 / 8  # of the call so far


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a call; with a name, its beginning. ``answer``: it is no call after all."""

    text: str
    name: str | None = None
    call_id: str | None = None
    answer: bool = False


class Reader(Protocol):
    """Reads the tokens of calls."""

    def push(self, token_id: int) -> list[Fragment]:
        """What this token completes."""

    def close(self) -> list[Fragment]:
        """What is still held, when the marker that ends a call was read, or the output ends."""


class Portions:
    """What a parser has yet to get of a call.

    Some of vLLM's parsers read a call from its beginning at every delta, so the cost of a call
    would grow with the square of its length, in the loop that serves all requests. A parser gets
    the tokens of a long call in portions that grow with the call. Nobody reads along.
    """

    def __init__(self) -> None:
        self._text = ""
        self._ids: list[int] = []

    def add(self, token_id: int, text: str, length: int) -> bool:
        """Take a token; return whether the parser should get what is there.

        :param length: of the call so far, in characters.
        """
        self._text += text
        self._ids.append(token_id)
        return length <= _LONG_CALL or len(self._text) >= length * _PORTION

    def take(self, rest: str = "") -> tuple[str, list[int]]:
        """The text and the ids of what was added, and ``rest`` behind them."""
        text, ids = self._text + rest, self._ids
        self._text, self._ids = "", []
        return text, ids


class CallReader:
    """The calls of one request. Gets only the tokens that belong to calls, markers included."""

    def __init__(
        self,
        parser: ToolParser,
        wire: ChatCompletionRequest,
        decode: Decode,
        ending: frozenset[int] = frozenset(),
    ) -> None:
        """:param decode: token ids to text with special tokens.

        :param ending: tokens that end an output; they are no text.
        """
        self._parser = parser
        self._wire = wire
        self._decoder = IncrementalDecoder(decode)
        self._ending = ending
        self._whole = not parser.engine_based_streaming  # it wants all text so far
        self._text = ""
        self._ids: list[int] = []
        self._portions = Portions()
        self._span = ""  # text since the marker that opened it
        self._found = False  # whether this span has given anything
        self._calls = 0

    def push(self, token_id: int) -> list[Fragment]:
        """What this token completes."""
        delta = "" if token_id in self._ending else self._decoder.push(token_id)
        if not self._portions.add(token_id, delta, len(self._span)):
            return []
        return self._parsed(*self._portions.take())

    def _parsed(self, delta: str, ids: list[int]) -> list[Fragment]:
        self._span += delta
        text, all_ids = self._text + delta, [*self._ids, *ids]
        message = self._parser.extract_tool_calls_streaming(
            self._text, text, delta, self._ids, all_ids, ids, self._wire
        )
        if self._whole:
            self._text, self._ids = text, all_ids
        return self._fragments(message)

    def _fragments(self, message: Any) -> list[Fragment]:
        found = fragments_of(message)
        self._calls += sum(fragment.name is not None for fragment in found)
        if found:
            self._found = True
        return found

    def close(self) -> list[Fragment]:
        """What is still held. A span in which vLLM found no call is text of the answer."""
        found: list[Fragment] = []
        rest, ids = self._portions.take(self._decoder.flush())
        if rest or ids:
            found += self._parsed(rest, ids)
        finish: Any = getattr(self._parser, "finish_streaming", None)
        if finish is not None:
            found += self._fragments(finish())
        elif self._calls and (rest := self._parser.get_remaining_unstreamed_args()):
            found.append(Fragment(rest))
        if not self._found and self._span.strip():
            found.append(Fragment(self._span, answer=True))
        self._span, self._found = "", False
        return found


class ForcedReader:
    """An answer that vLLM's grammar makes a call, or a list of calls, in JSON."""

    def __init__(self, name: str, decode: Decode, tokenizer: Any) -> None:
        """:param name: of the only tool that may be called; "": a list of calls.

        :param decode: token ids to text without special tokens.
        """
        self._name = name
        self._decoder = IncrementalDecoder(decode)
        self._tokenizer = tokenizer
        self._portions = Portions()
        self._text = ""
        self._named = False  # whether the name was given out
        self._calls = 0

    def push(self, token_id: int) -> list[Fragment]:
        """What this token completes."""
        if not self._portions.add(token_id, self._decoder.push(token_id), len(self._text)):
            return []
        return self._parsed(self._portions.take()[0])

    def _parsed(self, delta: str) -> list[Fragment]:
        if not delta:
            return []
        message: Any
        if self._name:
            message, self._named = extract_named_tool_call_streaming(
                delta_text=delta,
                function_name=self._name,
                function_name_returned=self._named,
                tool_call_idx=self._calls,
                tool_call_id_type="random",
                tokenizer=self._tokenizer,
            )
        else:
            before, self._text = self._text, self._text + delta
            message, self._named = extract_required_tool_call_streaming(
                previous_text=before,
                current_text=self._text,
                tool_call_idx=self._calls,
                tool_call_id_type="random",
            )
        found = fragments_of(message)
        self._calls += sum(fragment.name is not None for fragment in found)
        return found

    def close(self) -> list[Fragment]:
        """The text that is still held."""
        return self._parsed(self._portions.take(self._decoder.flush())[0])


def fragments_of(message: Any) -> list[Fragment]:
    """The calls in a delta of vLLM, and what is text of the answer."""
    found: list[Fragment] = []
    if message is None:
        return found
    if message.content and message.content.strip():
        found.append(Fragment(message.content, answer=True))
    for call in message.tool_calls or ():
        function = call.function
        if function is None:
            continue
        if function.name:
            found.append(Fragment(function.arguments or "", function.name, _own_id(call.id)))
        elif function.arguments:
            found.append(Fragment(function.arguments))
    return found


def _own_id(call_id: str | None) -> str | None:
    """The id of a call, if the format of the model has ids of its own."""
    if call_id is None or call_id.startswith(_RANDOM_IDS):
        return None
    return call_id


def one_call(fragments: Sequence[Fragment], begun: int) -> tuple[list[Fragment], bool]:
    """The fragments of the first call of a request, and whether another one begins.

    :param begun: calls that have begun before.
    """
    kept: list[Fragment] = []
    for fragment in fragments:
        if fragment.name is not None:
            if begun:
                return kept, True
            begun += 1
        kept.append(fragment)
    return kept, False
