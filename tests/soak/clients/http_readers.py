"""Readers over HTTP: they read streams and whole answers, to the end or not."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.soak.clients.stage import KEY, PATIENCE_S, Stage, body, connected, end_by_reset
from tests.soak.clients.stream import Refused, Stream, Violation


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The data of server-sent events. Raises `Refused` for an error answer."""
    if answer.status != 200:
        document = await answer.json()
        if answer.status == 500:
            raise Violation(f"500 {document}")
        raise Refused(document["error"]["code"], document["error"]["message"], answer.status)
    while True:
        try:
            async with asyncio.timeout(PATIENCE_S):
                line = await answer.content.readline()
        except TimeoutError:
            raise Violation(f"no event for {PATIENCE_S:.0f} s") from None
        if not line:
            return
        if line.startswith(b"data: "):
            yield line[6:].decode().strip()


def _leave(answer: aiohttp.ClientResponse, rng: random.Random) -> None:
    if rng.random() < 0.5 and answer.connection is not None:
        end_by_reset(answer.connection.transport)
    answer.close()


async def _follow(
    stage: Stage, answer: aiohttp.ClientResponse, stream: Stream, upto: int | None = None
) -> None:
    count = 0
    async for line in _lines(answer):
        event = json.loads(line)
        if event["type"] == "error":
            if event["error"]["code"] == "events_expired":
                stream.expired()
            raise Refused(event["error"]["code"], event["error"]["message"])
        stream.feed(event)
        count += 1
        if upto is not None and count >= upto:
            return
    if not stream.ended:
        raise Violation(f"{stream.response_id}: the event stream ended without a terminal event")


async def reads_events(stage: Stage, rng: random.Random) -> None:
    """Streams `POST /v1/responses` to the end; some disconnect and resume with GET."""
    stream = Stream(stage.tally)
    request = body(rng) | {"stream": True}
    leaves = rng.random() < 0.5
    upto = rng.randint(1, 60) if leaves else None
    async with stage.http.post(f"{stage.url}/v1/responses", json=request) as answer:
        await _follow(stage, answer, stream, upto)
        if stream.ended:
            return
        _leave(answer, rng)
    if rng.random() < 0.3:
        return
    await asyncio.sleep(rng.uniform(0, 1))
    path = f"/v1/responses/{stream.response_id}?stream=true&starting_after={stream.last}"
    async with stage.http.get(stage.url + path) as answer:
        try:
            await _follow(stage, answer, stream)
        except Refused as refused:
            if refused.code not in ("events_expired", "response_not_found"):
                raise


async def reads_chunks(stage: Stage, rng: random.Random) -> None:
    """Streams a chat completion, to the end or not."""
    upto = rng.randint(0, 80) if rng.random() < 0.4 else None
    count = 0
    finish = None
    async with stage.http.post(
        f"{stage.url}/v1/chat/completions", json=_chat(rng) | {"stream": True}
    ) as answer:
        async for line in _lines(answer):
            if line == "[DONE]":
                if finish is None:
                    raise Violation("a chat stream ended without finish_reason")
                stage.tally.responses[f"chat: {finish}"] += 1
                return
            chunk = json.loads(line)
            if "error" in chunk:
                finish = chunk["error"]["code"]
                if finish not in ("no_instance", "instance_lost", "events_expired"):
                    raise Violation(f"chat: {chunk['error']}")
                continue
            if finish is not None and chunk["choices"]:
                raise Violation("a chat chunk after the one with finish_reason")
            if chunk["choices"]:
                finish = chunk["choices"][0]["finish_reason"]
            count += 1
            if upto is not None and count >= upto:
                _leave(answer, rng)
                return
        raise Violation("a chat stream ended without [DONE]")


async def waits_for_the_whole(stage: Stage, rng: random.Random) -> None:
    """Asks either API for a whole answer; four in ten clients do not wait for it."""
    path, request = (
        ("/v1/responses", body(rng, store=False))
        if rng.random() < 0.5
        else ("/v1/chat/completions", _chat(rng))
    )
    patience_s = rng.uniform(0.05, 3) if rng.random() < 0.4 else None
    try:
        async with asyncio.timeout(patience_s):
            status, document = await stage.call("POST", path, request)
    except TimeoutError:
        return
    if status != 200:
        raise Refused(document["error"]["code"], document["error"]["message"], status)
    stage.tally.responses[document.get("status", "chat: whole")] += 1


async def stops_by_post(stage: Stage, rng: random.Random) -> None:
    """Cancels its stream with another request."""
    stream = Stream(stage.tally)
    request = body(rng) | {"stream": True}
    async with stage.http.post(f"{stage.url}/v1/responses", json=request) as answer:
        await _follow(stage, answer, stream, rng.randint(1, 40))
        if stream.ended:
            return
        status, document = await stage.call("POST", f"/v1/responses/{stream.response_id}/cancel")
        if status != 200 or document["status"] == "in_progress":
            raise Violation(f"{stream.response_id}: cancelled, answered {status} {document}")
        await _follow(stage, answer, stream)


async def stalls(stage: Stage, rng: random.Random) -> None:
    """Asks for more events than all buffers hold, reads none of them, and disconnects."""
    stream = Stream(stage.tally)
    request = body(rng, long=True) | {"stream": True}
    async with (
        stage.one_of(stage.stalled),
        stage.http.post(f"{stage.url}/v1/responses", json=request) as answer,
    ):
        await _follow(stage, answer, stream)
        path = f"/v1/responses/{stream.response_id}?stream=true&starting_after={stream.last - 200}"
        head = f"GET {path} HTTP/1.1\r\nHost: soak\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        _, writer = await asyncio.open_connection(sock=await connected(stage, slow=True), limit=512)
        writer.write(head.encode() * 60)
        await asyncio.sleep(rng.uniform(5, 30))
        if rng.random() < 0.5:
            end_by_reset(writer.transport)
        else:
            writer.transport.abort()


def _chat(rng: random.Random) -> dict[str, Any]:
    request = body(rng)
    messages = [{"role": "user", "content": request.pop("input")}]
    return request | {"messages": messages}
