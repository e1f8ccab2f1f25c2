"""Timers of routes: at most one for each, and none after it is over."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

from gateway.routing.deadlines import Deadlines


def route(deadline_s: float | None) -> Any:
    return SimpleNamespace(deadline_s=deadline_s, session=SimpleNamespace(response_id="r"))


async def test_only_the_latest_deadline_of_a_route_is_waited_for() -> None:
    due: asyncio.Queue[tuple[Any, float]] = asyncio.Queue()
    deadlines = Deadlines(lambda route, now: due.put_nowait((route, now)))
    now = time.monotonic()
    waits = route(now + 600.0)
    deadlines.set(waits, now)
    replaced = deadlines.timers["r"]
    waits.deadline_s = now + 0.01
    deadlines.set(waits, now)
    assert replaced.cancelled()
    assert len(deadlines.timers) == 1
    called_with, at_s = await due.get()
    assert called_with is waits
    assert now < at_s <= time.monotonic()


async def test_a_route_without_a_deadline_is_not_waited_for() -> None:
    deadlines = Deadlines(lambda route, now: None)
    now = time.monotonic()
    deadlines.set(route(now + 600.0), now)
    timer = deadlines.timers["r"]
    deadlines.set(route(None), now)
    assert timer.cancelled()
    assert not deadlines.timers
    deadlines.clear(route(None))  # once more does no harm
