"""The pool of WebSockets against a real server on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest

from bench.load.record import ResponseRecord
from bench.load.transport.interface import ServerError
from bench.load.transport.pool import ConnectionPool
from bench.load.transport.websocket import Connection
from tests.bench.support.scripted import Reply, Script, ScriptedServer, good


@asynccontextmanager
async def pooled(
    limit: int | None, *scripts: Script
) -> AsyncIterator[tuple[ScriptedServer, ConnectionPool]]:
    async with ScriptedServer(*scripts).running() as server:
        pool = ConnectionPool(lambda: Connection.open(server.ws_url), limit)
        try:
            yield server, pool
        finally:
            await pool.close()


async def test_every_stream_has_its_own_socket_and_idle_ones_are_used_again() -> None:
    async with pooled(None) as (server, pool):
        async with pool.connection() as first, pool.connection() as second:
            assert first is not second
        async with pool.connection() as again, pool.connection() as other:
            assert {again, other} == {first, second}
            async with pool.connection():
                assert len(pool) == 3
        assert server.connections == 3


async def test_a_limit_shares_sockets_evenly() -> None:
    async with pooled(2) as (server, pool):
        async with (
            pool.connection() as a,
            pool.connection() as b,
            pool.connection() as c,
            pool.connection() as d,
        ):
            assert a is not b
            assert {c, d} == {a, b}
        assert server.connections == 2


async def test_those_who_share_a_socket_wait_for_the_same_handshake() -> None:
    async def use(pool: ConnectionPool) -> Connection:
        async with pool.connection() as connection:
            return connection

    async with pooled(1) as (server, pool):
        used = await asyncio.gather(*(use(pool) for _ in range(5)))
        assert len(set(used)) == server.connections == 1


async def test_a_lost_connection_is_replaced() -> None:
    async def drops(reply: Reply) -> None:
        reply.socket.transport.abort()

    async with pooled(1, drops, good) as (server, pool):
        outcomes = []
        for name in "abc":
            record = ResponseRecord()
            async with pool.connection() as connection:
                await (await connection.create(name, {}, record)).wait()
            outcomes.append(record.outcome)
        assert outcomes == ["failed", "completed", "completed"]
        assert server.connections == 2


async def test_a_pool_survives_a_refusal() -> None:
    async with pooled(1) as (server, pool):
        server.status = HTTPStatus.SERVICE_UNAVAILABLE
        with pytest.raises(ServerError, match="503"):
            async with pool.connection():
                pytest.fail("there is no connection to use")
        server.status = HTTPStatus.OK
        async with pool.connection() as connection:
            assert not connection.closed
