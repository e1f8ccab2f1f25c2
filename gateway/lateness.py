"""How late tokens are released: a histogram that costs one list index a token.

A metric of the Prometheus client takes a lock and walks its buckets at each call. This one counts
whole milliseconds in a list; `gateway.scrape` makes the metric of it when it is asked for.
"""

from __future__ import annotations

from math import ceil

MOST_MS = 1000  # later releases count together


class ReleaseLateness:
    """Releases by lateness, since the start of the gateway."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        # Index n: later than n - 1 ms, at most n ms; the last: later than `MOST_MS`.
        self.counts = [0] * (MOST_MS + 2)
        self.sum_s = 0.0

    def add(self, late_s: float) -> None:
        """Count one release.

        :param late_s: seconds after it was due; an early release counts as 0.
        """
        if late_s <= 0.0:
            self.counts[0] += 1
            return
        self.sum_s += late_s
        try:
            self.counts[ceil(late_s * 1000.0)] += 1
        except IndexError:
            self.counts[-1] += 1

    def at_most(self, late_ms: int) -> int:
        """Return the number of releases that were at most this late, up to `MOST_MS`."""
        return sum(self.counts[: late_ms + 1])
