"""Quality of experience of a token stream, in [0, 1].

Source: the paper, after Andes (arXiv 2404.16283).

Token *i* of *n* is delivered at ``d_i``. The reader expects the first token ``F`` after an origin,
and then one every ``tau``:

    e_i = F + i*tau                                    expected consumption
    u_0 = max(d_0, e_0);  u_i = max(d_i, u_{i-1}+tau)  actual consumption
    E   = u_{n-1} + tau                                horizon
    QoE = 1 - sum_i(u_i - e_i) / (n*(E - F) - n*n*tau/2)

The quotient divides two areas, both in tokens times seconds, so any unit of time will do. A stream
with a pause or a change of pace is measured in reading time (`pacer.clock`) with tau 1.
"""

from __future__ import annotations

from collections.abc import Iterable


def qoe(
    deliveries_s: Iterable[float], *, tau_s: float, first_s: float = 0.0, origin_s: float = 0.0
) -> float:
    """QoE of a complete stream.

    :param deliveries_s: delivery time of each token, non-decreasing.
    :param tau_s: expected spacing, above 0.
    :param first_s: expected time of the first token, counted from ``origin_s``.
    :raises ValueError: if a delivery lies before the one before it, or ``tau_s`` is not positive.
    """
    running = RunningQoE(tau_s=tau_s, first_s=first_s, origin_s=origin_s)
    for delivery_s in deliveries_s:
        running.deliver(delivery_s)
    return running.final()


class RunningQoE:
    """The QoE of a stream, updated in O(1) time and memory per token.

    `final` treats the delivered tokens as the whole stream. `at` is for a running stream: it cuts
    both integrals at ``now``, so that an overdue token counts.
    """

    __slots__ = (
        "_actual_before_gap",
        "_count",
        "_delay_sum",
        "_first_s",
        "_last_delivery",
        "_last_use",
        "_origin_s",
        "_run_start",
        "_tau_s",
        "_use_sum",
    )

    def __init__(self, *, tau_s: float, first_s: float = 0.0, origin_s: float = 0.0) -> None:
        """:raises ValueError: if ``tau_s`` is not a positive number."""
        if not 0.0 < tau_s < float("inf"):
            raise ValueError(f"tau_s must be a positive number of seconds, not {tau_s!r}")
        self._tau_s = tau_s
        self._first_s = first_s
        self._origin_s = origin_s
        self._count = 0
        self._delay_sum = 0.0  # sum of u_i - e_i
        self._use_sum = 0.0  # sum of u_i, for `at`
        self._last_use = 0.0  # u_{n-1}, from the origin
        self._last_delivery = float("-inf")
        self._run_start = 0  # index of the first token of the run that is being read without a gap
        self._actual_before_gap = 0.0  # sum of u_i over the tokens before that run

    @property
    def count(self) -> int:
        """Tokens delivered so far."""
        return self._count

    def deliver(self, delivery_s: float) -> None:
        """Account for one more token.

        :raises ValueError: if it lies before the token before it.
        """
        self.deliver_all((delivery_s,))

    def deliver_all(self, deliveries_s: Iterable[float]) -> None:
        """Account for several more tokens, as `deliver` does for one."""
        tau, first, origin = self._tau_s, self._first_s, self._origin_s
        last, use = self._last_delivery, self._last_use
        delays, uses = self._delay_sum, self._use_sum
        place = float(self._count)  # i; products of two floats are faster
        soonest = use + tau if self._count else first  # u_i, unless the token comes later
        try:
            for delivery in deliveries_s:
                if delivery < last:
                    raise ValueError(
                        f"delivery at {delivery} s lies before the one before it, {last} s"
                    )
                last = delivery
                use = delivery - origin
                if use > soonest:
                    self._run_start = int(place)
                    self._actual_before_gap = uses
                else:
                    use = soonest
                delays += use - (first + place * tau)
                uses += use
                place += 1.0
                soonest = use + tau
        finally:
            self._count, self._last_delivery, self._last_use = int(place), last, use
            self._delay_sum, self._use_sum = delays, uses

    def final(self) -> float:
        """QoE of the tokens delivered so far, taken as the whole stream; 1.0 for none."""
        if self._count == 0:
            return 1.0
        horizon = self._last_use + self._tau_s
        whole = self._count * (horizon - self._first_s) - self._count**2 * self._tau_s / 2
        return _clamped(1.0 - self._delay_sum / whole)

    def at(self, now: float) -> float:
        """QoE of a stream that is still running, both areas cut at ``now``.

        ``now`` must not lie before the last delivery.
        With no token yet: 1 up to the expected first token, 0 after it.
        """
        elapsed = now - self._origin_s
        waited = elapsed - self._first_s
        if self._count == 0:
            return 1.0 if waited <= 0.0 else 0.0
        due = max(0.0, waited) ** 2 / (2 * self._tau_s)  # area under the expected curve
        if due == 0.0:
            return 1.0
        return _clamped(self._area_read(elapsed) / due)

    def _area_read(self, elapsed: float) -> float:
        """Area under the curve of tokens consumed, which climbs one token per tau from each u_i."""
        tau = self._tau_s
        if elapsed >= self._last_use + tau:
            return self._count * elapsed - self._use_sum - self._count * tau / 2
        # Only the last unbroken run can reach past ``elapsed``: its tokens follow each other at
        # tau, so the curve there is one straight line from the run's first use on.
        first_use = self._last_use - (self._count - 1 - self._run_start) * tau
        before = self._run_start * elapsed - self._actual_before_gap - self._run_start * tau / 2
        into = elapsed - first_use
        return before + into * into / (2 * tau)


def _clamped(value: float) -> float:
    return min(1.0, max(0.0, value))
