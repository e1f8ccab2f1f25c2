"""Stored API keys on a real HTTP server: scopes, owners, limits, headers and revocation."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from aiohttp import ClientSession
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from gateway.config import LimitsConfig, ServerConfig
from gateway.schemas.errors import Unauthorized
from gateway.service import ResponseService
from gateway.store import KeyStore
from tests.gateway.api.test_apis import STOP, UNPACED, accepted, api, create, key, receive
from tests.gateway.support import stored_keys
from tests.gateway.support.scripted_service import serving, until
from tests.gateway.support.scripted_worker import ScriptedWorker
from workers.messages import Submit

PROMPT = 20  # tokens, as scripted workers count them
BODY = {"input": "hi", **UNPACED}
CHAT = {"messages": [{"role": "user", "content": "hi"}], **UNPACED}
MESSAGE = {"max_tokens": 50, **CHAT, "model": "tiny-reasoner"}
FACTS = [
    f"x-ratelimit-{fact}-{what}"
    for what in ("requests", "tokens")
    for fact in ("limit", "remaining", "reset")
]
ROUTES = [("v1/responses", BODY), ("v1/chat/completions", CHAT), ("v1/messages", MESSAGE)]


class Player:
    """Lets a worker answer every request with as many tokens."""

    def __init__(self, worker: ScriptedWorker, tokens: int, steps: int = 4) -> None:
        self.worker = worker
        self.tokens = tokens
        self.steps = steps
        self.running: set[str] = set()
        self.by_text: dict[str, int] = {}  # of the prompt: requests that run
        self.most: dict[str, int] = {}
        self.taken: dict[str, int] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                message = await self.worker.received()
                if isinstance(message, Submit):
                    tasks.create_task(self._answer(message))

    async def _answer(self, submit: Submit) -> None:
        text = str(submit.messages[-1].content if submit.messages else submit.prompt)
        self.by_text[text] = self.by_text.get(text, 0) + 1
        self.most[text] = max(self.most.get(text, 0), self.by_text[text])
        self.taken[text] = self.taken.get(text, 0) + 1
        await self.worker.accept(submit)
        each = self.tokens // self.steps
        for step in range(self.steps):
            await asyncio.sleep(0.005)
            last = step == self.steps - 1
            self.by_text[text] -= last
            await self.worker.tokens(
                submit.request_id, step * each, *["a"] * each, finish=STOP if last else None
            )


@asynccontextmanager
async def played(
    folder: Path, tokens: int = 8, **tables: Any
) -> AsyncIterator[tuple[ClientSession, Player, ResponseService]]:
    """A gateway whose worker answers everything."""
    async with api(folder, **tables) as (client, worker, service):
        player = Player(worker, tokens)
        playing = asyncio.create_task(player.run())
        try:
            yield client, player, service
        finally:
            playing.cancel()
            await asyncio.wait([playing])


def left(answer: aiohttp.ClientResponse, what: str = "tokens") -> int:
    return int(answer.headers[f"x-ratelimit-remaining-{what}"])


def seconds(text: str) -> int:
    """Of a duration in the header's form."""
    total = 0
    for unit, size in (("h", 3600), ("m", 60), ("s", 1)):
        number, found, rest = text.partition(unit)
        if found:
            total, text = total + size * int(number), rest
    return total


# ---- who ----------------------------------------------------------------------------------------


async def test_the_first_stored_key_closes_an_open_gateway(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _, service):
        assert (await client.get("v1/models")).status == 200
        header = await stored_keys.added(tmp_path, service)
        assert (await client.get("v1/models")).status == 401
        assert (await client.get("v1/models", headers=key("sk-pascal-eve"))).status == 401
        near = header["Authorization"][:-1] + "~"  # the same beginning, by which it is looked up
        assert (await client.get("v1/models", headers={"Authorization": near})).status == 401
        assert (await client.get("v1/models", headers=header)).status == 200
        assert (await client.get("health")).status == 200
        stored_keys.revoke(tmp_path)
        await service.keys.refresh()
        answer = await client.get("v1/models", headers=header)
        assert answer.status == 401  # and without a key, too:
        assert (await client.get("v1/models")).status == 401


async def test_a_running_gateway_notices_keys_by_itself(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _, service):
        keeping = asyncio.create_task(service.keys.keep())
        header = key(stored_keys.add(tmp_path))
        await until(lambda: service.keys.stored)
        assert (await client.get("v1/models", headers=header)).status == 200
        stored_keys.revoke(tmp_path)
        await until(lambda: not list(service.keys.uses()))
        assert (await client.get("v1/models", headers=header)).status == 401
        keeping.cancel()


async def test_keys_of_the_configuration_stay_unlimited_and_may_do_everything(
    tmp_path: Path,
) -> None:
    server = ServerConfig(api_keys=("plain",))
    async with played(tmp_path, server=server) as (client, _, service):
        await stored_keys.added(tmp_path, service, concurrent=1)
        for path in ("v1/models", "metrics", "admin/instances"):
            assert (await client.get(path, headers=key("plain"))).status == 200
        answer = await client.post("v1/responses", json=BODY, headers=key("plain"))
        assert answer.status == 200
        assert not [name for name in answer.headers if "ratelimit" in name.lower()]


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (["chat"], {"v1/models"}),
        (["operations"], {"metrics", "admin/instances"}),
        (["admin"], {"metrics", "admin/instances", "admin/instances/worker-0/drain"}),
        (["chat", "operations"], {"v1/models", "metrics", "admin/instances"}),
    ],
)
async def test_a_key_opens_what_its_scopes_name(
    tmp_path: Path, scopes: list[Any], allowed: set[str]
) -> None:
    async with api(tmp_path) as (client, _, service):
        header = await stored_keys.added(tmp_path, service, scopes=scopes)
        header["X-Forwarded-For"] = "203.0.113.9"  # not from this machine
        needed = {
            "v1/models": "chat",
            "metrics": "operations",
            "admin/instances": "operations",
            "admin/instances/worker-0/drain": "admin",
        }
        for path, scope in needed.items():
            method = client.post if path.endswith("drain") else client.get
            answer = await method(path, headers=header)
            if path in allowed:
                assert answer.status in (200, 202), path
                if path == "v1/models":  # it tells who may open the operations page
                    told = answer.headers.get("X-Pascal-Operations")
                    assert told == ("allowed" if "operations" in scopes else None)
                continue
            assert answer.status == 403, path
            error = (await answer.json())["error"]
            assert error["code"] == "missing_scope"
            assert f"'{scope}'" in error["message"]


async def test_a_wrong_scope_has_the_form_of_each_api(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _, service):
        header = await stored_keys.added(tmp_path, service, scopes=["operations"])
        answer = await client.post("v1/messages", json=MESSAGE, headers=header)
        body = await answer.json()
        assert (answer.status, body["type"]) == (403, "error")
        assert body["error"]["type"] == "permission_error"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect("v1/responses", headers=header)
        assert caught.value.status == 403
        assert caught.value.headers is not None
        assert caught.value.headers["X-Request-Id"]


async def test_metrics_are_open_on_this_machine_and_where_no_key_is_stored(
    tmp_path: Path,
) -> None:
    far = {"X-Forwarded-For": "203.0.113.9"}
    async with api(tmp_path, server=ServerConfig(api_keys=("plain",))) as (client, _, service):
        assert (await client.get("metrics", headers=far)).status == 200
        await stored_keys.added(tmp_path, service)
        assert (await client.get("metrics", headers=far)).status == 401
        assert (await client.get("metrics")).status == 200


async def test_responses_belong_to_the_key_and_not_to_its_text(tmp_path: Path) -> None:
    async with played(tmp_path) as (client, _, service):
        alice = await stored_keys.added(tmp_path, service)
        bob = await stored_keys.added(tmp_path, service, "bob")
        made = await (await client.post("v1/responses", json=BODY, headers=alice)).json()
        path = f"v1/responses/{made['id']}"
        assert (await client.get(path, headers=bob)).status == 404
        assert (await client.get(path, headers=alice)).status == 200
        (session,) = service._sessions.values()
        assert session.owner.startswith("key_")


# ---- limits -------------------------------------------------------------------------------------


async def test_fifty_clients_of_one_key_stay_within_its_limits(tmp_path: Path) -> None:
    """Three run at a time; tokens are over the limit by those at most; others are unharmed."""
    limit, tokens = 10_000, 480
    each = PROMPT + tokens
    async with played(tmp_path, tokens) as (client, player, service):
        crowd = await stored_keys.added(
            tmp_path, service, concurrent=3, tokens_per_minute=limit, requests_per_minute=1000
        )
        other = await stored_keys.added(tmp_path, service, "other", tokens_per_minute=10**6)
        over = asyncio.Event()
        seen: list[int] = []
        refusals = {"concurrent": 0, "tokens": 0}

        async def client_of_crowd(number: int) -> None:
            path, body = ROUTES[number % 3]
            body = {**body, "stream": number % 2 == 0}
            if path == "v1/responses":
                body["input"] = "crowd"
            else:
                body["messages"] = [{"role": "user", "content": "crowd"}]
            while not over.is_set():
                async with client.post(path, json=body, headers=crowd) as answer:
                    assert all(name in answer.headers for name in FACTS), answer.headers
                    assert answer.headers["x-ratelimit-limit-tokens"] == str(limit)
                    assert answer.headers["x-ratelimit-limit-requests"] == "1000"
                    seen.append(left(answer))
                    await answer.read()
                    if answer.status == 200:
                        continue
                    assert answer.status == 429, await answer.text()
                    error = (await answer.json())["error"]
                    assert error["code"] == "rate_limit_exceeded"
                    told_s = int(answer.headers["Retry-After"])
                    assert error["retry_after_s"] == told_s
                    if "tokens" in error["message"]:
                        refusals["tokens"] += 1
                        assert left(answer) == 0
                        reset_s = seconds(answer.headers["x-ratelimit-reset-tokens"])
                        assert 1 <= told_s <= reset_s <= 61
                        over.set()
                    else:
                        refusals["concurrent"] += 1
                await asyncio.sleep(0.01)

        async def client_of_other() -> int:
            served = 0
            while not over.is_set():
                body = {**BODY, "input": "other"}
                async with client.post("v1/responses", json=body, headers=other) as answer:
                    assert answer.status == 200
                    assert left(answer) == 10**6 - (served + 1) * each
                served += 1
            return served

        others = asyncio.create_task(client_of_other())
        async with asyncio.TaskGroup() as tasks:
            for number in range(50):
                tasks.create_task(client_of_crowd(number))
        served = await others
        assert player.most["crowd"] == 3
        used = player.taken["crowd"] * each
        assert limit <= used <= limit + 3 * each
        assert refusals["concurrent"] > 10
        assert refusals["tokens"]
        assert min(seen) == 0
        assert served >= 3
        await service.keys.write()
        metrics = service.metrics.render().decode()
        assert f'name="alice"}} {float(player.taken["crowd"])}' in metrics
        assert f'kind="output",name="other"}} {float(served * tokens)}' in metrics


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_a_stream_has_its_headers_before_the_first_byte_and_ends_as_planned(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with api(tmp_path) as (client, worker, service):
        header = await stored_keys.added(
            tmp_path, service, tokens_per_minute=30, requests_per_minute=9, tokens_per_day=1000
        )
        asking = asyncio.create_task(
            client.post(path, json={**body, "stream": True}, headers=header)
        )
        request_id = await accepted(worker)
        answer = await asking  # the engine has not generated anything yet
        assert (answer.status, left(answer), left(answer, "requests")) == (200, 30 - PROMPT, 8)
        assert seconds(answer.headers["x-ratelimit-reset-tokens"]) in (60, 61)
        if path == "v1/messages":
            assert answer.headers["anthropic-ratelimit-tokens-remaining"] == str(30 - PROMPT)
            assert answer.headers["anthropic-ratelimit-requests-limit"] == "9"
            assert answer.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        await worker.tokens(request_id, 0, *["a"] * 40)  # it crosses the limit, and goes on
        refused = await client.post(path, json=body, headers=header)
        assert (refused.status, left(refused)) == (429, 0)
        assert int(refused.headers["Retry-After"]) in (60, 61)
        await worker.tokens(request_id, 40, "the end", finish=STOP)
        assert "the end" in await answer.text()
        listed = await client.get("v1/models", headers=header)
        assert listed.status == 200  # only requests for responses are limited
        used = next(used for key, used, _ in service.keys.uses())
        assert (used.requests, used.prompt_tokens, used.output_tokens) == (1, PROMPT, 41)


async def test_a_response_that_is_generated_leaves_its_place_while_it_is_read(
    tmp_path: Path,
) -> None:
    async with api(tmp_path) as (client, worker, service):
        header = await stored_keys.added(tmp_path, service, concurrent=1)
        slow = {"input": "hi", "stream": True, "pacing": {"tpot_s": 60}}
        first = asyncio.create_task(client.post("v1/responses", json=slow, headers=header))
        request_id = await accepted(worker)
        assert (await client.post("v1/responses", json=BODY, headers=header)).status == 429
        await worker.tokens(request_id, 0, "a", "b", finish=STOP)
        async with await first as reading:
            second = asyncio.create_task(client.post("v1/responses", json=BODY, headers=header))
            await worker.tokens(await accepted(worker), 0, "a", finish=STOP)
            assert (await second).status == 200
            assert reading.status == 200


async def test_each_response_of_a_socket_is_checked(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        header = await stored_keys.added(tmp_path, service, concurrent=1, requests_per_minute=2)
        async with client.ws_connect("v1/responses", headers=header) as socket:
            opened = socket._response.headers
            assert opened["x-ratelimit-remaining-requests"] == "2"
            await create(socket, stream_id="a")
            request_id = await accepted(worker)
            await create(socket, stream_id="b")
            event = await receive(socket, "error")
            assert (event["status"], event["stream_id"]) == (429, "b")
            assert event["error"]["code"] == "rate_limit_exceeded"
            assert event["error"]["retry_after_s"] >= 1
            await worker.tokens(request_id, 0, "a", finish=STOP)
            await receive(socket, "response.completed")
            await create(socket, stream_id="c")
            await worker.tokens(await accepted(worker), 0, "a", finish=STOP)
            await receive(socket, "response.completed")
            await create(socket, stream_id="d")
            event = await receive(socket, "error")
            assert "requests" in event["error"]["message"]
            assert 1 <= event["error"]["retry_after_s"] <= 61


async def test_a_revoked_key_starts_nothing_and_its_responses_end_as_planned(
    tmp_path: Path,
) -> None:
    async with api(tmp_path) as (client, worker, service):
        header = await stored_keys.added(tmp_path, service)
        async with client.ws_connect("v1/responses", headers=header) as socket:
            await create(socket, stream_id="a")
            request_id = await accepted(worker)
            running = (await receive(socket, "response.created"))["response"]["id"]
            stored_keys.revoke(tmp_path)
            await service.keys.refresh()
            await create(socket, stream_id="b")
            event = await receive(socket, "error")
            assert (event["status"], event["error"]["code"]) == (401, "invalid_api_key")
            for action in ("cancel", "resume"):
                event_of_key = {"type": f"response.{action}", "response_id": running}
                await socket.send_json({**event_of_key, "stream_id": action})
                event = await receive(socket, "error")
                assert (event["status"], event["stream_id"]) == (401, action)
            await service.keys.write()
            await worker.tokens(request_id, 0, "a", "b", finish=STOP)
            assert await receive(socket, "response.completed")
        await service.keys.write()
        assert service.keys._meters == {}
        loaded = await KeyStore(service.store).load(int(time.time() // 86400))
        assert [used.output_tokens for used in loaded.usage.values()] == [2]
        with pytest.raises(Unauthorized):  # its body came after the key was revoked
            service.keys.reserve(next(iter(loaded.usage)))


async def test_choices_take_a_place_each_and_one_prompt(tmp_path: Path) -> None:
    async with played(tmp_path, tokens=8) as (client, _, service):
        header = await stored_keys.added(tmp_path, service, concurrent=3, tokens_per_minute=1000)
        answer = await client.post("v1/chat/completions", json={**CHAT, "n": 3}, headers=header)
        usage = (await answer.json())["usage"]
        assert usage["total_tokens"] == PROMPT + 3 * 8
        assert left(answer) == 1000 - usage["total_tokens"]
        answer = await client.post("v1/chat/completions", json={**CHAT, "n": 4}, headers=header)
        error = (await answer.json())["error"]
        assert (answer.status, error["param"]) == (400, "n")


async def test_each_prompt_of_a_completion_is_charged(tmp_path: Path) -> None:
    async with played(tmp_path, tokens=8) as (client, _, service):
        header = await stored_keys.added(tmp_path, service, concurrent=4, tokens_per_minute=1000)
        body = {"prompt": ["One.", "Two."], "n": 2, "max_tokens": 8, **UNPACED}
        answer = await client.post("v1/completions", json=body, headers=header)
        assert answer.status == 200, await answer.text()
        assert len((await answer.json())["choices"]) == 4
        assert left(answer) == 1000 - 2 * PROMPT - 4 * 8
        body["prompt"] = ["One.", "Two.", "Three."]
        answer = await client.post("v1/completions", json=body, headers=header)
        assert (answer.status, (await answer.json())["error"]["param"]) == (400, "prompt")


async def test_choices_begin_all_or_none_and_leave_no_place_behind(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        header = await stored_keys.added(tmp_path, service, concurrent=3)
        one = asyncio.create_task(client.post("v1/responses", json=BODY, headers=header))
        request_id = await accepted(worker)
        answer = await client.post("v1/chat/completions", json={**CHAT, "n": 3}, headers=header)
        assert answer.status == 429
        assert worker.unread() == 0
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await one
        asking = asyncio.create_task(
            client.post("v1/chat/completions", json={**CHAT, "n": 3}, headers=header)
        )
        await accepted(worker)
        await until(lambda: worker.unread() == 1)
        asking.cancel()  # its client leaves before the third has begun
        await until(lambda: worker.unread() >= 2)
        while worker.unread():
            message = await worker.next()
            if isinstance(message, Submit):
                await worker.accept(message)
        for running in list(service._running.values()):
            running.confirm_cancel(0.0)
            service._progress(running)
        await until(lambda: next(service.keys.uses())[2] == 0)


async def test_background_and_conversations_count_as_well(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        header = await stored_keys.added(tmp_path, service, concurrent=1, requests_per_minute=9)
        made = await client.post("v1/conversations", json={}, headers=header)
        name = (await made.json())["id"]
        body = {**BODY, "background": True, "conversation": name}
        asking = asyncio.create_task(client.post("v1/responses", json=body, headers=header))
        request_id = await accepted(worker)
        assert (await asking).status == 200
        again = await client.post("v1/responses", json=BODY, headers=header)
        assert again.status == 429
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await until(lambda: next(service.keys.uses())[2] == 0)
        # A refusal at the limit holds no conversation.
        body = {**BODY, "conversation": name}
        asking = asyncio.create_task(client.post("v1/responses", json=body, headers=header))
        await worker.tokens(await accepted(worker), 0, "b", finish=STOP)
        answer = await asking
        assert (answer.status, left(answer, "requests")) == (200, 7)


async def test_what_the_server_refuses_does_not_count(tmp_path: Path) -> None:
    limits = LimitsConfig(load=0.0, max_requests=1)
    async with api(tmp_path, limits=limits) as (client, worker, service):
        alice = await stored_keys.added(tmp_path, service, requests_per_minute=5)
        bob = await stored_keys.added(tmp_path, service, "bob")
        running = asyncio.create_task(client.post("v1/responses", json=BODY, headers=bob))
        request_id = await accepted(worker)
        answer = await client.post("v1/responses", json=BODY, headers=alice)
        assert (answer.status, left(answer, "requests")) == (429, 5)
        assert (await answer.json())["error"]["code"] == "server_overloaded"
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await running
        answer = await client.post("v1/responses", json={"input": 5}, headers=alice)
        assert (answer.status, left(answer, "requests")) == (400, 5)


async def test_a_key_of_low_priority_leaves_room_to_others(tmp_path: Path) -> None:
    limits = LimitsConfig(load=0.0, max_requests=10)
    async with api(tmp_path, limits=limits) as (client, worker, service):
        low = await stored_keys.added(tmp_path, service, "low", priority="low")
        normal = await stored_keys.added(tmp_path, service, "normal")
        running = []
        for _ in range(8):
            running.append(asyncio.create_task(client.post("v1/responses", json=BODY, headers=low)))
            await accepted(worker)
        answer = await client.post("v1/responses", json=BODY, headers=low)
        assert answer.status == 429
        assert "low priority" in (await answer.json())["error"]["message"]
        for _ in range(2):
            running.append(
                asyncio.create_task(client.post("v1/responses", json=BODY, headers=normal))
            )
            await accepted(worker)
        assert (await client.post("v1/responses", json=BODY, headers=normal)).status == 429
        for task in running:
            task.cancel()


async def test_official_clients_understand_limits_scopes_and_ids(tmp_path: Path) -> None:
    async with played(tmp_path) as (client, _, service):
        limited = await stored_keys.added(tmp_path, service, tokens_per_minute=20)
        looking = await stored_keys.added(tmp_path, service, "looking", ["operations"])
        texts = [header["Authorization"].removeprefix("Bearer ") for header in (limited, looking)]
        address = str(client._base_url)
        ask: dict[str, Any] = {"model": service.config.served_model_name}
        openais = [
            AsyncOpenAI(base_url=f"{address}v1", api_key=text, max_retries=0) for text in texts
        ]
        anthropics = [AsyncAnthropic(base_url=address, api_key=t, max_retries=0) for t in texts]
        first = await openais[0].responses.create(input="hi", **ask)
        assert first._request_id is not None
        assert first._request_id.startswith("req_")
        message: dict[str, Any] = {**ask, "max_tokens": 9, "messages": CHAT["messages"]}
        with pytest.raises(openai.RateLimitError) as of_openai:
            await openais[0].responses.create(input="hi", **ask)
        with pytest.raises(anthropic.RateLimitError) as of_anthropic:
            await anthropics[0].messages.create(**message)
        for refused in (of_openai.value, of_anthropic.value):
            assert 1 <= int(refused.response.headers["retry-after"]) <= 61
            assert refused.request_id is not None
        with pytest.raises(openai.PermissionDeniedError):
            await openais[1].responses.create(input="hi", **ask)
        with pytest.raises(anthropic.PermissionDeniedError):
            await anthropics[1].messages.create(**message)
        for client_of_openai, client_of_anthropic in zip(openais, anthropics, strict=True):
            await client_of_openai.close()
            await client_of_anthropic.close()


# ---- what is kept -------------------------------------------------------------------------------


async def test_the_use_of_a_day_survives_a_restart(tmp_path: Path) -> None:
    async with played(tmp_path, tokens=8) as (client, _, service):
        header = await stored_keys.added(tmp_path, service, tokens_per_day=40)
        assert (await client.post("v1/responses", json=BODY, headers=header)).status == 200
    async with played(tmp_path, tokens=8) as (client, _, service):
        await service.keys.refresh()
        answer = await client.get("v1/models", headers=header)
        assert left(answer) == 40 - PROMPT - 8
        assert (await client.post("v1/responses", json=BODY, headers=header)).status == 200
        answer = await client.post("v1/responses", json=BODY, headers=header)
        assert answer.status == 429
        assert "today" in (await answer.json())["error"]["message"]
        assert 1 <= int(answer.headers["Retry-After"]) <= 86400


async def test_a_store_that_fails_changes_no_keys_and_loses_no_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played(tmp_path) as (client, _, service):
        header = await stored_keys.added(tmp_path, service)
        with monkeypatch.context() as broken:
            broken.setattr(service.store._database, "_opened", lambda: _raise())
            assert (await client.post("v1/responses", json=BODY, headers=header)).status == 200
            await service.keys.close()
            assert (await client.get("v1/models", headers=header)).status == 200
        await service.keys.write()
        loaded = await service.keys._store.load(service.keys._clock().day)
        assert [used.requests for used in loaded.usage.values()] == [1]


def _raise() -> Any:
    raise sqlite3.OperationalError("disk I/O error")


async def test_no_text_of_a_key_is_in_the_file(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, _):
        header = await stored_keys.added(tmp_path, service)
    text = header["Authorization"].removeprefix("Bearer ")
    data = (tmp_path / stored_keys.FILE).read_bytes()  # closed, so without another file
    assert text[:18].encode() in data  # the prefix, by which people know it
    assert text[18:].encode() not in data
