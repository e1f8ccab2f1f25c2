"""The clock of a real engine's run: the clock on the wall, or the processor's.

On a shared machine an engine's thread is often not running, and wall time depends more on other
processes than on the engine. The processor's clock counts the processor time of the thread, and
skips the time in which it would only wait. With one thread on a core of its own both clocks agree;
`Share` measures their difference.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, Protocol

ClockName = Literal["wall", "processor"]
CLOCKS: tuple[ClockName, ...] = ("wall", "processor")


class EngineClock(Protocol):
    """Seconds from an arbitrary start, which never decrease."""

    def now(self) -> float:
        """The current time."""

    def wait(self, until_s: float) -> None:
        """Let the time pass until ``until_s``."""


class WallClock:
    """Real time, in which waiting is sleeping."""

    def now(self) -> float:
        """The time of `time.monotonic`."""
        return time.monotonic()

    def wait(self, until_s: float) -> None:
        """Sleep until ``until_s``."""
        time.sleep(max(0.0, until_s - time.monotonic()))


class ProcessorClock:
    """Processor time of the calling thread; waiting takes no real time."""

    def __init__(self) -> None:
        self._skipped_s = 0.0

    def now(self) -> float:
        """Processor time so far, and the time that was skipped."""
        return time.thread_time() + self._skipped_s

    def wait(self, until_s: float) -> None:
        """Skip to ``until_s``."""
        self._skipped_s += max(0.0, until_s - self.now())


def clock_of(name: ClockName) -> EngineClock:
    """The clock of that name."""
    return ProcessorClock() if name == "processor" else WallClock()


@dataclass(frozen=True, slots=True)
class Share:
    """Share of the wall time in which a thread had a processor, while it had work."""

    wall_s: float
    processor_s: float

    @property
    def had(self) -> float:
        """The share, from 0 to 1; 1 on a quiet machine."""
        return min(1.0, self.processor_s / self.wall_s) if self.wall_s else 1.0
