"""What the reader of one response gets, and when: pacing, timing and QoE of one stream.

Pure bookkeeping with ``now`` as a parameter (seconds, the gateway's monotonic clock). It must not
know events or sockets. "Raw" times are those of the engine, "paced" times those of the reader.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
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


class _DeliveryHot(ReleaseSchedule):
    """What is read for each token, next to each other in memory."""

    __slots__ = (
        "_arrived_s",
        "_first_arrived_s",
        "_first_released_s",
        "answer_tokens",
        "buffered_tokens",
        "paced",
    )


class Delivery(_DeliveryHot):
    """Plans when the deltas of the answer are released, and measures the stream.

    A delta has one token, or several if they are parts of one character. The texts are the business
    of `gateway.response.transcript`.
    """

    __slots__ = (
        "_qoe",
        "_qoe_e2e",
        "_qoe_ttfat",
        "boundary_s",
        "ended_s",
        "first_token_s",
        "reasoning_ended_s",
        "submitted_s",
        "targets",
        "thinking_since_s",
    )

    def __init__(self, targets: Targets, now: float) -> None:
        super().__init__(targets.tpot_s, now, targets.lead_s if targets.paced else 0.0)
        self.targets = targets
        self.paced = targets.paced  # False: tokens pass as they come
        self.submitted_s = now
        self.first_token_s: float | None = None
        self.thinking_since_s: float | None = None  # the first token of the thoughts
        self.reasoning_ended_s: float | None = None  # the first thoughts
        self.boundary_s: float | None = None  # the model began to answer
        self.ended_s: float | None = None
        self.answer_tokens = 0  # of visible text, that have arrived
        self.buffered_tokens = 0  # of these, not yet released
        # Of the first and the last token that arrived, and of the first that was released.
        self._first_arrived_s: float | None = None
        self._arrived_s: float | None = None
        self._first_released_s: float | None = None
        self._qoe: RunningQoE | None = None
        self._qoe_ttfat: RunningQoE | None = None
        self._qoe_e2e = RunningQoE(tau_s=1.0, first_s=targets.ttft_s / targets.tpot_s)

    @property
    def tpot_s(self) -> float:
        """The current pace, in seconds per token."""
        return self.tau_s

    @property
    def began(self) -> bool:
        """Whether the reader has got a token of the answer."""
        return self._first_released_s is not None

    def times_to_first(self) -> tuple[float | None, float | None]:
        """Seconds until the reader had the first token of the answer: TTFT and TTFAT."""
        first_s = self._first_released_s
        return _difference(first_s, self.submitted_s), _difference(first_s, self.boundary_s)

    def boundary(self, now: float) -> None:
        """The model begins to answer. After the first token of the answer it has no effect."""
        if self._first_arrived_s is not None:
            return
        self.boundary_s = now
        self._qoe_ttfat = RunningQoE(
            tau_s=1.0,
            first_s=self.targets.ttfat_s / self.tau_s,
            origin_s=self.reading(now),
        )

    def thoughts_ended(self, now: float) -> float | None:
        """Note the end of a stretch of thoughts; return the seconds that it took."""
        since_s = self.thinking_since_s
        if self.reasoning_ended_s is None:
            self.reasoning_ended_s, since_s = now, self.first_token_s
        self.thinking_since_s = None
        return _difference(now, since_s)

    def arrived(self, tokens: int, now: float) -> None:
        """Take in a delta of so many tokens."""
        self.push(now, tokens)
        self.buffered_tokens += tokens
        self.answer_tokens += tokens
        self._arrived_s = now
        if self._first_arrived_s is None:
            self._first_arrived_s = now

    def arrived_each(self, times: Sequence[float]) -> None:
        """Take in deltas of one token each; ``times``: when each arrived."""
        self.push_each(times)
        tokens = len(times)
        self.buffered_tokens += tokens
        self.answer_tokens += tokens
        self._arrived_s = times[-1]
        if self._first_arrived_s is None:
            self._first_arrived_s = times[0]

    def release(self, now: float, early_s: float = 0.0) -> int:
        """Release the deltas that are due by ``now + early_s``; return how many.

        The caller calls `released` then.
        """
        if self.paced or self.paused:
            return self.pop_due(now, early_s)
        return self.flush(now)

    def unread_s(self, now: float) -> float:
        """Seconds for which the reader reads what was generated so far, at the current pace."""
        ahead = max(0.0, self.shown_at - self.reading(now)) if self.lead_s else 0.0
        return (self.buffered_tokens + ahead) * self.tau_s

    def shown_s(self) -> float | None:
        """When the reader sees the last of what was released; None while paused before it."""
        return self.seconds(self.shown_at)

    def flush(self, now: float) -> int:
        """Release all deltas, whatever the pace; return how many. See `release`.

        The reader sees them now, and with them those that were released ahead.
        """
        self.at = self.shown_at = at = self.reading(now)
        deliveries = self.shown
        for place in range(bisect_right(deliveries, at), len(deliveries)):
            deliveries[place] = at
        if deltas := self.drain():
            self.released_s = now
        return deltas

    def stop(self, now: float) -> None:
        """The reader looks no further: what was released ahead is not seen."""
        del self.shown[bisect_right(self.shown, self.reading(now)) :]

    def released(self, tokens: int, now: float, behind: int = 0) -> float | None:
        """The reader has got so many tokens, in the release at ``now``.

        :param behind: tokens that were generated, and will follow those that have arrived.
        :return: seconds until the reader runs out of tokens; None while the reader is paused.
        """
        self.buffered_tokens -= tokens
        if self._first_released_s is None:
            self._first_released_s = now
            self._qoe = RunningQoE(tau_s=1.0, origin_s=self.shown_at)
        deliveries = self.shown
        deliveries.append(self.shown_at)
        if tokens > 1:
            deliveries.extend((self.shown_at,) * (tokens - 1))
        if len(deliveries) >= _SETTLE_TOKENS:
            self._settle(self.at)
        if self._last is None or self.paused:
            return None
        return (self._last + behind + 1.0 - self.at) * self.tau_s

    def set_pace(self, tpot_s: float | None, paused: bool | None, now: float) -> None:
        """Change the pace, pause or resume; None leaves a setting as it is.

        A pace for a stream that was not paced applies to the tokens still to come.
        """
        if tpot_s is not None:
            self.set_tau(tpot_s, now)
            self.paced, self.lead_s = True, self.targets.lead_s
        if paused is True:
            self.pause(now)
        elif paused is False:
            self.resume(now)

    def qoe_now(self, now: float) -> float:
        """The paper's QoE so far, overdue tokens included; 1 before the first token."""
        reading = self.reading(now)
        self._settle(reading)
        return 1.0 if self._qoe is None else self._qoe.at(reading)

    def measurements(self) -> Measurements:
        """All measurements so far."""
        self._settle()
        reasoning_s = None
        if self.reasoning_ended_s is not None:
            reasoning_s = _difference(self.reasoning_ended_s, self.first_token_s)
        qoe, ttfat, e2e = self._qoe, self._qoe_ttfat, self._qoe_e2e
        arrived, released = self.answer_tokens, self.answer_tokens - self.buffered_tokens
        raw_s, paced_s = self._arrived_s, self._seen_s()
        return Measurements(
            reasoning_s=reasoning_s,
            raw=self._times(self._first_arrived_s, raw_s, arrived, raw_s),
            paced=self._times(self._first_released_s, paced_s, released, self.ended_s),
            qoe=None if qoe is None else _rounded(qoe.final()),
            qoe_ttfat=None if qoe is None or ttfat is None else _rounded(ttfat.final()),
            qoe_e2e=None if qoe is None else _rounded(e2e.final()),
        )

    def _seen_s(self) -> float | None:
        """When the reader saw the last token that was released."""
        shown_s = self.shown_s()
        if not self.lead_s or shown_s is None or self.shown_at <= self._reading:
            return self.released_s
        return shown_s if self.ended_s is None else min(shown_s, self.ended_s)

    def _move_anchor(self, now: float) -> None:
        if self.lead_s and self._reading < self.shown_at <= self.reading(now):
            self.released_s = self.shown_s()  # afterwards the clock can no longer tell
        super()._move_anchor(now)

    def _times(
        self, first_s: float | None, last_s: float | None, tokens: int, end_s: float | None
    ) -> SpanTimes:
        tpot_s = None
        if tokens > 1 and first_s is not None and last_s is not None:
            tpot_s = (last_s - first_s) / (tokens - 1)
        return SpanTimes(
            ttft_s=_difference(first_s, self.submitted_s),
            ttfat_s=_difference(first_s, self.boundary_s),
            tpot_s=_rounded(tpot_s),
            e2e_s=_difference(end_s, self.submitted_s),
        )

    def _settle(self, reading: float = math.inf) -> None:
        """Account for the deliveries up to this reading time in each QoE."""
        deliveries = self.shown
        if not deliveries:
            return
        # Only those that were released ahead can be later.
        count = bisect_right(deliveries, reading) if self.lead_s else len(deliveries)
        for running in (self._qoe, self._qoe_ttfat, self._qoe_e2e):
            if running is not None:
                running.deliver_all(deliveries[:count])
        del deliveries[:count]


def _difference(later_s: float | None, earlier_s: float | None) -> float | None:
    return None if later_s is None or earlier_s is None else _rounded(later_s - earlier_s)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
