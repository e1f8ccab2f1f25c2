"""What the reader of one response gets, and when: pacing, timing and QoE of one stream.

Pure bookkeeping with ``now`` as a parameter (seconds, the gateway's monotonic clock). It must not
know events or sockets. "Raw" times are those of the engine, "paced" times those of the reader.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.schemas.generation import Targets
from pacer import RunningQoE, TokenBuffer


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text for the reader, made of ``tokens`` tokens."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class SpanTimes:
    """Durations in seconds; None if there was nothing to measure."""

    ttft_s: float | None  # submission to first answering token
    ttfat_s: float | None  # phase boundary to first answering token
    tpot_s: float | None  # per answering token, after the first
    e2e_s: float | None  # submission to the end


@dataclass(frozen=True, slots=True)
class Measurements:
    """The measurements of one stream. The QoEs are the paper's three; None without an answer."""

    reasoning_s: float | None  # first token to phase boundary
    raw: SpanTimes
    paced: SpanTimes
    qoe: float | None
    qoe_ttfat: float | None
    qoe_e2e: float | None


class Delivery:
    """Holds back the answer's tokens and measures the stream.

    Some tokens have no text of their own, because they are parts of a character. They are delivered
    and counted together with the token that completes the text. Before the first visible text and
    after the last one they do not count.
    """

    def __init__(self, targets: Targets, now: float) -> None:
        self.targets = targets
        self.paced = targets.paced  # False: tokens pass as they come
        self.submitted_s = now
        self.first_token_s: float | None = None
        self.boundary_s: float | None = None
        self.ended_s: float | None = None
        self._raw = _Span()
        self._paced = _Span()
        self._buffer: TokenBuffer[str] = TokenBuffer(targets.tpot_s, now)
        self._incomplete = 0  # arrived tokens whose text is still to come
        self._unread = 0  # released tokens whose text is still to come
        self._qoe: RunningQoE | None = None
        self._qoe_ttfat: RunningQoE | None = None
        self._qoe_e2e = RunningQoE(tau_s=1.0, first_s=targets.ttft_s / targets.tpot_s)

    @property
    def buffered_tokens(self) -> int:
        """Number of tokens generated, but not yet released."""
        return len(self._buffer)

    @property
    def answer_tokens(self) -> int:
        """Number of tokens of visible text that have arrived."""
        return self._raw.tokens

    @property
    def underruns(self) -> int:
        """How often the buffer was empty when a token was due, after the first one."""
        return self._buffer.underruns

    @property
    def paused(self) -> bool:
        """Whether the reader has paused the response."""
        return self._buffer.clock.paused

    @property
    def tpot_s(self) -> float:
        """The current pace, in seconds per token."""
        return self._buffer.clock.tau_s

    def token_arrived(self, now: float) -> None:
        """Note a token of either phase from the engine."""
        if self.first_token_s is None:
            self.first_token_s = now

    def boundary(self, now: float) -> None:
        """Note the end-of-thinking token."""
        self.boundary_s = now
        clock = self._buffer.clock
        self._qoe_ttfat = RunningQoE(
            tau_s=1.0,
            first_s=self.targets.ttfat_s / clock.tau_s,
            origin_s=clock.reading(now),
        )

    def answer_arrived(self, text: str, now: float) -> None:
        """Take in one answering token; ``text`` is the text that it completes, possibly empty."""
        if not text:
            if self._raw.tokens:
                self._incomplete += 1
            return
        for _ in range(self._incomplete):
            self._buffer.push("", now)
        self._buffer.push(text, now)
        self._raw.add(now, self._incomplete + 1)
        self._incomplete = 0

    def release(self, now: float) -> list[Delta]:
        """The text that is due now."""
        if self.paced or self.paused:
            return self._deltas([due.item for due in self._buffer.pop_due(now)], now)
        return self.flush(now)

    def flush(self, now: float) -> list[Delta]:
        """All buffered text, whatever the pace."""
        return self._deltas(self._buffer.drain(), now)

    def _deltas(self, texts: list[str], now: float) -> list[Delta]:
        deltas = []
        for text in texts:
            self._unread += 1
            if text:
                deltas.append(Delta(text, self._unread))
                self._read(self._unread, now)
                self._unread = 0
        return deltas

    def next_release_s(self) -> float | None:
        """When `release` is due next; None if nothing is buffered, or while paused."""
        return self._buffer.next_release_s()

    def slack_s(self, now: float) -> float | None:
        """Seconds until the buffer runs dry; None before the first token and while paused."""
        return self._buffer.slack_s(now)

    def set_pace(self, tpot_s: float | None, paused: bool | None, now: float) -> None:
        """Change the pace, pause or resume; None leaves a setting as it is.

        A pace for a stream that was not paced applies to the tokens still to come.
        """
        if tpot_s is not None:
            self._buffer.set_tau(tpot_s, now)
            self.paced = True
        if paused is True:
            self._buffer.pause(now)
        elif paused is False:
            self._buffer.resume(now)

    def qoe_now(self, now: float) -> float:
        """The paper's QoE so far, overdue tokens included; 1 before the first token."""
        return 1.0 if self._qoe is None else self._qoe.at(self._buffer.clock.reading(now))

    def measurements(self) -> Measurements:
        """All measurements so far."""
        reasoning_s = None
        if self.boundary_s is not None:
            reasoning_s = _difference(self.boundary_s, self.first_token_s)
        qoe, ttfat, e2e = self._qoe, self._qoe_ttfat, self._qoe_e2e
        return Measurements(
            reasoning_s=reasoning_s,
            raw=self._times_of(self._raw, self._raw.last_s),
            paced=self._times_of(self._paced, self.ended_s),
            qoe=None if qoe is None else _rounded(qoe.final()),
            qoe_ttfat=None if qoe is None or ttfat is None else _rounded(ttfat.final()),
            qoe_e2e=None if qoe is None else _rounded(e2e.final()),
        )

    def _times_of(self, span: _Span, end_s: float | None) -> SpanTimes:
        return SpanTimes(
            ttft_s=_difference(span.first_s, self.submitted_s),
            ttfat_s=_difference(span.first_s, self.boundary_s),
            tpot_s=_rounded(span.tpot_s()),
            e2e_s=_difference(end_s, self.submitted_s),
        )

    def _read(self, tokens: int, now: float) -> None:
        reading = self._buffer.clock.reading(now)
        if self._qoe is None:
            self._qoe = RunningQoE(tau_s=1.0, origin_s=reading)
        self._paced.add(now, tokens)
        for running in (self._qoe, self._qoe_ttfat, self._qoe_e2e):
            if running is not None:
                for _ in range(tokens):
                    running.deliver(reading)


class _Span:
    """First and last time of a run of tokens."""

    __slots__ = ("first_s", "last_s", "tokens")

    def __init__(self) -> None:
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.tokens = 0

    def add(self, now: float, tokens: int) -> None:
        if self.first_s is None:
            self.first_s = now
        self.last_s = now
        self.tokens += tokens

    def tpot_s(self) -> float | None:
        """Seconds per token after the first; None below two tokens."""
        if self.tokens < 2 or self.first_s is None or self.last_s is None:
            return None
        return (self.last_s - self.first_s) / (self.tokens - 1)


def _difference(later_s: float | None, earlier_s: float | None) -> float | None:
    return None if later_s is None or earlier_s is None else _rounded(later_s - earlier_s)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
