"""How long an adapter asks its engine whether another engine is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from workers.engine.interface import MEETING_S

_POLL_S = 0.01


async def until_known(ask: Callable[[], Awaitable[str | None]]) -> str | None:
    """Ask until the engines are connected or cannot connect.

    :param ask: as `workers.scheduler.engine_core_calls.meet_peer` answers.
    :return: why they are not connected, or None. Takes `MEETING_S` at most.
    """
    try:
        async with asyncio.timeout(MEETING_S):
            while True:
                if (answer := await ask()) is not None:
                    return answer or None
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        return f"not connected after {MEETING_S:.0f} s"
