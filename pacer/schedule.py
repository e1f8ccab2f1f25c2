"""The release schedule: when each generated token may be shown to the reader.

The law of release, in reading time (`pacer.clock`), where one token is one unit:

    release_0 = arrival_0
    release_i = max(arrival_i, release_{i-1} + 1)

These are *planned* times. A caller that is late delays one token, but not the plan of the next, so
lateness never accumulates. At a constant pace this is the law of the paper's token pacer:
``release_i = max(arrival_i, release_{i-1} + tau)``.

The schedule counts tokens and must not know what they are. `pacer.buffer.TokenBuffer` adds the
items. A waiting token takes 8 bytes of an array, which the garbage collector does not walk.
"""

from __future__ import annotations

from array import array

from pacer.clock import ReadingClock

# Reading times are sums of floats, so an event loop that wakes exactly at a planned time may be a
# rounding error early. A millionth of a token is below the resolution of any timer.
_EPSILON = 1e-6
_TRIM = 1024  # places of released tokens that are kept before the array is cut


class ReleaseSchedule(ReadingClock):
    """Reading time, and the planned releases of the tokens that are not yet released, in order."""

    __slots__ = ("_head", "_last", "_planned", "released", "underruns")

    def __init__(self, tau_s: float, now: float) -> None:
        """:raises ValueError: if ``tau_s`` is not a positive number of seconds."""
        super().__init__(tau_s, now)
        self.underruns = 0  # releases for which the reader had to wait after the first token
        self.released = 0
        self._planned = array("d")  # in reading time; those before `_head` are released
        self._head = 0
        self._last: float | None = None  # planned release of the last token pushed

    def __len__(self) -> int:
        return len(self._planned) - self._head

    def push(self, now: float, tokens: int = 1) -> None:
        """Add tokens that were generated at ``now``, and are released together.

        The law plans each of them. They are released at the time of the last one, and count as one
        in `pop_due`, `drain` and ``len``.
        """
        planned = self.reading(now)
        last = self._last
        if last is not None:
            due = last + 1.0
            if planned > due + _EPSILON:
                self.underruns += 1
            if due > planned:
                planned = due
        for _ in range(tokens - 1):
            planned += 1.0
        self._planned.append(planned)
        self._last = planned

    def pop_due(self, now: float, early_s: float = 0.0, most: int | None = None) -> int:
        """Release the tokens whose planned time is not after ``now + early_s``.

        :param early_s: how much before its planned time a token may be released.
        :param most: release no more tokens than this.
        :return: how many tokens these are; none while the reader is paused.
        """
        if self.paused:
            return 0
        return self.pop_to(self.reading(now + early_s), most)

    def pop_to(self, reading: float, most: int | None = None) -> int:
        """Release the tokens whose planned time is not after ``reading``; see `pop_due`."""
        planned, head = self._planned, self._head
        reading += _EPSILON
        place, end = head, len(planned)
        if most is not None:
            end = min(end, head + most)
        while place < end and planned[place] <= reading:
            place += 1
        self.released += place - head
        if place == len(planned) or place >= _TRIM:
            del planned[:place]
            self._head = 0
        else:
            self._head = place
        return place - head

    def drain(self) -> int:
        """Release all tokens at once, regardless of the pace; return how many.

        The plan continues after the drained tokens: the reader still has to read them.
        """
        count = len(self)
        self.released += count
        del self._planned[:]
        self._head = 0
        return count

    def next_release_s(self) -> float | None:
        """When `pop_due` will next release something; None if it is empty or paused."""
        planned = self._planned
        if self.paused or not planned:
            return None
        return self.seconds(planned[self._head])

    def slack_s(self, now: float) -> float | None:
        """Seconds until the reader runs out of tokens; negative if that has happened.

        This is ``first_release + generated * tau - now`` as long as there was no underrun.
        None before the first token, and while the reader is paused.
        """
        return self.slack_at(self.reading(now))

    def slack_at(self, reading: float) -> float | None:
        """The slack at a reading time; see `slack_s`."""
        if self._last is None or self.paused:
            return None
        return (self._last + 1.0 - reading) * self.tau_s
