"""Two gateways with one store: what is finished at one is there at the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from gateway.app import make_runner
from gateway.keys.making import new_key
from gateway.service import ResponseService
from gateway.store import Place, add_key, key_file, revoke_key
from tests.gateway.support.scene import play
from tests.gateway.support.scripted_service import until


class Gateway:
    """One of them, over HTTP."""

    def __init__(self, service: ResponseService, client: aiohttp.ClientSession) -> None:
        self.service = service
        self._client = client

    async def call(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with self._client.request(method, path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def respond(self, **body: Any) -> Any:
        status, response = await self.call("POST", "/v1/responses", {"input": "hi"} | body)
        assert (status, response.get("status")) == (200, "completed"), response
        await until(lambda: not self.service._background)
        return response


@asynccontextmanager
async def gateways(folder: Path, place: Place) -> AsyncIterator[list[Gateway]]:
    async with AsyncExitStack() as stack:
        made = []
        for name in ("1", "2"):
            (folder / name).mkdir()
            playing = await stack.enter_async_context(play(folder / name, "a", place=place))
            runner = make_runner(playing.service)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            client = await stack.enter_async_context(aiohttp.ClientSession(url))
            made.append(Gateway(playing.service, client))
        yield made


async def test_a_response_is_read_continued_and_deleted_at_the_other_gateway(
    tmp_path: Path, place: Place
) -> None:
    async with gateways(tmp_path, place) as (one, two):
        made = await one.respond(input="What is new?")
        path = f"/v1/responses/{made['id']}"
        assert await two.call("GET", path) == (200, made)
        status, items = await two.call("GET", f"{path}/input_items")
        assert (status, items["data"][0]["content"][0]["text"]) == (200, "What is new?")
        next_one = await two.respond(previous_response_id=made["id"])
        stored = await one.service.store.get(next_one["id"], "")
        assert stored is not None
        assert [m.role for m in stored.conversation] == ["user", "assistant"] * 2
        third = await one.respond(previous_response_id=next_one["id"])
        assert (await two.call("DELETE", f"/v1/responses/{third['id']}"))[0] == 200
        assert (await two.call("GET", f"/v1/responses/{third['id']}"))[0] == 404
        # The gateway that made it forgets it with its session.
        session = one.service._sessions[third["id"]]
        one.service._drop(session)
        assert (await one.call("GET", f"/v1/responses/{third['id']}"))[0] == 404


async def test_a_conversation_goes_on_at_either_gateway(tmp_path: Path, place: Place) -> None:
    async with gateways(tmp_path, place) as (one, two):
        _, conversation = await one.call("POST", "/v1/conversations", {})
        for gateway in (one, two, two, one):
            await gateway.respond(conversation=conversation["id"])
        path = f"/v1/conversations/{conversation['id']}/items?limit=100&order=asc"
        listed = [await gateway.call("GET", path) for gateway in (one, two)]
        assert listed[0] == listed[1]
        roles = [i["role"] for i in listed[0][1]["data"] if i["type"] == "message"]
        assert roles == ["user", "assistant"] * 4


async def test_both_gateways_notice_a_key_and_its_end(tmp_path: Path, place: Place) -> None:
    async with gateways(tmp_path, place) as both:
        text, key = new_key("alice")
        with key_file(place) as connection:
            add_key(connection, key)
        for gateway in both:
            await gateway.service.keys.refresh()
            assert (await gateway.call("GET", "/v1/models"))[0] == 401
            assert (await gateway.call("GET", "/v1/models", key=text))[0] == 200
        with key_file(place) as connection:
            assert revoke_key(connection, "alice", 1.0)
        for gateway in both:
            await gateway.service.keys.refresh()
            assert (await gateway.call("GET", "/v1/models", key=text))[0] == 401
