"""Questions to the server before a run."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest

from bench.load.transport.interface import ServerError
from bench.load.transport.server_info import served_model, wait_ready
from tests.bench.support.scripted import ScriptedServer


async def test_asking_over_http() -> None:
    async with ScriptedServer().running() as server:
        await asyncio.to_thread(wait_ready, server.base_url, None, 0.0)
        server.status = HTTPStatus.SERVICE_UNAVAILABLE
        with pytest.raises(ServerError, match=r"not ready: .*/ready: HTTP 503"):
            await asyncio.to_thread(wait_ready, server.base_url, None, 0.0)
        with pytest.raises(ServerError, match="/v1/models: HTTP 503"):
            await asyncio.to_thread(served_model, server.base_url, None)
    with pytest.raises(ServerError, match="Connection refused"):
        await asyncio.to_thread(served_model, server.base_url, None)
