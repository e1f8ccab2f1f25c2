"""The checks of a reader on its stream: no hole, one end, and deltas that join to the text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

TERMINAL = ("response.completed", "response.incomplete", "response.failed")
# The only failures that a killed worker may cause.
_FAILURES = ("no_instance", "instance_lost")
_SHOWN = 20


class Violation(Exception):
    """The gateway broke a promise; the message says which."""


class Refused(Exception):
    """An error event or an error answer, which may be legitimate."""

    def __init__(self, code: str, message: str = "", status: int = 0) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.code = code
        self.status = status


@dataclass(slots=True)
class Tally:
    """Counts over all readers."""

    readers: Counter[str] = field(default_factory=Counter)  # that have ended, by kind
    responses: Counter[str] = field(default_factory=Counter)  # read to the end, by status
    refused: Counter[str] = field(default_factory=Counter)  # by code
    expired: int = 0  # streams that got `events_expired`
    cut: int = 0  # connections that the gateway ended
    violations: int = 0
    shown: list[str] = field(default_factory=list)  # the first violations
    began_s: float = field(default_factory=time.monotonic)

    def wrong(self, what: str) -> None:
        """Count a violation, and keep it if it is among the first."""
        self.violations += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(f"after {time.monotonic() - self.began_s:.0f} s: {what}")


class Stream:
    """One response as one reader sees it, over all its connections."""

    def __init__(self, tally: Tally) -> None:
        self.response_id = ""
        self.last = -1  # sequence number
        self.final: dict[str, Any] | None = None  # the response object of the terminal event
        self._whole = True  # no event expired before it was read
        self._texts = {"reasoning": "", "output": ""}
        self._tally = tally

    @property
    def ended(self) -> bool:
        """True after the terminal event."""
        return self.final is not None

    def expired(self) -> None:
        """The gateway answered `events_expired`."""
        self._whole = False
        self._tally.expired += 1

    def take(self, message: bytes) -> dict[str, Any]:
        """Check one message; :return: the event in it. Raises `Violation` or `Refused`."""
        event: dict[str, Any] = orjson.loads(message)
        if event["type"] == "error":
            raise Refused(event["error"]["code"], event["error"]["message"], event.get("status", 0))
        self.feed(event)
        return event

    def feed(self, event: dict[str, Any]) -> None:
        """Check one event of the response. Raises `Violation`."""
        type_, sequence = event["type"], event["sequence_number"]
        if self.final is not None:
            raise Violation(f"{self.response_id}: {type_} after the terminal event")
        if sequence != self.last + 1:
            raise Violation(f"{self.response_id}: event {sequence} follows {self.last}")
        self.last = sequence
        if type_ == "response.created":
            self.response_id = event["response"]["id"]
        if type_.endswith("_text.delta"):
            self._texts[type_.split(".")[1].removesuffix("_text")] += event["delta"]
        if type_ in TERMINAL:
            self._end(type_, event["response"])

    def _end(self, type_: str, response: dict[str, Any]) -> None:
        self.final = response
        self._tally.responses[response["status"]] += 1
        if response["status"] != type_.removeprefix("response."):
            raise Violation(f"{self.response_id}: {type_} says {response['status']}")
        if response["status"] == "failed" and response["error"]["code"] not in _FAILURES:
            raise Violation(f"{self.response_id}: failed: {response['error']}")
        items = {item["type"]: item["content"][0]["text"] for item in response["output"]}
        texts = {"reasoning": items.get("reasoning", ""), "output": items.get("message", "")}
        if self._whole and texts != self._texts:
            raise Violation(f"{self.response_id}: the deltas do not join to the final text")


class ChatStream(Stream):
    """A chat completion as its reader sees it. Its chunks have no numbers and no final text.

    :param thoughts: the tokens that must come, as text; None: unknown.
    :param answer: the same of the answer.
    """

    def __init__(
        self,
        tally: Tally,
        thoughts: Sequence[str] | None = None,
        answer: Sequence[str] | None = None,
    ) -> None:
        super().__init__(tally)
        self._expected = None if thoughts is None or answer is None else (thoughts, answer)
        self._place = 0  # of the next token of the answer
        self._finish: dict[str, Any] | None = None  # the chunk with `finish_reason`
        self._usage: dict[str, Any] = {}

    def take(self, message: bytes) -> dict[str, Any]:
        """Check one message; :return: what comes closest among the events of a response."""
        if self.final is not None:
            raise Violation(f"{self.response_id}: {message[:60]!r} after [DONE]")
        self.last += 1
        if message == b"[DONE]":
            self._done()
            return {"type": "response.completed"}
        chunk = orjson.loads(message)
        if "error" in chunk:
            raise Refused(chunk["error"]["code"], chunk["error"]["message"])
        self.response_id = chunk["id"]
        self._usage = chunk.get("usage") or {}
        if not chunk["choices"]:
            return {"type": "usage"}
        if self._finish is not None:
            raise Violation(f"{self.response_id}: a chunk after the one with finish_reason")
        (choice,) = chunk["choices"]
        if choice["finish_reason"] is not None:
            self._finish = chunk
        delta = choice["delta"]
        if delta.get("reasoning"):
            self._texts["reasoning"] += delta["reasoning"]
            return {"type": "response.reasoning_text.delta"}
        if delta.get("content"):
            self._texts["output"] += delta["content"]
            tokens = self._tokens(delta["content"])
            return {"type": "response.output_text.delta", "tokens": tokens}
        return {"type": "chunk"}

    def _tokens(self, text: str) -> int:
        """How many tokens of the answer this text completes."""
        if self._expected is None:
            return 1
        answer, began, length = self._expected[1], self._place, 0
        while length < len(text) and self._place < len(answer):
            length += len(answer[self._place])
            self._place += 1
        return self._place - began

    def _done(self) -> None:
        if self._finish is None:
            raise Violation(f"{self.response_id}: [DONE] without finish_reason")
        reason = self._finish["choices"][0]["finish_reason"]
        self.final = {
            "status": "completed" if reason == "stop" else reason,
            "incomplete_details": None,
            "usage": {"output_tokens": self._usage.get("completion_tokens")},
            "qoe": self._finish["qoe"],
        }
        self._tally.responses[f"chat: {reason}"] += 1
        if self._expected is not None:
            texts = ("".join(self._expected[0]), "".join(self._expected[1]))
            if texts != tuple(self._texts.values()):
                raise Violation(f"{self.response_id}: the chunks do not join to what was generated")
