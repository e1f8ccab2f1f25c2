"""A real HTTP server that streams scripted events, for the tests of the load generator over SSE.

A script gets the body of its request and yields the pieces of the answer as bytes. Scripts for both
APIs are below.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Json = dict[str, Any]
Script = Callable[[Json], AsyncIterator[bytes]]

THOUGHTS = ("Two", " and", " two.")
ANSWER = ("It", " is", " four.")


def chunk(delta: Json, finish: str | None = None, **extra: Any) -> bytes:
    """One chunk of a chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return data({"id": "chatcmpl-1", "choices": [choice], **extra})


def data(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def usage(**details: Any) -> bytes:
    counts = {"prompt_tokens": 5, "completion_tokens": 7, **details}
    return data({"id": "chatcmpl-1", "choices": [], "usage": counts})


DONE = b"data: [DONE]\n\n"


async def chats(body: Json) -> AsyncIterator[bytes]:
    """A chat completion as our gateway streams it."""
    yield chunk({"role": "assistant", "content": ""})
    for text in THOUGHTS:
        yield chunk({"reasoning": text, "reasoning_content": text})
    for text in ANSWER:
        yield chunk({"content": text})
    timing = {"raw": {"tpot_s": 0.02}, "paced": {"tpot_s": 0.1}, "reasoning_s": 0.5}
    yield chunk({}, "stop", timing=timing, qoe={"qoe": 0.75}, instance="w0")
    yield usage(completion_tokens_details={"reasoning_tokens": 4})
    yield DONE


async def chats_elsewhere(body: Json) -> AsyncIterator[bytes]:
    """The same from a server without extensions: other line ends, a comment, one field."""
    yield b": ping\r\n\r\n"
    yield chunk({"role": "assistant"}).replace(b"\n", b"\r\n")
    for text in THOUGHTS:
        yield chunk({"reasoning_content": text}).replace(b"\n", b"\r\n")
    for text in ANSWER:
        yield chunk({"content": text}).replace(b"\n", b"\r\n")
    yield chunk({}, "stop").replace(b"\n", b"\r\n")
    yield usage().replace(b"\n", b"\r\n")
    yield DONE.replace(b"\n", b"\r\n")


async def responds(body: Json) -> AsyncIterator[bytes]:
    """A response, as our gateway streams it."""
    for event in response_events():
        yield b"event: " + event["type"].encode() + b"\n" + data(event)


def response_events() -> list[Json]:
    done = {
        "id": "resp_1",
        "status": "completed",
        "output": [
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"type": "message", "content": [{"type": "output_text", "text": "It is four."}]},
        ],
        "usage": {
            "input_tokens": 5,
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 4},
        },
    }
    events: list[Json] = [
        {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
        {"type": "response.reasoning_text.delta", "delta": "Hm."},
        {"type": "response.output_item.done", "item": {"type": "reasoning"}},
        *(
            {"type": "response.output_text.delta", "delta": text, "buffered_tokens": 2}
            for text in ANSWER
        ),
        {"type": "response.completed", "response": done},
    ]
    return [event | {"sequence_number": number} for number, event in enumerate(events)]


async def hangs(body: Json) -> AsyncIterator[bytes]:
    """Begin, and never end."""
    yield data(response_events()[0]) if "input" in body else chunk({"role": "assistant"})
    await asyncio.Event().wait()


class ScriptedHttp:
    """Answers the n-th POST with the n-th script, the last one for all others."""

    def __init__(self, *scripts: Script, owner: str = "pascal-serve") -> None:
        self.scripts = scripts
        self.owner = owner
        self.requests: list[Json] = []
        self.authorization: list[str | None] = []
        self.cancelled: list[str] = []
        self.left = asyncio.Event()  # a client went away in the middle
        self.refusal: tuple[int, Json] | None = None  # answer POSTs with this instead
        self.base_url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedHttp]:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._post)
        app.router.add_post("/v1/responses", self._post)
        app.router.add_post("/v1/responses/{id}/cancel", self._cancel)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "scripted", "owned_by": self.owner}]})

    async def _cancel(self, request: web.Request) -> web.Response:
        self.cancelled.append(request.match_info["id"])
        return web.json_response({})

    async def _post(self, request: web.Request) -> web.StreamResponse:
        self.authorization.append(request.headers.get("Authorization"))
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        self.requests.append(await request.json())
        if self.refusal is not None:
            status, document = self.refusal
            return web.json_response(document, status=status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            async for piece in script(self.requests[-1]):
                await response.write(piece)
        except asyncio.CancelledError:
            self.left.set()
            raise
        return response
