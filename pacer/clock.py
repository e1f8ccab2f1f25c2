"""Reading time: how many tokens a steady reader could have read so far.

Maps seconds to reading time and back. One unit of reading time is one token at the current pace
``tau_s`` (the TPOT target), so

    reading(now) = integral of dt / tau_s, taken only while the reader is not paused.

So only the clock deals with pace changes, pauses, and times in which the model writes nothing to
read (`stand`). The release law and the QoE are written in
reading time, where the pace is 1.
"""

from __future__ import annotations

import math


class ReadingClock:
    """Piecewise linear map between seconds and reading time.

    ``now`` may never go backwards between two calls that change the clock; a smaller value
    counts as the time of the last change.
    """

    __slots__ = ("_anchor_s", "_reading", "_stop", "paused", "tau_s")

    def __init__(self, tau_s: float, now: float) -> None:
        """Start at reading time 0 at ``now``.

        :param tau_s: seconds per token, above 0.
        :raises ValueError: if ``tau_s`` is not a positive number.
        """
        self.tau_s = _checked_tau(tau_s)  # seconds per token; `set_tau` changes it
        self._anchor_s = now  # seconds at the last change of pace or pause
        self._reading = 0.0  # reading time at the anchor
        self._stop = math.inf  # reading time does not pass this; see `stand`
        self.paused = False  # whether the reader has stopped reading; see `pause`

    def reading(self, now: float) -> float:
        """Reading time at ``now``, in tokens."""
        if self.paused or now <= self._anchor_s:
            return self._reading
        reading = self._reading + (now - self._anchor_s) / self.tau_s
        return reading if reading < self._stop else self._stop

    def seconds(self, reading: float) -> float | None:
        """The moment at which reading time reaches ``reading``; None while paused short of it.

        Earlier paces are not kept. For a reading reached before the last change of pace or pause,
        the result is the time of that change.
        """
        if reading <= self._reading:
            return self._anchor_s
        if self.paused:
            return None
        return self._anchor_s + (reading - self._reading) * self.tau_s

    def set_tau(self, tau_s: float, now: float) -> None:
        """Change the pace from ``now`` on. Raises ValueError like the constructor."""
        tau_s = _checked_tau(tau_s)
        self._move_anchor(now)
        self.tau_s = tau_s

    def pause(self, now: float) -> None:
        """Stop reading time. A second call has no effect."""
        self._move_anchor(now)
        self.paused = True

    def resume(self, now: float) -> None:
        """Let reading time run again."""
        self._move_anchor(now)
        self.paused = False

    def stand(self, reading: float) -> None:
        """Let reading time stand as soon as it is ``reading``, until `go_on`."""
        self._stop = reading

    def go_on(self, now: float) -> None:
        """Undo `stand`: reading time runs on from where it is at ``now``."""
        self._move_anchor(now)
        self._stop = math.inf

    def _move_anchor(self, now: float) -> None:
        self._reading = self.reading(now)
        self._anchor_s = max(self._anchor_s, now)


def _checked_tau(tau_s: float) -> float:
    if not 0.0 < tau_s < float("inf"):
        raise ValueError(f"tau_s must be a positive number of seconds, not {tau_s!r}")
    return tau_s
