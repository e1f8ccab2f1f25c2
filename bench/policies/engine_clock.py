"""The clock on which a real engine's run is told: that on the wall, or the processor's.

On a machine that others use too, an engine's thread is often not running, and wall time says more
about the others than about the engine. The processor's clock counts the time that the thread has
had, and leaps over the time in which it would only have waited. With one thread on a core of its
own both are the same; `Share` tells how far they were apart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, Protocol

ClockName = Literal["wall", "processor"]
CLOCKS: tuple[ClockName, ...] = ("wall", "processor")


class EngineClock(Protocol):
    """Seconds since anything, which never go back."""

    def now(self) -> float:
        """The time."""

    def wait(self, until_s: float) -> None:
        """Nothing is to be done before ``until_s``."""


class WallClock:
    """Waiting is sleeping."""

    def now(self) -> float:
        """As `time.monotonic`."""
        return time.monotonic()

    def wait(self, until_s: float) -> None:
        """Sleep."""
        time.sleep(max(0.0, until_s - time.monotonic()))


class ProcessorClock:
    """Of the calling thread; waiting takes no time at all."""

    def __init__(self) -> None:
        self._leapt_s = 0.0

    def now(self) -> float:
        """Time on a processor, and what was waited."""
        return time.thread_time() + self._leapt_s

    def wait(self, until_s: float) -> None:
        """Leap."""
        self._leapt_s += max(0.0, until_s - self.now())


def clock_of(name: ClockName) -> EngineClock:
    """By its name."""
    return ProcessorClock() if name == "processor" else WallClock()


@dataclass(frozen=True, slots=True)
class Share:
    """How much of the wall's time a thread had a processor, while it had work."""

    wall_s: float
    processor_s: float

    @property
    def had(self) -> float:
        """From 0 to 1, which is a quiet machine."""
        return min(1.0, self.processor_s / self.wall_s) if self.wall_s else 1.0
