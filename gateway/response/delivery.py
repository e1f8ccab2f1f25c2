"""What the reader of one response gets, and when: pacing, timing and QoE of one stream.

Pure bookkeeping with ``now`` as a parameter (seconds, the gateway's monotonic clock). It knows
tokens and times, not events or sockets. "Raw" is when the engine delivered, "paced" when the reader
got it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.schemas.generation import Targets
from pacer import RunningQoE, TokenBuffer


@dataclass(frozen=True, slots=True)
class Delta:
    """Text for the reader that stands for ``tokens`` tokens."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class SpanFigures:
    """Durations in seconds; None where there was nothing to measure."""

    ttft_s: float | None  # submission to first answering token
    ttfat_s: float | None  # phase boundary to first answering token
    tpot_s: float | None  # per answering token, after the first
    e2e_s: float | None  # submission to the end


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one stream. The QoEs are the paper's three, None without an answer."""

    reasoning_s: float | None  # first token to phase boundary
    raw: SpanFigures
    paced: SpanFigures
    qoe: float | None
    qoe_ttfat: float | None
    qoe_e2e: float | None


class Delivery:
    """Holds back the answer's tokens and measures the stream.

    Tokens without text of their own (parts of a character) are read together with the token that
    completes the text, and count with it; before the first visible text and after the last one
    they are nothing to a reader and do not count.
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
        """Generated, not yet released."""
        return len(self._buffer)

    @property
    def answer_tokens(self) -> int:
        """Tokens of visible text that have arrived."""
        return self._raw.tokens

    @property
    def underruns(self) -> int:
        """How often the reader had to wait after the first token."""
        return self._buffer.underruns

    @property
    def paused(self) -> bool:
        """True while the reader has stopped reading."""
        return self._buffer.clock.paused

    @property
    def tpot_s(self) -> float:
        """The pace that holds now, in seconds per token."""
        return self._buffer.clock.tau_s

    def token_arrived(self, now: float) -> None:
        """Any token came from the engine."""
        if self.first_token_s is None:
            self.first_token_s = now

    def boundary(self, now: float) -> None:
        """The end-of-thinking token came."""
        self.boundary_s = now
        clock = self._buffer.clock
        self._qoe_ttfat = RunningQoE(
            tau_s=1.0,
            first_s=self.targets.ttfat_s / clock.tau_s,
            origin_s=clock.reading(now),
        )

    def answer_arrived(self, text: str, now: float) -> None:
        """One answering token came; ``text`` is what it completes, possibly nothing."""
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
        """What the reader gets now."""
        if self.paced or self.paused:
            return self._deltas([due.item for due in self._buffer.pop_due(now)], now)
        return self.flush(now)

    def flush(self, now: float) -> list[Delta]:
        """Everything that is buffered, at once, whatever the pace."""
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
        """When `release` should be called next; None if nothing is buffered, or while paused."""
        return self._buffer.next_release_s()

    def slack_s(self, now: float) -> float | None:
        """Seconds until the reader runs dry; None before the first token and while paused."""
        return self._buffer.slack_s(now)

    def set_pace(self, tpot_s: float | None, paused: bool | None, now: float) -> None:
        """The reader reads at another pace, paused, or reads on; None leaves it as it is.

        To name a pace for a stream that was not paced paces what is still to come.
        """
        if tpot_s is not None:
            self._buffer.set_tau(tpot_s, now)
            self.paced = True
        if paused is True:
            self._buffer.pause(now)
        elif paused is False:
            self._buffer.resume(now)

    def qoe_now(self, now: float) -> float:
        """The paper's QoE so far, with what is overdue counted in; 1 before the first token."""
        return 1.0 if self._qoe is None else self._qoe.at(self._buffer.clock.reading(now))

    def figures(self) -> Figures:
        """All measurements so far."""
        reasoning_s = None
        if self.boundary_s is not None:
            reasoning_s = _difference(self.boundary_s, self.first_token_s)
        qoe, ttfat, e2e = self._qoe, self._qoe_ttfat, self._qoe_e2e
        return Figures(
            reasoning_s=reasoning_s,
            raw=self._span_figures(self._raw, self._raw.last_s),
            paced=self._span_figures(self._paced, self.ended_s),
            qoe=None if qoe is None else _rounded(qoe.final()),
            qoe_ttfat=None if qoe is None or ttfat is None else _rounded(ttfat.final()),
            qoe_e2e=None if qoe is None else _rounded(e2e.final()),
        )

    def _span_figures(self, span: _Span, end_s: float | None) -> SpanFigures:
        return SpanFigures(
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
