"""Silent streams are kept open, and their clients notice nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from gateway.api import sse
from gateway.config import ServerConfig
from tests.gateway.api.test_apis import UNPACED, accepted, api
from tests.gateway.support.scripted_service import until
from workers.messages import Finish

STOP = Finish(reason="stop")
MODEL = "tiny-reasoner"


@pytest.fixture
def comments(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Comments that were sent."""
    sent: list[bytes] = []
    send = sse.EventStream.send

    async def recording(self: sse.EventStream, frames: bytes) -> None:
        await send(self, frames)
        if frames.startswith(b":"):
            sent.append(frames)

    monkeypatch.setattr(sse.EventStream, "send", recording)
    return sent


def openai(client: ClientSession) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{client._base_url}v1", api_key="none", max_retries=0)


async def test_the_official_client_reads_over_comments_between_the_events_of_a_response(
    tmp_path: Path, comments: list[bytes]
) -> None:
    server = ServerConfig(sse_keepalive_s=0.01)
    async with api(tmp_path, server=server) as (client, worker, _), openai(client) as official:

        async def follow() -> list[Any]:
            stream = await official.responses.create(
                model=MODEL, input="hi", stream=True, extra_body=UNPACED
            )
            return [event async for event in stream]

        following = asyncio.create_task(follow())
        request_id = await accepted(worker)
        await until(lambda: len(comments) > 2)
        await worker.tokens(request_id, 0, "a")
        await until(lambda: len(comments) > 5)
        await worker.tokens(request_id, 1, "b", finish=STOP)
        events = await asyncio.wait_for(following, 10)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "ab"


async def test_chat_completions_get_comments_only_if_the_setting_says_so(
    tmp_path: Path, comments: list[bytes]
) -> None:
    server = ServerConfig(sse_keepalive_s=0, chat_keepalive_s=0.01)
    async with api(tmp_path, server=server) as (client, worker, _), openai(client) as official:

        async def follow() -> str:
            stream = await official.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
                extra_body=UNPACED,
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        following = asyncio.create_task(follow())
        request_id = await accepted(worker)
        await until(lambda: len(comments) > 2)
        await worker.tokens(request_id, 0, "a", "b", finish=STOP)
        assert await asyncio.wait_for(following, 10) == "ab"


async def test_by_default_only_responses_get_comments(
    tmp_path: Path, comments: list[bytes]
) -> None:
    body = {"stream": True, **UNPACED}
    server = ServerConfig(sse_keepalive_s=0.01)
    async with api(tmp_path, server=server) as (client, worker, _):
        messages = [{"role": "user", "content": "hi"}]
        chatting = asyncio.create_task(
            client.post("/v1/chat/completions", json={"messages": messages, **body})
        )
        chat_id = await accepted(worker)
        asking = asyncio.create_task(client.post("/v1/responses", json={"input": "hi", **body}))
        response_id = await accepted(worker)
        await until(lambda: len(comments) > 2)
        await worker.tokens(chat_id, 0, "a", finish=STOP)
        await worker.tokens(response_id, 0, "a", finish=STOP)
        assert b"\n:" not in await (await chatting).read()
        text = await (await asking).read()
        assert text.count(b": keep-alive\n\n") >= 3
        assert b"event: response.completed\n" in text
    assert ServerConfig().sse_keepalive_s == 15
    assert ServerConfig().chat_keepalive_s == 0


async def test_a_stream_whose_client_went_away_is_kept_open_no_longer(
    tmp_path: Path, comments: list[bytes]
) -> None:
    server = ServerConfig(sse_keepalive_s=0.01)
    async with api(tmp_path, server=server) as (client, worker, _):
        before = asyncio.all_tasks()
        body = {"input": "hi", "stream": True}
        asking = asyncio.create_task(client.post("/v1/responses", json=body))
        await accepted(worker)
        answer = await asking
        await until(lambda: comments)
        answer.close()
        await until(lambda: asyncio.all_tasks() <= before)


def keeping_open() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if "keep_alive" in repr(task.get_coro())]


async def test_a_stream_that_has_ended_is_kept_open_no_longer(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        body = {"input": "hi", "stream": True, **UNPACED}
        asking = asyncio.create_task(client.post("/v1/responses", json=body))
        request_id = await accepted(worker)
        await until(keeping_open)
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await (await asking).read()
        await until(lambda: not keeping_open())
