"""Requests over SSE against a real server on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.load.options import Api
from bench.load.record import Event, ResponseRecord
from bench.load.transport.interface import ServerError
from bench.load.transport.sse_client import EventStreams
from tests.bench.support.scripted_http import (
    DONE,
    Json,
    Script,
    ScriptedHttp,
    chats,
    chats_elsewhere,
    chunk,
    hangs,
    responds,
)

BODIES: dict[Api, Json] = {"responses-sse": {"input": "hi"}, "chat-sse": {"messages": []}}


async def outcome_of(
    server: ScriptedHttp, api: Api, *, timeout_s: float = 30.0, api_key: str | None = None
) -> ResponseRecord:
    record = ResponseRecord()
    streams = EventStreams(server.base_url, api, api_key=api_key)
    try:
        await streams.exchange("a", BODIES[api], record, timeout_s)
    finally:
        await streams.close()
    return record


@pytest.mark.parametrize(
    ("api", "script", "thoughts"),
    [
        ("responses-sse", responds, "Hm."),
        ("chat-sse", chats, "Two and two."),
        ("chat-sse", chats_elsewhere, "Two and two."),
    ],
)
async def test_a_sound_stream(api: Api, script: Script, thoughts: str) -> None:
    async with ScriptedHttp(script).running() as server:
        record = await outcome_of(server, api, api_key="k-1")
    assert (record.outcome, record.failure) == ("completed", None)
    assert record.answer_text == "It is four."
    assert record.final is not None
    assert record.final.text("reasoning") == thoughts
    assert record.sent_s is not None
    assert record.reasoning_end_s is not None
    assert record.ended_s is not None
    assert record.sent_s <= record.reasoning_end_s <= record.answer[0].received_s <= record.ended_s
    assert server.requests == [BODIES[api]]
    assert server.authorization == ["Bearer k-1"]


async def test_a_refusal_is_told_with_its_reason() -> None:
    async with ScriptedHttp(chats).running() as server:
        server.refusal = (429, {"error": {"code": "overloaded", "message": "no room"}})
        assert (await outcome_of(server, "chat-sse")).failure == "error 429: overloaded: no room"
        server.refusal = (200, {})
        assert (await outcome_of(server, "chat-sse")).failure == (
            "error 200: expected an event stream, got application/json"
        )


async def ends_early(body: Json) -> AsyncIterator[bytes]:
    yield chunk({"content": "It"})


async def ends_within(body: Json) -> AsyncIterator[bytes]:
    yield chunk({"content": "It"}, "stop") + DONE + b"data: {"


async def babbles(body: Json) -> AsyncIterator[bytes]:
    yield b"data: hello\n\n"


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        (ends_early, "the stream ended before the response did"),
        (ends_within, "the stream ended within an event"),
        (babbles, "the server sent an invalid event: JSON is malformed"),
    ],
)
async def test_a_broken_stream(script: Script, failure: str) -> None:
    async with ScriptedHttp(script).running() as server:
        record = await outcome_of(server, "chat-sse")
    assert record.outcome == "failed"
    assert record.failure is not None
    assert record.failure.startswith(failure)


async def test_a_response_that_takes_too_long_is_cancelled_by_name() -> None:
    async with ScriptedHttp(hangs).running() as server:
        record = await outcome_of(server, "responses-sse", timeout_s=1.0)
        assert record.failure == "timed out after 1 s"
        assert server.cancelled == ["resp_1"]


async def test_a_completion_that_takes_too_long_is_cut_off() -> None:
    async with ScriptedHttp(hangs).running() as server:
        record = await outcome_of(server, "chat-sse", timeout_s=1.0)
        assert record.failure == "timed out after 1 s"
        await server.left.wait()


class Watched(ResponseRecord):
    def __init__(self) -> None:
        super().__init__()
        self.heard = asyncio.Event()

    def receive(self, event: Event, received_s: float) -> None:
        super().receive(event, received_s)
        self.heard.set()


async def test_an_interrupted_response_is_cancelled() -> None:
    async with ScriptedHttp(hangs).running() as server:
        record = Watched()
        streams = EventStreams(server.base_url, "responses-sse", api_key=None)
        body = BODIES["responses-sse"]
        running = asyncio.create_task(streams.exchange("a", body, record, 30.0))
        await record.heard.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await streams.close()
        assert record.outcome == "interrupted"
        assert server.cancelled == ["resp_1"]


async def test_a_server_that_is_not_there() -> None:
    async with ScriptedHttp(chats).running() as server:
        pass
    for api in BODIES:
        streams = EventStreams(server.base_url, api, api_key=None)
        record = ResponseRecord()
        with pytest.raises(ServerError, match=r"/v1/models: .*Connect"):
            await streams.open()
        with pytest.raises(ServerError, match="Connect"):
            await streams.exchange("a", {}, record, 5.0)
        await streams.close()
        assert not record.ended
