"""Looks at all responses again and again, and tells what has changed.

Nothing in the path of tokens reports here: the watch compares each session with what it saw last.
A request that lives for less than the time between two passes is not seen; counts of requests and
tokens come from `gateway.response.tally` and miss nothing.

A pass is a generator that stops after every hundred sessions, so that its caller can let other
work go first. What it holds of a request is a small number, its state, times and marks: never its
text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway.ops.life import DRY, GOES_ON, REFILLED, WAITS, Life, ahead_of
from gateway.response.session import Session
from gateway.response.tally import LIVE_STATES, Tally, TokenCounts, is_dry, live_state

SLICE = 100  # sessions between two stops of a pass
STALLED_S = 1.0  # without a token: it waits outside of the batch, or was preempted
_NEWS_S = 0.25  # a reader's seconds of text that are worth telling
_QOE_EVERY = 5  # seconds between two looks at the QoE of one reader
_NUMBERS = {state: number for number, state in enumerate(LIVE_STATES)}
_QUEUED = _NUMBERS["queued"]


class Seen:
    """A request as it was at the last pass."""

    __slots__ = (
        "ahead_at",
        "ahead_s",
        "dry",
        "instance",
        "instance_id",
        "life",
        "number",
        "qoe",
        "session",
        "since_s",
        "stalled",
        "state",
        "state_of_session",
        "tokens",
    )

    life: Life

    def __init__(self, number: int, session: Session) -> None:
        self.number = number
        self.session = session
        self.state_of_session: object = None
        self.state = _QUEUED
        self.instance_id: str | None = None
        self.instance = -1
        self.tokens = 0
        self.since_s = 0.0  # since when it has no further token
        self.stalled = False
        self.dry = False  # its reader waits for the next token
        self.ahead_s: float | None = None  # of text ahead of its reader, at `ahead_at`
        self.ahead_at = 0.0
        self.qoe = 1.0

    def row(self, now: float) -> list[Any]:
        """As a row of a keyframe."""
        ahead_s = None if self.ahead_s is None else round(self.ahead_s - now + self.ahead_at, 1)
        return [self.number, self.state, self.instance, int(self.stalled), ahead_s]


@dataclass(slots=True)
class Sums:
    """What a thorough pass adds up."""

    states: list[int] = field(default_factory=lambda: [0] * len(LIVE_STATES))
    tokens: TokenCounts = field(default_factory=TokenCounts)
    dry: int = 0
    buffered: int = 0


class Watch:
    """All requests, as seen at the last pass."""

    def __init__(self, tally: Tally) -> None:
        self.names: list[str] = []  # of instances, in the order in which they were seen first
        self.seen: dict[str, Seen] = {}
        self.events: list[list[Any]] = []  # of the last pass
        self.readers: list[list[Any]] = []  # news of the last thorough pass: number, seconds
        self.sums = Sums()  # of the last thorough pass
        self._tally = tally
        self._places: dict[str, int] = {}
        self._next = 1
        self._seconds = 0

    def place(self, instance_id: str | None) -> int:
        """The number of an instance; -1 for None."""
        if instance_id is None:
            return -1
        place = self._places.get(instance_id)
        if place is None:
            place = self._places[instance_id] = len(self.names)
            self.names.append(instance_id)
        return place

    def look(self, now: float) -> Iterator[None]:
        """Note what has changed in `events`. Stops after every `SLICE` sessions."""
        self.events = []
        seen, running = self.seen, self._tally.running
        for number, (name, session) in enumerate(list(running.items()), 1):
            one = seen.get(name)
            if one is None:
                one = seen[name] = Seen(self._next, session)
                self._next += 1
                one.since_s = now
                self._changed(one, "placed", now)
            elif (
                session.state is not one.state_of_session
                or session.instance_id is not one.instance_id
                or (one.state == _QUEUED and session.output_tokens)
            ):
                self._changed(one, "changed", now)
            if not number % SLICE:
                yield
        for name in seen.keys() - running.keys():
            gone = seen.pop(name)
            self.events.append(["ended", gone.number, gone.session.status])

    def look_thoroughly(self, now: float) -> Iterator[None]:
        """Do as `look`, and note readers and sums as well."""
        sums = Sums(tokens=self._tally.ended_tokens.copy())
        sessions = list(self._tally.running.items())  # one that ends from here on keeps its counts
        yield from self.look(now)
        self.readers = []
        self._seconds += 1
        phase = self._seconds % _QOE_EVERY
        for number, (name, session) in enumerate(sessions, 1):
            sums.tokens.add(session)
            state = live_state(session)
            if state is not None:
                sums.states[_NUMBERS[state]] += 1
                sums.buffered += session.waiting_tokens
                dry = is_dry(session, now)
                sums.dry += dry
                if (one := self.seen.get(name)) is not None:
                    self._look_at(one, now, phase, dry)
            if not number % SLICE:
                yield
        self.sums = sums

    def rows(self, now: float, size: int) -> Iterator[list[list[Any]]]:
        """All requests for a keyframe, so many at a time; at least one part."""
        every = list(self.seen.values())
        for first in range(0, max(1, len(every)), size):
            yield [one.row(now) for one in every[first : first + size]]

    def qoes(self) -> list[float]:
        """The QoE of each reader who has begun to read, ascending."""
        return sorted(one.qoe for one in self.seen.values() if one.ahead_s is not None)

    def _changed(self, one: Seen, kind: str, now: float) -> None:
        session = one.session
        before = one.instance
        one.state_of_session = session.state
        if session.instance_id is not one.instance_id:
            one.instance_id = session.instance_id
            one.instance = self.place(session.instance_id)
        state = live_state(session)
        if state is not None:
            one.state = _NUMBERS[state]
        if kind == "placed":
            one.life = Life(session, one.instance, one.state, now)
        else:
            one.life.changed(session, one.state, one.instance, now)
        self.events.append([kind, one.number, one.state, one.instance])
        if -1 < before != one.instance:
            self.events.append(["moved", one.number, before, one.instance, session.kv_tokens])

    def _look_at(self, one: Seen, now: float, phase: int, dry: bool) -> None:
        """Note what has changed slowly: waiting, and the reader."""
        session = one.session
        if session.output_tokens != one.tokens or not session.in_engine:
            one.tokens, one.since_s = session.output_tokens, now
        stalled = now - one.since_s >= STALLED_S
        if stalled is not one.stalled:
            one.stalled = stalled
            self.events.append(["waits" if stalled else "goes_on", one.number])
            what, at = (WAITS, one.since_s) if stalled else (GOES_ON, now)
            one.life.add(at, what, one.instance)
        delivery = session.delivery
        if not delivery.began:
            return
        slack_s = ahead_of(session, now)
        if slack_s is None:  # paused: it stays
            if one.ahead_s is None:
                return
            slack_s = one.ahead_s
        if dry is not one.dry:
            one.dry = dry
            what, at = (DRY, now + slack_s) if dry else (REFILLED, now)
            one.life.add(at, what, one.instance)
        expected_s = None if one.ahead_s is None else one.ahead_s - (now - one.ahead_at)
        if expected_s is None or abs(slack_s - expected_s) >= _NEWS_S:
            one.ahead_s, one.ahead_at = slack_s, now
            self.readers.append([one.number, round(slack_s, 1)])
        if one.number % _QOE_EVERY == phase:
            one.qoe = delivery.qoe_now(now)
