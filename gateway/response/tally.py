"""Counts over the responses of one gateway, for metrics and for the operations page.

Nothing here is called for each token. What grows with tokens is read from the sessions when
somebody asks; a session that ends leaves its counts in a sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Literal, TypeAlias, get_args

from gateway.response.lifecycle import State
from gateway.response.session import Session

# queued: no instance has accepted it, or none of its tokens has come · migrating: it left one
# instance, and no other has accepted it · delivering: the engine is done, the reader is not
LiveState: TypeAlias = Literal[
    "queued", "reasoning", "answering", "calling", "migrating", "delivering"
]
TokenKind: TypeAlias = Literal["reasoning", "answering", "calling"]

LIVE_STATES: tuple[LiveState, ...] = get_args(LiveState)
TOKEN_KINDS: tuple[TokenKind, ...] = get_args(TokenKind)
_OF_STATE: Mapping[State, LiveState] = {
    State.QUEUED: "queued",
    State.REASONING: "reasoning",
    State.ANSWERING: "answering",
    State.CALLING: "calling",
    State.BETWEEN_INSTANCES: "migrating",
    State.DELIVERING: "delivering",
}


def live_state(session: Session) -> LiveState | None:
    """Where a response is; None if it has ended."""
    state = _OF_STATE.get(session.state)
    if not session.output_tokens and state in ("reasoning", "answering", "calling"):
        return "queued"  # in an engine that has not begun with it
    return state


def is_dry(session: Session, now: float) -> bool:
    """Whether its reader waits for the next token of an answer that is being generated."""
    if session.state is not State.ANSWERING or session.waiting_tokens or not session.delivery.paced:
        return False
    slack_s = session.delivery.slack_s(now)
    return slack_s is not None and slack_s < 0.0


class LogBuckets:
    """How many values lie between edges that are spread evenly on a logarithmic scale.

    Values are seconds. The edges lie 32 to a decade from a millisecond on, so that a percentile is
    wrong by 4% at most.
    """

    PER_DECADE = 32
    LEAST = 1e-3
    COUNT = 6 * PER_DECADE

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * self.COUNT

    def add(self, value: float) -> None:
        """Count a value; one outside of the scale counts at its end."""
        place = floor(log10(max(value, self.LEAST) / self.LEAST) * self.PER_DECADE)
        self.counts[min(place, self.COUNT - 1)] += 1

    @classmethod
    def quantiles(cls, counts: Sequence[int], shares: Iterable[float]) -> list[float | None]:
        """The values below which these shares lie, by such counts; None without a value.

        :param shares: from 0 to 1, ascending.
        """
        total = sum(counts)
        if not total:
            return [None for _ in shares]
        found: list[float | None] = []
        place, below = 0, counts[0]
        for share in shares:
            while below < share * total and place < cls.COUNT - 1:
                place += 1
                below += counts[place]
            found.append(cls.LEAST * 10 ** ((place + 0.5) / cls.PER_DECADE))
        return found


@dataclass(slots=True)
class TokenCounts:
    """Tokens since the gateway started."""

    reasoning: int = 0
    answering: int = 0
    calling: int = 0
    released: int = 0  # of the answer, sent to readers

    def add(self, session: Session) -> None:
        """Add what a session has counted so far."""
        reasoning, calling = session.reasoning_tokens, session.calling_tokens
        delivery = session.delivery
        self.reasoning += reasoning
        self.calling += calling
        self.answering += session.output_tokens - reasoning - calling
        self.released += delivery.answer_tokens - delivery.buffered_tokens

    def copy(self) -> TokenCounts:
        """The same numbers, on their own."""
        return TokenCounts(self.reasoning, self.answering, self.calling, self.released)


@dataclass(frozen=True, slots=True)
class Live:
    """The responses that are not fully delivered, and all tokens so far."""

    states: Mapping[LiveState, int]
    dry_readers: int
    buffered_tokens: int  # that wait for their time
    tokens: TokenCounts


class Tally:
    """Counts over all responses.

    :param running: the responses that are not fully delivered, as they come and go.
    """

    def __init__(self, running: Mapping[str, Session]) -> None:
        self.running = running
        self.ttft, self.ttfat = LogBuckets(), LogBuckets()  # of streams, in seconds
        self.ended_tokens = TokenCounts()  # of responses that are not running any more

    def answer_began(self, ttft_s: float | None, ttfat_s: float | None) -> None:
        """A reader has got the first token of an answer."""
        for buckets, value in ((self.ttft, ttft_s), (self.ttfat, ttfat_s)):
            if value is not None:
                buckets.add(value)

    def ended(self, session: Session) -> None:
        """A response is not running any more."""
        self.ended_tokens.add(session)

    def live(self, now: float) -> Live:
        """Read the sessions, about a microsecond for each."""
        states: dict[LiveState, int] = dict.fromkeys(LIVE_STATES, 0)
        tokens = self.ended_tokens.copy()
        dry = buffered = 0
        for session in self.running.values():
            tokens.add(session)
            buffered += session.waiting_tokens
            dry += is_dry(session, now)
            if (state := live_state(session)) is not None:
                states[state] += 1
        return Live(states, dry, buffered, tokens)
