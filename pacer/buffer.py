"""The token buffer: when each generated token may be shown to the reader.

The law of release, in reading time (`pacer.clock`), where one token is one unit:

    release_0 = arrival_0
    release_i = max(arrival_i, release_{i-1} + 1)

These are *planned* times. A caller that is late delays one token, but not the plan of the next, so
lateness never accumulates. At a constant pace this is the law of the paper's token pacer:
``release_i = max(arrival_i, release_{i-1} + tau)``.

The buffer must not know how tokens are generated or sent. The caller asks `next_release_s` for the
next due time, and calls `pop_due` then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from pacer.clock import ReadingClock

Item = TypeVar("Item")

# Reading times are sums of floats, so an event loop that wakes exactly at a planned time may be a
# rounding error early. A millionth of a token is below the resolution of any timer.
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Release(Generic[Item]):
    """One token that may be sent now.

    ``planned_s`` is the time at which the law allowed it. It is at most ``now`` of the call that
    returned it; the difference is the lateness of the caller.
    """

    item: Item
    planned_s: float


class TokenBuffer(Generic[Item]):
    """A FIFO of tokens that are generated and not yet released.

    After `close` no more tokens may be pushed; buffered tokens are still released at the pace.
    """

    def __init__(self, tau_s: float, now: float) -> None:
        """:raises ValueError: if ``tau_s`` is not a positive number of seconds."""
        self.clock = ReadingClock(tau_s, now)
        self.underruns = 0  # releases for which the reader had to wait after the first token
        self.released = 0
        self._queue: deque[tuple[Item, float]] = deque()  # item, arrival in reading time
        self._last_release: float | None = None  # planned, reading time
        self._last_planned: float | None = None  # of the last token pushed
        self._closed = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def closed(self) -> bool:
        """True when no more tokens will come."""
        return self._closed

    def push(self, item: Item, now: float) -> None:
        """Add a token that was generated at ``now``.

        :raises RuntimeError: after `close`.
        """
        if self._closed:
            raise RuntimeError("push after close")
        arrival = self.clock.reading(now)
        planned = arrival
        if self._last_planned is not None:
            due = self._last_planned + 1.0
            if arrival > due + _EPSILON:
                self.underruns += 1
            planned = max(arrival, due)
        self._last_planned = planned
        self._queue.append((item, arrival))

    def close(self) -> None:
        """Mark the stream as complete."""
        self._closed = True

    def pop_due(self, now: float) -> list[Release[Item]]:
        """Remove and return every token whose planned release is not after ``now``, in order.

        Returns none while the reader is paused.
        """
        if self.clock.paused:
            return []
        reading = self.clock.reading(now) + _EPSILON
        due: list[Release[Item]] = []
        while self._queue:
            planned = self._planned_head()
            if planned > reading:
                break
            item, _ = self._queue.popleft()
            self._last_release = planned
            self.released += 1
            planned_s = self.clock.seconds(planned)
            due.append(Release(item, now if planned_s is None else min(planned_s, now)))
        return due

    def drain(self) -> list[Item]:
        """Remove and return all tokens at once, regardless of the pace.

        The plan continues after the drained tokens: the reader still has to read them.
        """
        items = [item for item, _ in self._queue]
        self._queue.clear()
        self._last_release = self._last_planned
        self.released += len(items)
        return items

    def next_release_s(self) -> float | None:
        """When `pop_due` will next return something; None if it is empty or paused."""
        if not self._queue or self.clock.paused:
            return None
        return self.clock.seconds(self._planned_head())

    def slack_s(self, now: float) -> float | None:
        """Seconds until the reader runs out of tokens; negative if that has happened.

        This is ``first_release + generated * tau - now`` as long as there was no underrun.
        None before the first token, and while the reader is paused.
        """
        if self._last_planned is None or self.clock.paused:
            return None
        return (self._last_planned + 1.0 - self.clock.reading(now)) * self.clock.tau_s

    def set_tau(self, tau_s: float, now: float) -> None:
        """Change the pace mid-stream. Tokens already released stay released."""
        self.clock.set_tau(tau_s, now)

    def pause(self, now: float) -> None:
        """Stop the reader: nothing is released until `resume`."""
        self.clock.pause(now)

    def resume(self, now: float) -> None:
        """Continue from the reading time at which the pause began."""
        self.clock.resume(now)

    def _planned_head(self) -> float:
        arrival = self._queue[0][1]
        return arrival if self._last_release is None else max(arrival, self._last_release + 1.0)
