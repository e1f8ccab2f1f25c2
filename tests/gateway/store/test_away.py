"""A PostgreSQL that goes away and comes back: nothing is lost, and nobody waits for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from gateway.app import make_runner
from gateway.store import ConversationStore, KeyStore, KeyUsage, StoreError, responses
from gateway.store.conversations import size_of
from tests.gateway.store.cutting_proxy import Cut, CuttingProxy
from tests.gateway.store.stored import STORED, opened
from tests.gateway.support.scene import play
from tests.gateway.support.scripted_engine import ANSWER
from tests.gateway.support.scripted_service import ended, until
from tests.support.postgresql import PostgresqlServer
from tests.support.programs import POSTGRESQL, PSYCOPG, needs

pytestmark = [needs(POSTGRESQL), needs(PSYCOPG)]

AWAY_S = [2.0, pytest.param(30.0, marks=pytest.mark.long)]
HOW = ["fast", "immediate", "silent"]


async def leave(server: PostgresqlServer, how: str) -> None:
    if how == "silent":
        server.pause()
    else:
        await asyncio.to_thread(server.stop, how)


async def come_back(server: PostgresqlServer, how: str) -> None:
    await asyncio.to_thread(server.go_on if how == "silent" else server.start)


def _always(items: list[dict[str, Any]], *_: object) -> list[dict[str, Any]]:
    return items


@pytest.mark.parametrize("away_s", AWAY_S)
@pytest.mark.parametrize("how", HOW)
async def test_a_database_that_is_away_loses_no_write(
    own_postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch, how: str, away_s: float
) -> None:
    monkeypatch.setattr("gateway.store.postgres_database._CALL_S", 1.0)
    server, url = own_postgresql, own_postgresql.new_database()
    over = asyncio.Event()
    async with opened(url) as store:
        conversations, keys = ConversationStore(store), KeyStore(store)
        await conversations.create("conv", "alice", {})
        await conversations.create("other", "alice", {})
        puts: list[asyncio.Task[bool]] = []
        adds: list[asyncio.Task[object]] = []
        counted = 0

        async def write() -> None:
            while not over.is_set():
                number = len(puts)
                puts.append(
                    asyncio.create_task(store.put(replace(STORED, response_id=f"resp_{number}")))
                )
                items = [{"id": f"item_{number}"}]
                made = conversations.add(
                    "conv", "alice", partial(_always, items), kept_bytes=size_of(items)
                )
                adds.append(asyncio.create_task(made))
                await asyncio.sleep(0.01)

        async def count() -> None:
            nonlocal counted
            while not over.is_set():
                await keys.add_usage({("key", 1): KeyUsage(1, 2, 3)})
                counted += 1
                await asyncio.sleep(0.01)

        async def look_up() -> int:
            refused = 0
            while not over.is_set():
                away = store.away
                looking = asyncio.create_task(store.get("resp_0", "alice"))
                if away:
                    await asyncio.sleep(0)
                    assert looking.done()  # without a wait
                try:
                    await asyncio.wait_for(looking, 60)
                    assert not away
                except StoreError:
                    refused += 1
                await asyncio.sleep(0.01)
            return refused

        working = [asyncio.create_task(one()) for one in (write, count, look_up)]
        await asyncio.sleep(0.5)
        with capture_logs() as logs:
            await leave(server, how)
            await until(lambda: store.away)
            with pytest.raises(StoreError):
                await conversations.add("other", "alice", lambda *_: [{"id": "refused"}])
            with pytest.raises(StoreError):
                await store.delete("resp_0", "alice")
            await asyncio.sleep(away_s)
            assert store.away
            assert store.queued_bytes > 0
            await come_back(server, how)
            await until(lambda: not store.away)
        events = [line["event"] for line in logs]
        assert (events.count("store_away"), events.count("store_back")) == (1, 1)
        await asyncio.sleep(0.3)
        over.set()
        refused = (await asyncio.gather(*working))[2]
        assert refused
        assert all(await asyncio.gather(*puts))
        await asyncio.gather(*adds)
        await until(lambda: store.queued_bytes == 0)
        assert set(store.failures) <= {"read", "write", "delete"}
        assert store.failures["write"] == 1  # the one above, which its caller was told
        rows = await store._execute("SELECT response_id FROM responses", ())
        assert {row[0] for row in rows} == {f"resp_{number}" for number in range(len(puts))}
        found = await conversations.items("conv", "alice")
        assert found is not None
        assert [item["id"] for item in found[1]] == [f"item_{n}" for n in range(len(puts))]
        assert (await keys.load(1)).usage == {"key": KeyUsage(counted, 2 * counted, 3 * counted)}


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_commit_whose_answer_is_lost_is_neither_lost_nor_repeated(
    postgresql: PostgresqlServer, cut: Cut
) -> None:
    async with (
        CuttingProxy(postgresql.new_database()).running() as proxy,
        opened(proxy.url) as store,
    ):
        keys = KeyStore(store)
        for number in range(5):
            proxy.cuts.append(cut)
            await keys.add_usage({("key", 1): KeyUsage(1)})
            assert proxy.done == number + 1
            assert not proxy.cuts
        await until(lambda: not store.away)
        assert (await keys.load(1)).usage == {"key": KeyUsage(5)}
        assert store.failures == {}


async def test_a_change_whose_commit_is_uncertain_is_not_made_twice(
    postgresql: PostgresqlServer,
) -> None:
    async with (
        CuttingProxy(postgresql.new_database()).running() as proxy,
        opened(proxy.url) as store,
    ):
        conversations = ConversationStore(store)
        await conversations.create("conv", "alice", {})
        proxy.cuts.append("after")
        with pytest.raises(StoreError):
            await conversations.add(
                "conv", "alice", lambda found, _: [{"id": f"item_{found.next_place}"}]
            )
        await until(lambda: not store.away)
        found = await conversations.items("conv", "alice")
        assert found is not None
        assert found[1] == [{"id": "item_0"}]


async def test_connections_that_the_server_has_ended_are_no_failure(
    postgresql: PostgresqlServer,
) -> None:
    url = postgresql.new_database()
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    here = " AND datname = current_database()"
    async with opened(url) as store, opened(url) as other:
        await asyncio.gather(*(store.get("resp_1", "alice") for _ in range(4)))
        await other._execute(others + here, ())
        assert await store.get("resp_1", "alice") is None
        await other._execute(others + here, ())
        await ConversationStore(store).create("conv", "alice", {})
        await other._execute(others + here, ())
        assert await store.put(STORED)
        assert store.failures == {}
        assert not store.away


async def test_a_write_that_is_refused_harms_no_other(postgresql: PostgresqlServer) -> None:
    async with opened(postgresql.new_database()) as store:
        large = replace(STORED, response_id="bad", created_at="never")  # type: ignore[arg-type]
        stored = [replace(STORED, response_id=f"resp_{number}") for number in range(20)]
        with capture_logs() as logs:
            done = await asyncio.gather(*map(store.put, [*stored[:10], large, *stored[10:]]))
        assert done == [True] * 10 + [False] + [True] * 10
        assert [line["request_id"] for line in logs] == ["bad"]
        assert store.failures == {"write": 1}


async def test_a_store_that_is_closed_while_the_database_is_away_says_what_is_lost(
    own_postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "_CLOSE_S", 0.2)
    with capture_logs() as logs:
        async with opened(own_postgresql.new_database()) as store:
            await leave(own_postgresql, "fast")
            putting = asyncio.create_task(store.put(STORED))
            await until(lambda: store.away)
        assert not await putting
    assert store.failures["write"] == 1
    assert "store_not_closed" in [line["event"] for line in logs]
    lost = [line for line in logs if line["event"] == "response_not_stored"]
    assert [line["request_id"] for line in lost] == [STORED.response_id]


async def test_the_queue_is_bounded_while_the_database_is_away(
    own_postgresql: PostgresqlServer,
) -> None:
    async with opened(own_postgresql.new_database(), max_queued_bytes=10_000) as store:
        await leave(own_postgresql, "immediate")
        puts = [
            asyncio.create_task(store.put(replace(STORED, response={"text": "x" * 2000})))
            for _ in range(10)
        ]
        await until(lambda: store.failures["queue_full"] == 6)
        await come_back(own_postgresql, "immediate")
        assert sum(await asyncio.gather(*puts)) == 4


@pytest.mark.parametrize("how", HOW)
async def test_no_stream_waits_for_a_database_that_is_away(
    own_postgresql: PostgresqlServer, tmp_path: Path, how: str
) -> None:
    url = own_postgresql.new_database()
    async with play(tmp_path, "a", place=url) as playing:
        service = playing.service
        runner = make_runner(service)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession(address) as client:
                await leave(own_postgresql, how)
                made = []
                for _ in range(20):
                    body = {"input": "hi"}
                    async with client.post("/v1/responses", json=body) as answer:
                        response = await answer.json()
                    assert (response["status"], answer.status) == ("completed", 200)
                    made.append(response["id"])
                await until(lambda: service.store.away)
                async with client.get("/v1/responses/resp_unknown") as answer:
                    assert answer.status == 503
                    assert (await answer.json())["error"]["code"] == "store_unavailable"
                # One that is in memory can be continued.
                body = {"input": "go on", "previous_response_id": made[0]}
                async with client.post("/v1/responses", json=body) as answer:
                    assert (await answer.json())["status"] == "completed"
                metrics = service.metrics.render().decode()
                assert "pascal_store_away 1.0" in metrics
                assert "pascal_store_queued_bytes 0.0" not in metrics
                session = await playing.start()
                await ended(session)
                assert session.answer_text == ANSWER
                await come_back(own_postgresql, how)
                await until(lambda: not service.store.away and not service._background)
                assert "pascal_store_queued_bytes 0.0" in service.metrics.render().decode()
        finally:
            await runner.cleanup()
        async with opened(url) as other:
            for response_id in made:
                assert await other.get(response_id, "") is not None
