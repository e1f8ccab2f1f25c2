"""Decides when an emulated device computes, and measures how well the engine keeps it busy.

Pure except for its clock. A step begins when the step before it ends or when it is submitted,
whichever is later. So the engine's own work delays nothing if the next step is submitted in time,
as on a real device.
"""

from __future__ import annotations

from collections.abc import Callable

_JUDGE_EVERY_S = 10.0
_STARVING = 0.05  # share of the time with work at which the engine does not keep up


class DeviceClock:
    """One device. Its sums are in seconds since the clock was created."""

    def __init__(self, now: Callable[[], float]) -> None:
        """:param now: a monotonic clock."""
        self.steps = 0
        self.busy_s = 0.0  # sum of the durations of steps
        self.starved_s = 0.0  # time that the device was idle although the engine had work
        self.late_s = 0.0  # sum over steps: from the end until the engine took the output
        self.now = now
        self.started_s = now()
        self._free_at_s = self.started_s
        # Time of the last judgement, with busy_s and starved_s then.
        self._judged = (self.started_s, 0.0, 0.0)

    def begin(self, *, work_before: bool) -> float:
        """Submit a step; `run` must follow.

        :param work_before: whether the engine had work before it submitted this step.
        :return: when the step can begin.
        """
        now = self.now()
        if work_before:
            self.starved_s += max(0.0, now - self._free_at_s)
        return max(now, self._free_at_s)

    def run(self, start_s: float, step_s: float) -> float:
        """Run the step.

        :param start_s: the time from `begin`, or later if the device must wait for transfers.
        :return: when the step ends.
        """
        self.wait(start_s + step_s)
        self.busy_s += step_s
        self.steps += 1
        return self._free_at_s

    def wait(self, until_s: float) -> None:
        """Let the device wait until this time. That does not count as starved."""
        self._free_at_s = max(self._free_at_s, until_s)

    def fetched(self, due_s: float) -> None:
        """The engine takes the output of a step at this moment."""
        self.late_s += max(0.0, self.now() - due_s)

    def starving(self) -> float | None:
        """Judge, at most every ten seconds, whether the engine keeps up with the device.

        :return: the share of the time with work in which the device computed, since the last
            judgement, if that is too little; else None.
        """
        now = self.now()
        since_s, busy_s, starved_s = self._judged
        if now - since_s < _JUDGE_EVERY_S:
            return None
        self._judged = (now, self.busy_s, self.starved_s)
        busy_s, starved_s = self.busy_s - busy_s, self.starved_s - starved_s
        with_work_s = busy_s + starved_s
        return busy_s / with_work_s if starved_s > _STARVING * with_work_s else None
