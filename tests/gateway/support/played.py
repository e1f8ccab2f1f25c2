"""A gateway over HTTP whose worker answers every request by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from gateway.app import make_runner, make_site
from gateway.service import ResponseService
from tests.gateway.support.player import Player
from tests.gateway.support.scripted_service import serving


@asynccontextmanager
async def played(
    folder: Path, **tables: Any
) -> AsyncIterator[tuple[ClientSession, ResponseService, Player]]:
    """A client of the gateway, its service, and the worker."""
    async with serving(folder, "worker-0", **tables) as (service, workers):
        runner = make_runner(service)
        await runner.setup()
        await make_site(runner, "127.0.0.1", 0).start()
        player = Player(workers["worker-0"])
        playing = asyncio.create_task(player.run())
        try:
            async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}/") as client:
                yield client, service, player
        finally:
            await runner.cleanup()
            playing.cancel()
            await asyncio.wait([playing])
