"""``background: true``: a response whose client polls it, follows it later, or cancels it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from gateway.config import ServerConfig, SessionConfig
from tests.gateway.api.test_apis import STOP, accepted, api, create, key, receive
from tests.gateway.responses.turns import events_of, openai_client, refusal, turn
from tests.gateway.support.scripted_service import until
from tests.gateway.support.scripted_worker import ScriptedWorker
from workers.messages import Finish

BACKGROUND: dict[str, Any] = {"input": "hi", "background": True}


async def begun(
    client: ClientSession, worker: ScriptedWorker, **fields: Any
) -> tuple[dict[str, Any], str]:
    """A response that runs in the background, and the name that the worker knows."""
    asking = asyncio.create_task(client.post("v1/responses", json={**BACKGROUND, **fields}))
    request_id = await accepted(worker)
    return await (await asking).json(), request_id


async def test_it_is_there_at_once_and_polled_to_its_end(tmp_path: Path) -> None:
    async with api(tmp_path, session=SessionConfig(ttl_s=0.0)) as (client, worker, service):
        response, request_id = await begun(client, worker)
        assert (response["status"], response["background"]) == ("in_progress", True)
        await worker.tokens(request_id, 0, "a", "b")
        path = f"v1/responses/{response['id']}"

        async def shown() -> dict[str, Any]:
            found: dict[str, Any] = await (await client.get(path)).json()
            return found

        while not (now := await shown())["output"]:
            pass
        assert now["status"] == "in_progress"
        await worker.tokens(request_id, 2, "c", finish=STOP)
        await until(lambda: not service._sessions and not service._background)
        last = await shown()
        assert last["status"] == "completed"
        assert last["output"][0]["content"][0]["text"] == "abc"


async def test_a_client_may_follow_it_from_any_event_on(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        response, request_id = await begun(client, worker)
        await worker.tokens(request_id, 0, "a", "b")
        path = f"v1/responses/{response['id']}?stream=true"
        following = await client.get(f"{path}&starting_after=1")
        await worker.tokens(request_id, 2, "c", finish=STOP)
        events = await events_of(following)
        assert events[0]["sequence_number"] == 2
        deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
        assert ("".join(deltas), events[-1]["type"]) == ("abc", "response.completed")
        again = await events_of(await client.get(path))
        assert [event["sequence_number"] for event in again] == list(range(len(again)))
        for wrong in ("x", "-2", "9999"):
            answer = await client.get(f"{path}&starting_after={wrong}")
            assert (await answer.json())["error"]["param"] == "starting_after"


async def test_one_that_is_streamed_outlives_its_client(tmp_path: Path) -> None:
    session = SessionConfig(grace_s=0.0)
    async with api(tmp_path, session=session) as (client, worker, service):
        asking = asyncio.create_task(
            client.post("v1/responses", json={**BACKGROUND, "stream": True, "pacing": False})
        )
        request_id = await accepted(worker)
        await worker.tokens(request_id, 0, "a")
        answer = await asking
        await answer.content.readline()
        answer.close()
        (running,) = service._running.values()
        await until(lambda: not running.log.followed)
        await worker.tokens(request_id, 1, "b", finish=STOP)
        await until(lambda: running.finished)
        assert (running.status, running.answer_text) == ("completed", "ab")


async def test_cancel_stops_it_and_may_come_twice(tmp_path: Path) -> None:
    async with api(tmp_path, session=SessionConfig(ttl_s=0.0)) as (client, worker, service):
        response, request_id = await begun(client, worker)
        await worker.tokens(request_id, 0, "a")
        path = f"v1/responses/{response['id']}/cancel"
        cancelling = asyncio.create_task(client.post(path))
        assert await worker.next_cancel() == request_id
        await worker.tokens(request_id, 1, finish=Finish(reason="cancelled"))
        cancelled = await (await cancelling).json()
        assert (cancelled["status"], cancelled["incomplete_details"]) == ("cancelled", None)
        assert cancelled["output"][0]["content"][0]["text"] == "a"
        await until(lambda: not service._sessions and not service._background)
        again = await (await client.post(path)).json()
        assert (again["id"], again["status"]) == (response["id"], "cancelled")
        whole, _ = await turn(client, worker)
        kept = await (await client.post(f"v1/responses/{whole['id']}/cancel")).json()
        assert kept["status"] == "completed"
        assert (await client.post("v1/responses/resp_x/cancel")).status == 404


async def test_it_is_stored_and_belongs_to_its_key(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _worker, _):
        assert await refusal(client, **BACKGROUND, store=False) == (400, "invalid_value", "store")
        found = await refusal(client, input="x", background="yes")
        assert found == (400, "invalid_value", "background")
    async with api(tmp_path, server=ServerConfig(api_keys=("a", "b"))) as (client, worker, _):
        response, _ = await turn(client, worker, headers=key("a"))
        for method, rest in (("post", "/cancel"), ("get", ""), ("get", "/input_items")):
            path = f"v1/responses/{response['id']}{rest}"
            answer = await client.request(method, path, headers=key("b"))
            assert (answer.status, rest) == (404, rest)


async def test_over_a_websocket(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _), client.ws_connect("/v1/responses") as socket:
        await create(socket, background=True)
        request_id = await accepted(worker)
        made = await receive(socket, "response.created")
        assert made["response"]["background"] is True
        await socket.send_json({"type": "response.cancel", "response_id": made["response"]["id"]})
        await worker.next_cancel()
        await worker.tokens(request_id, 0, finish=Finish(reason="cancelled"))
        ended = await receive(socket, "response.incomplete")
        assert ended["response"]["status"] == "cancelled"


async def test_the_client_of_openai_polls_follows_and_cancels(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        responses = openai_client(client).responses
        asking = asyncio.create_task(
            responses.create(model="tiny-reasoner", input="hi", background=True)
        )
        request_id = await accepted(worker)
        made = await asking
        assert (await responses.retrieve(made.id)).status == "in_progress"
        await worker.tokens(request_id, 0, "a")
        events, cancelling = [], None
        async for event in await responses.retrieve(made.id, stream=True, starting_after=1):
            events.append(event)
            if event.type == "response.output_text.delta":
                cancelling = asyncio.create_task(responses.cancel(made.id))
                await worker.next_cancel()
                await worker.tokens(request_id, 1, finish=Finish(reason="cancelled"))
        assert events[0].sequence_number == 2
        assert cancelling is not None
        assert (await cancelling).status == "cancelled"
