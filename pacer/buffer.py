"""The token buffer: generated tokens, held until the reader may see them.

`pacer.schedule` has the law of release. The buffer must not know how tokens are generated or sent.
The caller asks `next_release_s` for the next due time, and calls `pop_due` then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from pacer.clock import ReadingClock
from pacer.schedule import ReleaseSchedule

Item = TypeVar("Item")


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
        self._schedule = ReleaseSchedule(tau_s, now)
        self.clock: ReadingClock = self._schedule
        self._items: deque[Item] = deque()
        self._released = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def underruns(self) -> int:
        """Releases for which the reader had to wait after the first token."""
        return self._schedule.underruns

    @property
    def released(self) -> int:
        """Number of tokens that were released."""
        return self._released

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
        self._schedule.push(now)
        self._items.append(item)

    def close(self) -> None:
        """Mark the stream as complete."""
        self._closed = True

    def pop_due(self, now: float) -> list[Release[Item]]:
        """Remove and return every token whose planned release is not after ``now``, in order.

        Returns none while the reader is paused.
        """
        if self.clock.paused:
            return []
        releases = []
        # One at a time, because the schedule forgets the times of released tokens.
        while (planned_s := self._schedule.next_release_s()) is not None:
            if not self._schedule.pop_due(now, most=1):
                break
            releases.append(Release(self._items.popleft(), min(planned_s, now)))
        self._released += len(releases)
        return releases

    def drain(self) -> list[Item]:
        """Remove and return all tokens at once, regardless of the pace.

        The plan continues after the drained tokens: the reader still has to read them.
        """
        self._schedule.drain()
        items = list(self._items)
        self._released += len(items)
        self._items.clear()
        return items

    def next_release_s(self) -> float | None:
        """When `pop_due` will next return something; None if it is empty or paused."""
        return self._schedule.next_release_s()

    def slack_s(self, now: float) -> float | None:
        """Seconds until the reader runs out of tokens; see `ReleaseSchedule.slack_s`."""
        return self._schedule.slack_s(now)

    def set_tau(self, tau_s: float, now: float) -> None:
        """Change the pace mid-stream. Tokens already released stay released."""
        self.clock.set_tau(tau_s, now)

    def pause(self, now: float) -> None:
        """Stop the reader: nothing is released until `resume`."""
        self.clock.pause(now)

    def resume(self, now: float) -> None:
        """Continue from the reading time at which the pause began."""
        self.clock.resume(now)
