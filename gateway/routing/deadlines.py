"""Timers for the deadlines of routes. The only place in routing where a timer runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.routing.route import Route


class Deadlines:
    """At most one timer for each route.

    :param on_due: called with the route and the time, monotonic seconds. The time may be slightly
        before the deadline, because timers count whole milliseconds.
    """

    def __init__(self, on_due: Callable[[Route, float], None]) -> None:
        self.timers: dict[str, asyncio.TimerHandle] = {}  # by response
        self._on_due = on_due

    def set(self, route: Route, now: float) -> None:
        """Wait for the deadline that the route has now, if it has one, and for no other."""
        self.clear(route)
        if route.deadline_s is not None:
            delay_s = max(0.0, route.deadline_s - now)
            loop = asyncio.get_running_loop()
            self.timers[route.session.response_id] = loop.call_later(delay_s, self._due, route)

    def clear(self, route: Route) -> None:
        """Stop waiting."""
        if (timer := self.timers.pop(route.session.response_id, None)) is not None:
            timer.cancel()

    def _due(self, route: Route) -> None:
        self._on_due(route, time.monotonic())
