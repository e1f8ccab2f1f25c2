"""Timers by name, which never fire early. They read the clock and need an event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any


class Timers:
    """At most one timer for each name."""

    def __init__(self) -> None:
        self.running: dict[str, asyncio.TimerHandle] = {}  # by name

    def set(self, name: str, when_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back at ``when_s`` (monotonic seconds), instead of any earlier timer of the name."""
        self.stop(name)
        # The loop's timers count whole milliseconds: round up.
        delay_ms = math.ceil(max(0.0, when_s - time.monotonic()) * 1000)
        self.running[name] = asyncio.get_running_loop().call_later(
            delay_ms / 1000, self._fire, name, callback, args
        )

    def stop(self, name: str) -> None:
        """Drop the timer of a name, if there is one."""
        if (timer := self.running.pop(name, None)) is not None:
            timer.cancel()

    def stop_all(self) -> None:
        """Drop all timers."""
        for name in list(self.running):
            self.stop(name)

    def _fire(self, name: str, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        del self.running[name]
        callback(*args)
