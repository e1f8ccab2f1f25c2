"""Releases the tokens of all responses in time, with one wheel and one timer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from gateway.lateness import ReleaseLateness
from gateway.response.session import Session
from gateway.response.wheel import SLOT_S, ReleaseWheel


class Releases:
    """Sessions whose next token waits for its time.

    :param lateness: counts the releases.
    :param on_none: called with a session that has nothing more to release for now.
    :param on_bug: called with a session whose release raised, while the exception is handled.
    """

    def __init__(
        self,
        lateness: ReleaseLateness,
        *,
        on_none: Callable[[Session], None],
        on_bug: Callable[[Session], None],
    ) -> None:
        self.after: Callable[[], None] = lambda: None  # writes what was sent to clients
        self.wheel = ReleaseWheel()
        self._lateness = lateness
        self._on_none = on_none
        self._on_bug = on_bug
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_s = 0.0  # when the timer fires

    def set(self, session: Session, due_s: float) -> None:
        """Release the next token of a session at ``due_s`` (monotonic), not at another time."""
        self.wheel.set(session, due_s)
        self._wind()

    def clear(self, session: Session) -> None:
        """Release nothing of a session."""
        self.wheel.clear(session)

    def gap_s(self) -> float:
        """Seconds until the next release; infinite if none is due."""
        next_s = self.wheel.next_s()
        return math.inf if next_s is None else next_s - time.monotonic()

    def catch_up(self) -> None:
        """Release what is due, if anything is: the steps of many engines may come in one moment."""
        if self._timer is not None and time.monotonic() >= self._wakes_s:
            self._timer.cancel()
            self._release()

    def close(self) -> None:
        """Release nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _wind(self) -> None:
        """Set the timer to the next sessions."""
        next_s = self.wheel.next_s()
        if self._timer is not None:
            if next_s is None or next_s >= self._wakes_s:
                return  # at worst it finds nothing due
            self._timer.cancel()
            self._timer = None
        if next_s is not None:
            self._wakes_s = next_s
            # The loop's timers count whole milliseconds: round up.
            delay_ms = math.ceil(max(0.0, next_s - time.monotonic()) * 1000)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay_ms / 1000, self._release)

    def _release(self) -> None:
        self._timer = None
        clock, put, early = time.monotonic, self.wheel.put, 0
        for slot, sessions in self.wheel.due(clock()):
            for session in sessions:
                if session.wheel_slot != slot:
                    continue  # cleared in the meantime
                now = clock()
                if now <= session.due_s:
                    early += 1
                else:
                    self._lateness.add(now - session.due_s)
                try:
                    due_s = session.release(now, SLOT_S)
                    if due_s is not None:
                        put(session, due_s)
                    else:
                        self._none(session)
                except Exception:  # noqa: BLE001 (`on_bug` logs it)
                    session.wheel_slot = None
                    self._on_bug(session)
        self._lateness.counts[0] += early
        self.after()
        self._wind()

    def _none(self, session: Session) -> None:
        session.wheel_slot = None
        self._on_none(session)
