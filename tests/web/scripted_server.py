"""A server with the gateway's API and scripted answers, for tests of the page.

It speaks the WebSocket protocol of docs/reference/api.md over real sockets, and keeps a log per
response, so that a client can resume. A word in the question chooses the fault:

    refuse   429 with a hint when to try again          break    the socket breaks in the middle
    fail     response.failed in the middle              forget   an unknown previous_response_id
    gone     the socket breaks, and the log is lost     hold     the answer never ends by itself
    oversize  the question is too much for the context  deaf     a cancel is not answered
    wait     no engine begins with it

`ready = False` refuses every question with 503, as a server does whose engines start. `withheld`
names files of the page that are not sent before `release` is called, and `lost` those whose
connections break. `operations = False` refuses the operations page.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

WEB = Path(__file__).parents[2] / "web"
CSP = (
    "default-src 'none'; manifest-src 'self'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
THOUGHTS = "First I line up the digits. Then I add them, column by column, and carry.\n" * 4
ANSWER = (
    "348 + 275 = **623**.\n\nI added the numbers column by column:\n\n"
    "- the ones give 13, write 3\n- the tens give 12, write 2\n- the hundreds give 6\n\n"
    "| step | sum |\n| --- | --- |\n| ones | 13 |\n| tens | 12 |\n\n"
    "```python\nprint(348 + 275)\n```\n\n"
    "<img src=x onerror=alert(1)> and [a link](https://example.org), "
    "not [a trap](javascript:alert(1)), checked."
)

Json = dict[str, Any]
CANCELLED: Json = {"incomplete_details": {"reason": "cancelled"}}


def pieces(text: str) -> list[str]:
    """The text, split into token-like parts."""
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + [words[-1]]


@dataclass
class Response:
    """One scripted response and its log."""

    response_id: str
    events: list[Json] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    cancelled: bool = False
    paused: bool = False
    tpot_s: float = 0.02
    lead_s: float = 0.0
    read_tokens: int | None = None  # deltas that the reader had seen at a Stop
    planned_s: list[float] = field(default_factory=list)  # releases of the deltas
    forgotten: bool = False
    deaf: bool = False

    @property
    def ended(self) -> bool:
        return bool(self.events) and "status" in self.events[-1].get("response", {})

    async def set(self, **changes: Any) -> None:
        async with self.changed:
            for name, value in changes.items():
                setattr(self, name, value)
            self.changed.notify_all()

    async def emit(self, type_: str, **fields: Any) -> None:
        async with self.changed:
            self.events.append({"type": type_, "sequence_number": len(self.events), **fields})
            self.changed.notify_all()


class ScriptedServer:
    """`async with ScriptedServer() as server`: `server.url` is then being served."""

    def __init__(self, api_key: str = "", step_s: float = 0.02) -> None:
        self.api_key = api_key
        self.step_s = step_s
        self.url = ""
        self.requests: list[Json] = []  # all messages from clients but pings
        self.ready = True
        self.operations = True
        self.withheld: set[str] = set()
        self.lost: set[str] = set()
        self.ahead: int | None = None  # requests before each one that a ping asks about
        self._released = asyncio.Event()
        self.responses: dict[str, Response] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.Transport] = set()
        app = web.Application(middlewares=[self._fates_of_files])
        app.router.add_get("/", self._page)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/responses", self._socket)
        app.router.add_get("/v1/responses/{id}", self._stored)
        app.router.add_static("/static", WEB)
        app.on_response_prepare.append(self._headers)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def __aenter__(self) -> ScriptedServer:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.break_sockets()
        await self._runner.cleanup()

    def release(self) -> None:
        """Send the files that were withheld."""
        self._released.set()

    async def break_sockets(self) -> None:
        """Simulate a network failure: close the transports without a close frame."""
        for transport in list(self._transports):
            transport.abort()

    # ---- HTTP -------------------------------------------------------------------------------

    @web.middleware
    async def _fates_of_files(self, request: web.Request, handler: Any) -> web.StreamResponse:
        name = request.path.removeprefix("/static/")
        if name in self.withheld:
            await self._released.wait()
        if name in self.lost:
            assert request.transport is not None
            request.transport.abort()
        response: web.StreamResponse = await handler(request)
        return response

    async def _headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Content-Security-Policy"] = CSP
        response.headers["Cache-Control"] = "no-cache"

    async def _page(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(WEB / "index.html")

    async def _models(self, request: web.Request) -> web.Response:
        if self.api_key and request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return web.json_response({"error": {"message": "no key"}}, status=401)
        card = {"id": "scripted-reasoner", "max_model_len": 4096}
        headers = {"X-Pascal-Operations": "allowed"} if self.operations else {}
        return web.json_response({"object": "list", "data": [card]}, headers=headers)

    async def _ready(self, request: web.Request) -> web.Response:
        return web.json_response({"ready": self.ready}, status=200 if self.ready else 503)

    async def _stored(self, request: web.Request) -> web.Response:
        response = self.responses.get(request.match_info["id"])
        if response is None or not response.ended:
            return web.json_response({"error": {"message": "not found"}}, status=404)
        return web.json_response(response.events[-1]["response"])

    # ---- WebSocket --------------------------------------------------------------------------

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        if self.api_key and f"openai-insecure-api-key.{self.api_key}" not in offered:
            return web.json_response({"error": {"message": "no key"}}, status=401)
        socket = web.WebSocketResponse(protocols=("responses",))
        await socket.prepare(request)
        transport = request.transport
        assert transport is not None
        self._transports.add(transport)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._message(socket, message.json())
        finally:
            self._transports.discard(transport)
        return socket

    async def _message(self, socket: web.WebSocketResponse, message: Json) -> None:
        if message["type"] == "ping":
            pong: Json = {"type": "pong"}
            if "stream_id" in message:
                pong["stream_id"] = message["stream_id"]
            if "response_id" in message and self.ahead is not None:
                pong["ahead"] = self.ahead
            await socket.send_json(pong)
            return
        self.requests.append(message)
        match message["type"]:
            case "response.create":
                await self._create(socket, message)
            case "response.resume":
                response = self.responses.get(message["response_id"])
                if response is None or response.forgotten:
                    error: dict[str, str | int] = {
                        "code": "response_not_found",
                        "message": "It is too old.",
                    }
                    await refuse(socket, message, 404, error)
                else:
                    self._follow(socket, message, response, message["starting_after"] + 1)
            case "response.cancel":
                response = self.responses[message["response_id"]]
                if not response.deaf:
                    await response.set(cancelled=True, read_tokens=message.get("read_tokens"))
            case "response.pacing.update":
                response = self.responses[message["response_id"]]
                changes = {key: message[key] for key in ("paused", "tpot_s") if key in message}
                await response.set(**changes)

    async def _create(self, socket: web.WebSocketResponse, message: Json) -> None:
        question = message["input"]
        if isinstance(question, list):
            question = question[-1]["content"]
        error: Json
        if not self.ready:
            error = {"code": "no_instance", "message": "no instance can serve now"}
            await refuse(socket, message, 503, error)
            return
        if "oversize" in question:
            error = {
                "code": "context_length_exceeded",
                "message": "the messages take 9000 tokens",
            }
            await refuse(socket, message, 400, error)
            return
        if "refuse" in question:
            error = {"code": "overloaded", "message": "All slots are taken.", "retry_after_s": 3}
            await refuse(socket, message, 429, error)
            return
        if "forget" in question and "previous_response_id" in message:
            error = {"code": "not_found", "message": "?", "param": "previous_response_id"}
            await refuse(socket, message, 404, error)
            return
        response = Response(f"resp_{next(self._numbers)}")
        pacing = message["pacing"] or {"tpot_s": 0.001}
        response.tpot_s = pacing["tpot_s"]
        response.lead_s = pacing.get("lead_s", 0.0)
        response.deaf = "deaf" in question
        self.responses[response.response_id] = response
        thinks = message.get("chat_template_kwargs", {}).get("enable_thinking", True)
        self._spawn(self._generate(response, question, thinks))
        self._follow(socket, message, response, 0)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _follow(
        self, socket: web.WebSocketResponse, message: Json, response: Response, first: int
    ) -> None:
        self._spawn(self._send_log(socket, message.get("stream_id"), response, first))

    async def _send_log(
        self, socket: web.WebSocketResponse, stream_id: str | None, response: Response, cursor: int
    ) -> None:
        while not socket.closed:
            async with response.changed:
                await response.changed.wait_for(lambda: len(response.events) > cursor)  # noqa: B023
                batch = response.events[cursor:]
            cursor += len(batch)
            for event in batch:
                try:
                    await socket.send_json(event | ({"stream_id": stream_id} if stream_id else {}))
                except ConnectionError:
                    return  # the client resumes on another socket
            if response.ended and cursor == len(response.events):
                return

    async def _generate(self, response: Response, question: str, thinks: bool) -> None:
        loop = asyncio.get_running_loop()
        base = {"id": response.response_id, "instance": "i0"}
        await response.emit("response.created", response=base)
        if "wait" in question:
            async with response.changed:
                await response.changed.wait_for(lambda: response.cancelled)
            await self._end(response, "incomplete", "", "", **CANCELLED)
            return
        reasoning, answer = "", ""
        if thinks:
            item = {"type": "reasoning"}
            await response.emit("response.output_item.added", output_index=0, item=item)
            for piece in pieces(THOUGHTS):
                reasoning += piece
                await response.emit("response.reasoning_text.delta", delta=piece)
                await asyncio.sleep(self.step_s / 4)
                if response.cancelled:
                    break
            await response.emit("response.output_item.done", item=item, reasoning_s=12.3)
        parts = pieces(ANSWER * (1000 if "hold" in question or "deaf" in question else 1))
        begun_s = loop.time()
        for index, piece in enumerate(parts):
            if not await self._until_due(response, begun_s + index * self.step_s / 2):
                break
            if index == 12 and ("break" in question or "gone" in question):
                response.forgotten = "gone" in question
                await self.break_sockets()
            if index == 12 and "fail" in question:
                error = {"code": "engine_error", "message": "The engine failed."}
                await self._end(response, "failed", reasoning, answer, error=error)
                return
            answer += piece
            ahead = min(40, len(parts) - index - 1)
            await response.emit(
                "response.output_text.delta",
                delta=piece,
                buffered_tokens=ahead,
                slack_s=ahead * response.tpot_s,
            )
        else:  # it ends when the reader has the last of it
            with suppress(TimeoutError):
                async with asyncio.timeout_at(response.planned_s[-1]), response.changed:
                    await response.changed.wait_for(lambda: response.cancelled)
        if response.cancelled:
            answer = "".join(parts[: response.read_tokens]) if response.read_tokens else answer
            await self._end(response, "incomplete", reasoning, answer, **CANCELLED)
        else:
            await self._end(response, "completed", reasoning, answer)

    async def _until_due(self, response: Response, generated_s: float) -> bool:
        """Wait until the next delta is to be sent. Returns whether it still is."""
        loop = asyncio.get_running_loop()
        planned = response.planned_s
        while not response.cancelled:
            if response.paused:
                async with response.changed:
                    await response.changed.wait_for(
                        lambda: not response.paused or response.cancelled
                    )
                generated_s = max(generated_s, loop.time() - response.tpot_s)
                continue
            due_s = max(generated_s, planned[-1] + response.tpot_s if planned else generated_s)
            wait_s = max(generated_s, due_s - response.lead_s) - loop.time()
            if wait_s <= 0:
                planned.append(due_s)
                return True
            await asyncio.sleep(min(wait_s, 0.05))
        return False

    async def _end(
        self, response: Response, status: str, reasoning: str, answer: str, **more: Any
    ) -> None:
        output = [
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": reasoning}]},
            {"type": "message", "content": [{"type": "output_text", "text": answer}]},
        ]
        span = {"ttft_s": 1.34, "ttfat_s": 0.021, "tpot_s": response.tpot_s, "e2e_s": 9.0}
        final = {
            "id": response.response_id,
            "status": status,
            "output": output,
            "usage": {
                "output_tokens": 120,
                "output_tokens_details": {"reasoning_tokens": 64},
            },
            "timing": {"raw": span | {"tpot_s": 0.012}, "paced": span, "reasoning_s": 12.3},
            "qoe": {"qoe": 0.9974, "qoe_ttfat": 1.0, "qoe_e2e": 1.0},
            "underruns": 0,
            "instance": "i0",
            **more,
        }
        await response.emit(f"response.{status}", response=final)


async def refuse(socket: web.WebSocketResponse, message: Json, status: int, error: Json) -> None:
    """An error event, which belongs to no response."""
    event = {"type": "error", "status": status, "error": error}
    await socket.send_json(event | {"stream_id": message["stream_id"]})
