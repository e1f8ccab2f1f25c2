"""A connection that has ended is freed at once: full collections of garbage are rare."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from aiohttp import ClientSession

from gateway.api.connections import Connection
from gateway.service import ResponseService
from tests.gateway.api.test_apis import accepted, api, create, receive
from tests.gateway.support.scripted_service import until
from tests.gateway.support.scripted_worker import ScriptedWorker


async def test_a_websocket_that_has_ended_leaves_nothing_for_the_collector(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        gc.collect()
        before = _connections()
        gc.disable()
        try:
            for _ in range(5):
                await _visit(client, worker, service)
            await asyncio.sleep(0.1)
            assert _connections() == before
        finally:
            gc.enable()


async def _visit(client: ClientSession, worker: ScriptedWorker, service: ResponseService) -> None:
    """Read one token, leave, and have the response stopped."""
    async with client.ws_connect("v1/responses") as socket:
        await create(socket)
        name = await accepted(worker)
        await worker.tokens(name, 0, "a")
        await receive(socket, "response.output_text.delta")
    session = service.find(name, "")
    await until(lambda: not session.log.followed)
    service.cancel(session)
    assert await worker.next_cancel() == name


def _connections() -> int:
    """Connections of the gateway in memory."""
    return sum(isinstance(one, Connection) for one in gc.get_objects())
