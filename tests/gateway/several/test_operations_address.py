"""The address of operators, apart from that of clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.app import make_runner, make_site
from gateway.config import ServerConfig
from tests.gateway.support.real_workers import free_port
from tests.gateway.support.scripted_service import scene

CLIENTS = ("/", "/v1/models", "/v1/responses/resp_x", "/openapi.json", "/nothing")
OPERATORS = ("/metrics", "/ops", "/admin/instances", "/admin/policy", "/admin/nothing")
BOTH = ("/health", "/ready", "/version", "/static/favicon.svg")


@pytest.fixture
async def urls(tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """The addresses of clients and of operators."""
    port = free_port()
    async with scene(tmp_path, "a", server=ServerConfig(operations_port=port)) as stage:
        runner = make_runner(stage.service)
        await runner.setup()
        await make_site(runner, "127.0.0.1", 0).start()
        own = runner.addresses[0][1]
        await make_site(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{own}", f"http://127.0.0.1:{port}"
        await runner.cleanup()


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[bool, int]:
    """Whether the address is the right one for the path, and the status."""
    async with session.get(url) as answer:
        wrong = answer.status == 404 and "wrong_address" in await answer.text()
        return not wrong, answer.status


async def test_each_path_is_served_at_its_own_address(urls: tuple[str, str]) -> None:
    clients, operators = urls
    async with aiohttp.ClientSession() as session:
        for paths, at_clients, at_operators in (
            (CLIENTS, True, False),
            (OPERATORS, False, True),
            (BOTH, True, True),
        ):
            for path in paths:
                for url, expected in ((clients, at_clients), (operators, at_operators)):
                    right, status = await _get(session, url + path)
                    assert right is expected, (url, path)
                    assert expected or status == 404
        assert (await _get(session, f"{operators}/metrics"))[1] == 200
        assert (await _get(session, f"{clients}/v1/models"))[1] == 200
        async with session.get(f"{clients}/v1/models") as answer:  # the chat page shows no link
            assert "X-Pascal-Operations" not in answer.headers
        async with session.ws_connect(f"{operators}/admin/ops") as viewer:
            assert (await viewer.receive_json())["type"] == "hello"
        with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
            await session.ws_connect(f"{clients}/admin/ops")


async def test_without_it_one_address_serves_all(tmp_path: Path) -> None:
    async with scene(tmp_path, "a") as stage:
        runner = make_runner(stage.service)
        await runner.setup()
        await make_site(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as session:
            for path in ("/", "/v1/models", "/metrics", "/ops", "/admin/instances"):
                assert (await _get(session, url + path)) == (True, 200)
            async with session.get(f"{url}/v1/models") as answer:
                assert answer.headers["X-Pascal-Operations"] == "allowed"
        await runner.cleanup()
