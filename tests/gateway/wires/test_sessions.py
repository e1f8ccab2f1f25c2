"""A session that a client names returns to its instance, over every API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.app import make_runner, make_site
from gateway.config import ModelConfig, ServerConfig
from tests.gateway.api.test_apis import create, key, receive
from tests.gateway.support.scripted_service import Scene, scene, until
from workers.messages import Accepted, Finish, Submit

STOP = Finish(reason="stop")
SYSTEM = "x-anthropic-billing-header: cc_version=2.1; cch={};\nBe kind."
PATHS: dict[str, Callable[[str], dict[str, Any]]] = {
    "v1/chat/completions": lambda text: {"messages": [{"role": "user", "content": text}]},
    "v1/responses": lambda text: {"input": text},
    "v1/messages": lambda text: {
        "max_tokens": 9,
        "messages": [{"role": "user", "content": text}],
    },
}


@asynccontextmanager
async def gateway(folder: Path, **tables: Any) -> AsyncIterator[tuple[ClientSession, Scene]]:
    """A client of a gateway with two workers."""
    async with scene(folder, "a", "b", **tables) as built:
        runner = make_runner(built.service)
        await runner.setup()
        await make_site(runner, "127.0.0.1", 0).start()
        try:
            async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}/") as client:
                yield client, built
        finally:
            await runner.cleanup()


async def placed(built: Scene) -> tuple[str, Submit]:
    """Where the next request goes; the other worker gets none."""
    waiting = {n: asyncio.create_task(built.workers[n].next_submit()) for n in built.workers}
    await asyncio.wait(waiting.values(), return_when=asyncio.FIRST_COMPLETED)
    name, task = next((name, task) for name, task in waiting.items() if task.done())
    for other in waiting.values():
        other.cancel()
    return name, task.result()


async def accept(built: Scene, tokens: int) -> tuple[str, Submit]:
    """Take in the next request, whose prompt has so many tokens."""
    name, submit = await placed(built)
    message = Accepted(request_id=submit.request_id, prompt_tokens=tokens, reasoning=False)
    await built.workers[name].say(message)
    return name, submit


async def turn(
    client: ClientSession, built: Scene, path: str, text: str, tokens: int = 20, **options: Any
) -> tuple[str, Submit]:
    """A request from beginning to end; return where it ran."""
    body = {**PATHS[path](text), **options.pop("fields", {})}
    asking = asyncio.create_task(client.post(path, json=body, **options))
    name, submit = await accept(built, tokens)
    await built.workers[name].tokens(submit.request_id, 0, "x", finish=STOP)
    assert (await asking).status == 200
    return name, submit


@asynccontextmanager
async def busy(built: Scene, client: ClientSession, *tokens: int) -> AsyncIterator[None]:
    """Requests that go on, with prompts of so many tokens."""
    asking, running = [], []
    for count in tokens:
        body = PATHS["v1/responses"](f"busy {count}")
        asking.append(asyncio.create_task(client.post("v1/responses", json=body)))
        name, submit = await accept(built, count)
        running.append((name, submit.request_id))
        session = built.service.cluster.router.routes[submit.request_id].session
        await until(partial(getattr, session, "prompt_tokens"))
    try:
        yield
    finally:
        for name, request_id in running:
            await built.workers[name].tokens(request_id, 0, "x", finish=STOP)
        await asyncio.wait(asking)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        *((path, {"headers": {"x-session-affinity": "mine"}}) for path in PATHS),
        ("v1/responses", {"fields": {"prompt_cache_key": "mine"}}),
        (
            "v1/chat/completions",
            {"fields": {"prompt_cache_key": "mine"}, "headers": {"session-id": "none"}},
        ),
    ],
)
async def test_a_session_without_a_known_prefix_returns_to_its_last_instance(
    tmp_path: Path, path: str, named: dict[str, Any]
) -> None:
    server = ServerConfig(api_keys=("alice", "bob"))
    async with gateway(tmp_path, server=server) as (client, built):

        async def where(text: str, owner: str = "alice", **options: Any) -> str:
            headers = {**key(owner), **options.pop("headers", {})}
            name, _ = await turn(client, built, path, text, 400, headers=headers, **options)
            return name

        client.headers.update(key("alice"))
        async with busy(built, client, 20):
            assert await where("one", **named) == "b"  # "a" has the other request
            async with busy(built, client, 40):
                assert await where("two") == "a"  # by footprint
                assert await where("three", owner="bob", **named) == "a"
                assert await where("four", **named) == "b"
            async with busy(built, client, 1600):
                assert await where("five", **named) == "a"  # "b" is too full


async def test_a_known_prefix_wins_over_a_session(tmp_path: Path) -> None:
    path, named = "v1/chat/completions", {"headers": {"session-id": "mine"}}
    async with gateway(tmp_path) as (client, built), busy(built, client, 20):
        assert (await turn(client, built, path, "known", 400))[0] == "b"
        async with busy(built, client, 40):
            assert (await turn(client, built, path, "other", 400, **named))[0] == "a"
            assert (await turn(client, built, path, "known", 400, **named))[0] == "b"


async def test_a_lost_instance_is_no_place_to_return_to(tmp_path: Path) -> None:
    path, named = "v1/chat/completions", {"headers": {"session-id": "mine"}}
    async with gateway(tmp_path) as (client, built), busy(built, client, 20):
        assert (await turn(client, built, path, "one", 400, **named))[0] == "b"
        await built.lose("b")
        await built.join("b")
        async with busy(built, client, 40):
            assert (await turn(client, built, path, "two", 400, **named))[0] == "a"


async def test_a_socket_is_of_the_session_of_its_upgrade(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path) as (client, built),
        busy(built, client, 20),
        client.ws_connect("/v1/responses", headers={"session-id": "mine"}) as socket,
    ):
        await create(socket, input="one")
        name, submit = await accept(built, 400)
        await built.workers[name].tokens(submit.request_id, 0, "x", finish=STOP)
        await receive(socket, "response.completed")
        async with busy(built, client, 40):
            await create(socket, input="two")
            assert (await accept(built, 400))[0] == name == "b"


async def test_a_bad_header_is_ignored_and_a_bad_field_is_refused(tmp_path: Path) -> None:
    path = "v1/chat/completions"
    async with gateway(tmp_path) as (client, built):
        await turn(client, built, path, "hi", headers={"session-id": "x" * 600})
        for bad in ("x" * 513, "a\nb"):
            for path in ("v1/chat/completions", "v1/responses"):
                answer = await client.post(path, json=PATHS[path]("hi") | {"prompt_cache_key": bad})
                error = (await answer.json())["error"]
                assert (answer.status, error["param"]) == (400, "prompt_cache_key")
                assert "prompt_cache_key" in error["message"]


def of_claude(path: str, nonce: str) -> dict[str, Any]:
    """A body whose system prompt begins with the billing header."""
    body, system = PATHS[path]("hi"), SYSTEM.format(nonce)
    match path:
        case "v1/messages":
            return body | {"system": [{"type": "text", "text": t} for t in system.split("\n")]}
        case "v1/responses":
            return body | {"instructions": system}
    return body | {"messages": [{"role": "system", "content": system}, *body["messages"]]}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("drops", [True, False])
async def test_the_billing_header_is_left_out_on_every_api_unless_it_is_switched_off(
    tmp_path: Path, path: str, drops: bool
) -> None:
    async with gateway(tmp_path, model=ModelConfig(drop_billing_header=drops)) as (client, built):
        prompts = []
        for nonce in ("1", "2"):
            fields = of_claude(path, nonce)
            _, submit = await turn(client, built, path, "hi", fields=fields)
            prompts.append(submit.messages)
            assert submit.prefixes
        (system, user), other = prompts
        assert (system.role, user.content) == ("system", "hi")
        if drops:
            assert system.content == "Be kind."
            assert (system, user) == other
        else:
            assert system.content.startswith("x-anthropic-billing-header: cc_version=2.1; cch=1;")
            assert (system, user) != other
