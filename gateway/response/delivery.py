"""What the reader of one response gets, and when: pacing, timing and QoE of one stream.

Pure bookkeeping with ``now`` as a parameter (seconds, the gateway's monotonic clock). It must not
know events or sockets. "Raw" times are those of the engine, "paced" times those of the reader.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from gateway.schemas.generation import Targets
from pacer import ReleaseSchedule, RunningQoE

_SETTLE_TOKENS = 128  # deliveries whose QoE is computed at once


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
    """Plans when the deltas of the answer are released, and measures the stream.

    A delta has one token, or several if they are parts of one character. The texts are the business
    of `gateway.response.transcript`.
    """

    __slots__ = (
        "_deliveries",
        "_paced",
        "_qoe",
        "_qoe_e2e",
        "_qoe_ttfat",
        "_raw",
        "_reading",
        "boundary_s",
        "buffered_tokens",
        "ended_s",
        "first_token_s",
        "last_slack_s",
        "paced",
        "schedule",
        "submitted_s",
        "targets",
    )

    def __init__(self, targets: Targets, now: float) -> None:
        self.targets = targets
        self.paced = targets.paced  # False: tokens pass as they come
        self.submitted_s = now
        self.first_token_s: float | None = None
        self.boundary_s: float | None = None
        self.ended_s: float | None = None
        self._raw = _Span()
        self._paced = _Span()
        self.schedule = ReleaseSchedule(targets.tpot_s, now)
        self._reading = 0.0  # reading time of the last release
        self.buffered_tokens = 0  # generated, but not yet released
        self.last_slack_s: float | None = None  # at the last release: see `slack_s` of schedules
        self._deliveries = array("d")  # in reading time; not in the QoE yet
        self._qoe: RunningQoE | None = None
        self._qoe_ttfat: RunningQoE | None = None
        self._qoe_e2e = RunningQoE(tau_s=1.0, first_s=targets.ttft_s / targets.tpot_s)

    @property
    def answer_tokens(self) -> int:
        """Number of tokens of visible text that have arrived."""
        return self._raw.tokens

    @property
    def underruns(self) -> int:
        """How often the buffer was empty when a token was due, after the first one."""
        return self.schedule.underruns

    @property
    def paused(self) -> bool:
        """Whether the reader has paused the response."""
        return self.schedule.paused

    @property
    def tpot_s(self) -> float:
        """The current pace, in seconds per token."""
        return self.schedule.tau_s

    def boundary(self, now: float) -> None:
        """Note the end-of-thinking token."""
        self.boundary_s = now
        clock = self.schedule
        self._qoe_ttfat = RunningQoE(
            tau_s=1.0,
            first_s=self.targets.ttfat_s / clock.tau_s,
            origin_s=clock.reading(now),
        )

    def arrived(self, tokens: int, now: float) -> None:
        """Take in a delta of so many tokens."""
        self.schedule.push(now, tokens)
        self.buffered_tokens += tokens
        raw = self._raw
        if raw.first_s is None:
            raw.first_s = now
        raw.last_s = now
        raw.tokens += tokens

    def release(self, now: float, early_s: float = 0.0) -> int:
        """Release the deltas that are due by ``now + early_s``; return how many.

        The caller calls `released` then.
        """
        schedule = self.schedule
        if schedule.paused:
            return 0
        self._reading = schedule.reading(now)
        if not self.paced:
            return schedule.drain()
        return schedule.pop_to(self._reading + early_s / schedule.tau_s)

    def flush(self, now: float) -> int:
        """Release all deltas, whatever the pace; return how many. See `release`."""
        self._reading = self.schedule.reading(now)
        return self.schedule.drain()

    def released(self, tokens: int, now: float) -> None:
        """The reader has got so many tokens, in the release at ``now``."""
        reading = self._reading
        self.buffered_tokens -= tokens
        paced = self._paced
        if paced.first_s is None:
            paced.first_s = now
            self._qoe = RunningQoE(tau_s=1.0, origin_s=reading)
        paced.last_s = now
        paced.tokens += tokens
        self.last_slack_s = self.schedule.slack_at(reading)
        deliveries = self._deliveries
        deliveries.append(reading)
        if tokens > 1:
            deliveries.extend((reading,) * (tokens - 1))
        if len(deliveries) >= _SETTLE_TOKENS:
            self._settle()

    def set_pace(self, tpot_s: float | None, paused: bool | None, now: float) -> None:
        """Change the pace, pause or resume; None leaves a setting as it is.

        A pace for a stream that was not paced applies to the tokens still to come.
        """
        clock = self.schedule
        if tpot_s is not None:
            clock.set_tau(tpot_s, now)
            self.paced = True
        if paused is True:
            clock.pause(now)
        elif paused is False:
            clock.resume(now)

    def qoe_now(self, now: float) -> float:
        """The paper's QoE so far, overdue tokens included; 1 before the first token."""
        self._settle()
        return 1.0 if self._qoe is None else self._qoe.at(self.schedule.reading(now))

    def measurements(self) -> Measurements:
        """All measurements so far."""
        self._settle()
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

    def _settle(self) -> None:
        """Account for the deliveries so far in each QoE."""
        if not self._deliveries:
            return
        for running in (self._qoe, self._qoe_ttfat, self._qoe_e2e):
            if running is not None:
                running.deliver_all(self._deliveries)
        del self._deliveries[:]


class _Span:
    """First and last time of a run of tokens."""

    __slots__ = ("first_s", "last_s", "tokens")

    def __init__(self) -> None:
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.tokens = 0

    def tpot_s(self) -> float | None:
        """Seconds per token after the first; None below two tokens."""
        if self.tokens < 2 or self.first_s is None or self.last_s is None:
            return None
        return (self.last_s - self.first_s) / (self.tokens - 1)


def _difference(later_s: float | None, earlier_s: float | None) -> float | None:
    return None if later_s is None or earlier_s is None else _rounded(later_s - earlier_s)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
