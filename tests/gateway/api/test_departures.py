"""Clients that leave, come back or never read: which responses go on, stay and count."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession

from gateway.config import LimitsConfig, SessionConfig
from gateway.response.session import Session
from gateway.schemas.errors import NotFound, Overloaded
from tests.gateway.api.test_apis import accepted, api, create, receive
from tests.gateway.support.readers import Reader
from tests.gateway.support.scripted_service import ended, generation, serving, start, until
from workers.messages import Finish

STOP = Finish(reason="stop")
SLOW = {"tpot_s": 60}
SHORT_GRACE = {"session": SessionConfig(grace_s=0.05)}


async def stream(client: ClientSession, **fields: Any) -> ClientResponse:
    """An HTTP stream; `accepted` must follow, then the answer."""
    return await client.post("v1/responses", json={"input": "hi", "stream": True, **fields})


@pytest.mark.parametrize("fields", [{}, {"store": False}, {"store": None}])
async def test_an_http_stream_whose_client_left_is_cancelled_after_the_grace(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    async with api(tmp_path, **SHORT_GRACE) as (client, worker, service):
        streaming = asyncio.create_task(stream(client, **fields))
        request_id = await accepted(worker)
        (await streaming).close()
        assert await worker.next_cancel() == request_id
        await worker.tokens(request_id, 0, finish=Finish(reason="cancelled"))
        await ended(service.find(request_id, ""))
        assert service.find(request_id, "").incomplete_reason == "cancelled"


async def test_a_client_that_comes_back_in_time_finds_its_stream(tmp_path: Path) -> None:
    async with api(tmp_path, session=SessionConfig(grace_s=0.5)) as (client, worker, service):
        streaming = asyncio.create_task(stream(client))
        request_id = await accepted(worker)
        (await streaming).close()
        await until(lambda: service._departures.running)
        async with client.get(f"v1/responses/{request_id}?stream=true") as resumed:
            await until(lambda: not service._departures.running)
            await worker.tokens(request_id, 0, "a", finish=STOP)
            assert b"response.completed" in await resumed.read()
        assert (worker.unread(), service._departures.running) == (0, {})


async def test_an_http_stream_that_asks_to_be_stored_goes_on_without_its_client(
    tmp_path: Path,
) -> None:
    async with api(tmp_path, session=SessionConfig(grace_s=0.0)) as (client, worker, service):
        streaming = asyncio.create_task(stream(client, store=True))
        request_id = await accepted(worker)
        (await streaming).close()
        session = service.find(request_id, "")
        await until(lambda: not session.log.followed)
        await asyncio.sleep(0.05)
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await ended(session)
        assert (session.status, worker.unread()) == ("completed", 0)


async def test_a_response_of_a_socket_goes_on_without_its_client(tmp_path: Path) -> None:
    async with api(tmp_path, session=SessionConfig(grace_s=0.0)) as (client, worker, service):
        async with client.ws_connect("/v1/responses") as socket:
            await create(socket, store=False)
            request_id = await accepted(worker)
            await receive(socket, "response.created")
        session = service.find(request_id, "")
        await until(lambda: not session.log.followed)
        await asyncio.sleep(0.05)
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await ended(session)
        assert (session.status, worker.unread()) == ("completed", 0)


async def test_abandoned_streams_count_against_their_user_only_while_engines_work(
    tmp_path: Path,
) -> None:
    tables = {"limits": LimitsConfig(max_requests_per_user=2)}
    async with api(tmp_path, **tables) as (client, worker, service):
        body = {"user": "ann", "store": True, "pacing": SLOW}
        ids = []
        for _ in range(2):
            streaming = asyncio.create_task(stream(client, **body))
            ids.append(await accepted(worker))
            (await streaming).close()
        await until(lambda: not any(service.find(name, "").log.followed for name in ids))
        refused = await stream(client, **body)
        assert refused.status == 429  # two are in the engine
        for name in ids:
            await worker.tokens(name, 0, "a", "b", "c", finish=STOP)
        await until(lambda: service._admission.in_engines == 0)
        assert all(not service.find(name, "").finished for name in ids)  # still delivered, slowly
        streaming = asyncio.create_task(stream(client, **body))
        await accepted(worker)
        (await streaming).close()


async def test_a_user_is_free_once_nobody_reads_what_is_generated(tmp_path: Path) -> None:
    tables = {"limits": LimitsConfig(max_requests_per_user=1)}
    async with serving(tmp_path, "worker-0", **tables) as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker, pacing=SLOW, user="ann")
        with service.following(session, Reader()):
            await worker.tokens(request_id, 0, "a", "b", finish=STOP)
            await until(lambda: service._admission.in_engines == 0)
            with pytest.raises(Overloaded):
                await service.start(await generation(service, user="ann"), "")
        with (
            service.following(session, Reader()),
            pytest.raises(Overloaded),
        ):  # a client that comes back
            await service.start(await generation(service, user="ann"), "")
        await start(service, worker, pacing=SLOW, user="ann")


async def test_a_response_that_has_ended_is_counted_once_and_leaves_no_timer(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker, pacing=SLOW)
        session.generation = replace(session.generation, outlives_client=False)
        with service.following(session, Reader()):
            pass
        assert service._departures.running
        await worker.tokens(request_id, 0, "a", "b", finish=STOP)
        await until(lambda: session.wheel_slot is not None)
        slot = session.wheel_slot
        service.set_pace(session, 0.01, None)
        sooner = session.wheel_slot
        assert sooner is not None
        assert slot is not None
        assert sooner < slot
        await ended(session)
        assert (service.releases.wheel.next_s(), service._departures.running) == (None, {})
        await until(lambda: service._expiry.running)
        kept, expiry = service._kept.size_bytes, dict(service._expiry.running)
        service.cancel(session)  # too late
        assert service._kept.size_bytes == kept
        other, other_id = await start(service, worker)
        await worker.tokens(other_id, 0, "a", finish=STOP)
        await ended(other)
        assert service._expiry.running == expiry  # one timer, for the oldest


async def test_the_grace_begins_when_the_last_client_has_left(tmp_path: Path) -> None:
    tables = {"session": SessionConfig(grace_s=20.0)}
    async with serving(tmp_path, "worker-0", **tables) as (service, workers):
        session, _ = await start(service, workers["worker-0"])
        session.generation = replace(session.generation, outlives_client=False)
        with service.following(session, Reader()):
            with service.following(session, Reader()):
                pass
            assert service._departures.running == {}
        left_s = (
            service._departures.running[session.response_id].when()
            - asyncio.get_running_loop().time()
        )
        assert 15.0 < left_s <= 20.01


async def test_engines_are_not_full_of_responses_that_are_only_read(tmp_path: Path) -> None:
    tables = {"limits": LimitsConfig(max_requests=1, max_readers=3)}
    async with serving(tmp_path, "worker-0", **tables) as (service, workers):
        worker = workers["worker-0"]
        for _ in range(3):
            _, request_id = await start(service, worker, pacing=SLOW)
            with pytest.raises(Overloaded):
                await service.start(await generation(service), "")
            await worker.tokens(request_id, 0, "a", "b", finish=STOP)
            await until(lambda: service._admission.in_engines == 0)
        with pytest.raises(Overloaded) as caught:
            await service.start(await generation(service), "")
        assert "limits.max_readers" in caught.value.message


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_chat_completion_is_forgotten_when_it_ends(tmp_path: Path, streamed: bool) -> None:
    async with api(tmp_path) as (client, worker, service):
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": streamed}
        asking = asyncio.create_task(client.post("v1/chat/completions", json=body))
        request_id = await accepted(worker)
        await worker.tokens(request_id, 0, "Hello", finish=STOP)
        async with await asking as answer:
            text = await answer.text()
            assert "Hello" in text
            assert re.search(r'"created":\d+,', text)  # whole seconds
        assert (service._sessions, len(service._kept), service.log_bytes) == ({}, 0, 0)
        async with client.get(f"v1/responses/{request_id}") as answer:
            assert answer.status == 404


async def test_a_whole_response_keeps_no_events_but_can_be_looked_up(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        body = {"input": "hi", "store": False}
        asking = asyncio.create_task(client.post("v1/responses", json=body))
        request_id = await accepted(worker)
        await worker.tokens(request_id, 0, "Hello", finish=STOP)
        async with await asking as answer:
            assert (await answer.json())["status"] == "completed"
        assert service.log_bytes == 0
        async with client.get(f"v1/responses/{request_id}") as answer:
            assert (await answer.json())["output"][0]["content"][0]["text"] == "Hello"
        async with client.get(f"v1/responses/{request_id}?stream=true") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (
                404,
                "events_expired",
            )


async def test_finished_responses_beyond_the_budget_have_expired(tmp_path: Path) -> None:
    tables = {"session": SessionConfig(total_bytes=0)}
    async with api(tmp_path, **tables) as (client, worker, service):
        async with client.ws_connect("/v1/responses") as socket:
            ids = []
            for _ in range(2):
                await create(socket)
                ids.append(await accepted(worker))
                await worker.tokens(ids[-1], 0, "a", finish=STOP)
                await receive(socket, "response.completed")
            await socket.send_json({"type": "response.resume", "response_id": ids[0]})
            error = await receive(socket, "error")
            assert (error["status"], error["error"]["code"]) == (404, "events_expired")
            await socket.send_json({"type": "response.resume", "response_id": ids[1]})
            await receive(socket, "response.completed")
        assert (list(service._sessions), len(service._kept)) == ([ids[1]], 1)
        await until(lambda: not service._background)
        async with client.get(f"v1/responses/{ids[0]}") as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "completed")


async def test_kept_responses_go_when_their_time_is_over(tmp_path: Path) -> None:
    tables = {"session": SessionConfig(ttl_s=0.1)}
    async with serving(tmp_path, "worker-0", **tables) as (service, workers):
        ids = []
        for _ in range(3):
            session, request_id = await start(service, workers["worker-0"], store=False)
            await workers["worker-0"].tokens(request_id, 0, "a", finish=STOP)
            await ended(session)
            ids.append(request_id)
        await until(lambda: not service._sessions)
        assert (len(service._kept), service._kept.size_bytes) == (0, 0)
        with pytest.raises(NotFound) as caught:
            service.find(ids[-1], "")
        assert caught.value.code == "response_not_found"


def _has_tokens(session: Session, count: int) -> bool:
    return len(session.token_ids) >= count


async def test_a_pause_ends_when_it_says_however_often_it_is_asked_for(tmp_path: Path) -> None:
    tables = {"session": SessionConfig(ttl_s=0.3)}
    async with serving(tmp_path, "worker-0", **tables) as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker, pacing={"tpot_s": 0.001})
        service.set_pace(session, None, True)
        ends_s = session.pause_ends_s
        assert ends_s is not None
        for position in range(5):  # tokens come meanwhile, and the client asks again
            await worker.tokens(request_id, position, "a")
            await until(partial(_has_tokens, session, position + 1))
            service.set_pace(session, None, True)
            assert session.pause_ends_s == ends_s
        await worker.tokens(request_id, 5, "a", finish=STOP)
        await ended(session)
        assert session.answer_text == "aaaaaa"
