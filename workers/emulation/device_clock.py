"""When an emulated device computes, and how well the engine keeps it busy. Pure but for its clock.

Steps are due at absolute times: one begins when the one before it ends, or when it is submitted,
whichever is later. So what the engine takes for itself delays nothing as long as the next step is
there in time, just as on a device that is real.
"""

from __future__ import annotations

from collections.abc import Callable

_JUDGE_EVERY_S = 10.0
_STARVING = 0.05  # share of the time with work at which the engine does not keep up


class DeviceClock:
    """One device. All sums are since it was made, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        """:param now: a monotonic clock."""
        self.steps = 0
        self.busy_s = 0.0  # computed: the sum of the steps' durations
        self.starved_s = 0.0  # idle with work
        self.late_s = 0.0  # from a step's end until the engine took what it had produced, summed
        self.now = now
        self.started_s = now()
        self._free_at_s = self.started_s
        self._judged = (self.started_s, 0.0, 0.0)  # when, and busy_s and starved_s then

    def begin(self, *, work_before: bool) -> float:
        """Submit a step; `run` must follow.

        :param work_before: whether there was something to do before this step was submitted.
        :return: when it can begin.
        """
        now = self.now()
        if work_before:
            self.starved_s += max(0.0, now - self._free_at_s)
        return max(now, self._free_at_s)

    def run(self, start_s: float, step_s: float) -> float:
        """Run the step.

        :param start_s: as `begin` said, or later if the device waits for something of its own.
        :return: when it ends.
        """
        self.wait(start_s + step_s)
        self.busy_s += step_s
        self.steps += 1
        return self._free_at_s

    def wait(self, until_s: float) -> None:
        """The device waits by itself until this time; that does not count as idle with work."""
        self._free_at_s = max(self._free_at_s, until_s)

    def fetched(self, due_s: float) -> None:
        """The engine takes the output of a step, now."""
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
