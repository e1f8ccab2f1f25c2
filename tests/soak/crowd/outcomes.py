"""What the readers of a crowd have seen, and what it says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pacer import RunningQoE
from tests.soak.clients.stream import Tally

GOOD_QOE = 0.95  # the least of a healthy reader
CLOSED = "stalled_client_closed"  # the gateway logs it, with the bound
STOPPED_S = 5.0  # a stopped response must end within this time


class Reading:
    """The QoE of one response, by the times at which its answer came to the reader.

    The first token is expected when it comes, and each later one ``tau_s`` seconds after the one
    before.
    """

    def __init__(self, tau_s: float) -> None:
        self.tokens = 0  # of the answer
        self.thoughts = 0  # tokens of reasoning
        self.late_s = 0.0  # how much later than expected the latest token could be read
        self._tau_s = tau_s
        self._qoe: RunningQoE | None = None
        self._first_s = self._used_s = 0.0

    @property
    def qoe(self) -> float:
        """QoE of the tokens so far; 1 without a token."""
        return 1.0 if self._qoe is None else self._qoe.final()

    def arrived(self, event: dict[str, Any], now: float) -> None:
        """Take an event of the response."""
        if event["type"] == "response.reasoning_text.delta":
            self.thoughts += event.get("tokens", 1)
        if event["type"] != "response.output_text.delta":
            return
        if self._qoe is None:
            self._qoe = RunningQoE(tau_s=self._tau_s, origin_s=now)
            self._first_s, self._used_s = now, now - self._tau_s
        for _ in range(event.get("tokens", 1)):
            self._qoe.deliver(now)
            self._used_s = max(now, self._used_s + self._tau_s)
            self.late_s = self._used_s - self._first_s - self.tokens * self._tau_s
            self.tokens += 1


@dataclass(slots=True)
class Group:
    """All readers of one kind."""

    places: int  # readers at a time
    qoes: list[float] = field(default_factory=list)  # of each response read to its end
    lates_s: list[float] = field(default_factory=list)  # the same order
    gateway_qoes: list[float] = field(default_factory=list)  # what the gateway says, same order
    transports: Counter[str] = field(default_factory=Counter)  # the same responses
    reconnects: int = 0

    def add(self, transport: str, reading: Reading, final: dict[str, Any]) -> None:
        """A response was read to its end."""
        self.qoes.append(reading.qoe)
        self.lates_s.append(reading.late_s)
        self.gateway_qoes.append((final.get("qoe") or {}).get("qoe") or 0.0)
        self.transports[transport] += 1


@dataclass(slots=True)
class Outcome:
    """The results of one run."""

    tally: Tally
    groups: dict[str, Group]
    closed_s: list[float] = field(default_factory=list)  # begin of a stall to the gateway's close
    closed_how: Counter[str] = field(default_factory=Counter)  # as the reader saw it
    closings: Counter[str] = field(default_factory=Counter)  # in the gateway's log
    not_closed: int = 0  # stalled readers that the gateway did not disconnect in time
    went_on: int = 0  # responses of disconnected readers that were still in progress
    connects_s: list[float] = field(default_factory=list)  # time until a connection was taken
    answers_s: list[float] = field(default_factory=list)  # from there to the first event
    stops_s: list[float] = field(default_factory=list)  # Stop to `response.incomplete`
    too_late: int = 0  # Stops that came after the end
    refusals: Counter[str] = field(default_factory=Counter)  # of correct requests, by code
    tokens: int = 0  # that all readers got, of thoughts and answers
    events: int = 0
    measured: dict[str, float] = field(default_factory=dict)  # CPU, lateness, memory
    notes: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """One line for each reason why the run fails."""
        lines = []
        healthy = self.groups["healthy"]
        bad = sum(qoe < GOOD_QOE for qoe in healthy.qoes)
        if bad:
            lines.append(
                f"{bad} of {len(healthy.qoes)} healthy responses have a QoE below {GOOD_QOE}; "
                f"the worst {min(healthy.qoes):.3f}"
            )
        if len(healthy.qoes) < healthy.places:
            lines.append(f"{healthy.places} healthy readers, and {len(healthy.qoes)} responses")
        stalling = self.groups["stalls"]
        if self.not_closed:
            lines.append(f"{self.not_closed} stalled readers were still connected")
        elif stalling.places and not self.closed_s:
            lines.append("no reader stalled long enough")
        if self.closings[CLOSED] < len(self.closed_s):
            lines.append(
                f"{len(self.closed_s)} stalled readers were disconnected, "
                f"{self.closings[CLOSED]} of them with a reason in the log"
            )
        if len(self.closed_s) > self.went_on:
            lines.append(
                f"{len(self.closed_s)} readers were disconnected, and only {self.went_on} of their "
                "responses went on"
            )
        if self.groups["stops"].places and not self.stops_s:
            lines.append("no response was stopped")
        slow = sum(time_s > STOPPED_S for time_s in self.stops_s)
        if slow:
            lines.append(f"{slow} stopped responses ended more than {STOPPED_S:.0f} s later")
        if self.tally.violations:
            lines.append(f"{self.tally.violations} broken promises to readers")
        return lines + self.trouble


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed; NaN for none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
