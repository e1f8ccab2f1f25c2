"""The checks of a reader on its stream: no hole, one end, and deltas that join to the text."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

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
