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
from collections.abc import Sequence
from itertools import accumulate, repeat

from pacer.clock import ReadingClock

# Reading times are sums of floats, so an event loop that wakes exactly at a planned time may be a
# rounding error early. A millionth of a token is below the resolution of any timer.
_EPSILON = 1e-6
_TRIM = 256  # places of released tokens that are kept before the array is cut


class ReleaseSchedule(ReadingClock):
    """Reading time, and the planned releases of the tokens that are not yet released, in order."""

    __slots__ = (
        "_head",
        "_last",
        "_planned",
        "at",
        "lead_s",
        "released_s",
        "shown",
        "shown_at",
        "then_s",
        "underruns",
    )

    def __init__(self, tau_s: float, now: float, lead_s: float = 0.0) -> None:
        """Plan for a reader of this pace.

        :param lead_s: how much before its planned time a token is released, because the reader's
            side holds it back until then. The plan stays the same.
        :raises ValueError: if ``tau_s`` is not a positive number of seconds.
        """
        super().__init__(tau_s, now)
        self.lead_s = lead_s
        self.underruns = 0  # releases for which the reader had to wait after the first token
        self.at = 0.0  # reading time of the last release
        self.released_s: float | None = None  # when that was, in seconds
        # Reading time at which the reader sees the last token that was released. With a lead this
        # is its planned time, or that of the release if it came later.
        self.shown_at = 0.0
        # `shown_at` of the tokens that `pop_next` released. The caller takes them out, and may add
        # those that were released in another way.
        self.shown = array("d")
        self.then_s = now  # the next release, after the last `pop_next` that released something
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

    def push_each(self, times: Sequence[float]) -> None:
        """Add tokens that are released one by one; ``times``: when each was generated."""
        last = self._last
        if last is None or self.reading(times[-1]) > last + 1.0:
            for now in times:
                self.push(now)
            return
        # Each came before its turn. These are the sums that `push` makes, one after another.
        self._planned.extend(accumulate(repeat(1.0, len(times) - 1), initial=last + 1.0))
        self._last = self._planned[-1]

    def pop_due(self, now: float, early_s: float = 0.0, most: int | None = None) -> int:
        """Release the tokens whose planned time is not after ``now + early_s``, plus the lead.

        :param early_s: how much before its time a token may be released.
        :param most: release no more tokens than this. With a lead it must be 1.
        :return: how many tokens these are; none while the reader is paused.
        """
        if self.paused:
            return 0
        anchor_s, at, tau_s = self._anchor_s, self._reading, self.tau_s
        if now > anchor_s:  # `reading`, without a call: this runs for each token
            at += (now - anchor_s) / tau_s
            if at > self._stop:
                at = self._stop
        self.at = at
        limit = at + (early_s + self.lead_s) / tau_s + _EPSILON
        planned, head = self._planned, self._head
        length = len(planned)
        end = length if most is None else min(length, head + most)
        place = head
        while place < end and planned[place] <= limit:
            place += 1
        if place > head:
            self.shown_at = max(at, planned[place - 1]) if self.lead_s else at
            self.released_s = now
        if place < length and place < _TRIM:
            self._head = place
        else:
            del planned[:place]
            self._head = 0
        return place - head

    def pop_next(self, now: float, early_s: float, behind: int = 0) -> float | None:
        """Do as `pop_due`, `slack_s` and `next_release_s`, in the case of nearly every token.

        :param behind: tokens that were generated, and will be pushed behind the others.
        :return: None if `pop_due` is to be called instead. Else one token was released, another one
            waits until `then_s`, and this is the slack, those behind included.
        """
        planned, place = self._planned, self._head
        if self.paused or place >= _TRIM:
            return None
        try:
            this, then = planned[place], planned[place + 1]
        except IndexError:  # fewer than two wait
            return None
        anchor_s, reading = self._anchor_s, self._reading
        tau_s, lead_s = self.tau_s, self.lead_s
        at = reading + (now - anchor_s) / tau_s
        if at > self._stop:
            at = self._stop
        limit = at + (early_s + lead_s) / tau_s + _EPSILON
        if this > limit or then <= limit or at < reading:
            return None
        self._head = place + 1
        self.at, self.released_s = at, now
        self.shown_at = shown_at = this if lead_s and this > at else at
        self.shown.append(shown_at)
        self.then_s = anchor_s + (then - reading) * tau_s - lead_s
        return (planned[-1] + behind + 1.0 - at) * tau_s

    def drain(self) -> int:
        """Release all tokens at once, regardless of the pace; return how many.

        The plan continues after the drained tokens: the reader still has to read them.
        """
        count = len(self)
        del self._planned[:]
        self._head = 0
        return count

    def stand_when_dry(self, now: float) -> None:
        """Let reading time stand once the reader has read all tokens so far, until `go_on`.

        For a stream whose model writes something that the reader does not wait for.
        """
        if self._last is not None:
            self.stand(max(self._last + 1.0, self.reading(now)))

    def next_release_s(self) -> float | None:
        """When `pop_due` will next release something; None if it is empty or paused."""
        if self.paused or not self._planned:
            return None
        due = self._planned[self._head]
        if due <= self._reading:
            return self._anchor_s
        return self._anchor_s + (due - self._reading) * self.tau_s - self.lead_s

    def slack_s(self, now: float) -> float | None:
        """Seconds until the reader runs out of tokens; negative if that has happened.

        This is ``first_release + generated * tau - now`` as long as there was no underrun.
        None before the first token, and while the reader is paused.
        """
        if self._last is None or self.paused:
            return None
        return (self._last + 1.0 - self.reading(now)) * self.tau_s
