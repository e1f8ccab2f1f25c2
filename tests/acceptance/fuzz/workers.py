"""``python -m tests.acceptance.fuzz.workers FOLDER``: two workers that answer by themselves.

Prints their addresses in one line, and serves until its input ends, or a worker has a bug.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from tests.gateway.support.player import Player
from tests.gateway.support.scripted_worker import scripted_worker


async def serve(folder: Path) -> None:
    """Serve until standard input ends."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        players, addresses = [], []
        for number in range(2):
            made = scripted_worker(folder, f"worker-{number}")
            worker, address = await stack.enter_async_context(made)
            players.append(tasks.create_task(Player(worker).run()))
            addresses.append(address)
        print(",".join(addresses), flush=True)
        await ended.wait()
        for player in players:
            player.cancel()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
