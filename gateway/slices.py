"""Work that can wait, done in short slices between other events of the loop.

Many responses can end in one moment. What is to be done about each then (log, metrics, store) must
not delay the tokens of others.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import structlog

log = structlog.get_logger()

SLICE_S = 0.001  # after which other events of the loop come first


class Slices:
    """A queue of actions, run in order. An action that raises is logged, and the others go on."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        self._scheduled = False

    def add(self, action: Callable[[], object]) -> None:
        """Run ``action`` soon."""
        self._waiting.append(action)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._slice)

    def finish(self) -> None:
        """Run everything that waits now."""
        while self._waiting:
            self._run(self._waiting.popleft())

    def _slice(self) -> None:
        ends_s = time.monotonic() + SLICE_S
        while self._waiting:
            self._run(self._waiting.popleft())
            if time.monotonic() > ends_s and self._waiting:
                asyncio.get_running_loop().call_soon(self._slice)
                return
        self._scheduled = False

    def _run(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception:
            log.exception("postponed_work_failed")
