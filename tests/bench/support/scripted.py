"""A real WebSocket server that plays scripted responses, for the tests of the load generator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

REASONING = ("Two", " and", " two.")
ANSWER = ("It", " is", " four.")


class Reply:
    """One response that a script plays: numbers the events and echoes the stream id."""

    def __init__(self, server: ScriptedServer, socket: ServerConnection, body: Any) -> None:
        self.server = server
        self.socket = socket
        self.body = body
        self.id = f"resp_{len(server.requests)}"
        self.sequence = 0

    async def send(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "sequence_number": self.sequence, **fields}
        event.setdefault("stream_id", self.body["stream_id"])
        self.sequence += 1
        await self.socket.send(json.dumps(event))

    async def begin(self) -> None:
        await self.send("response.created", response=self.object("in_progress"))
        await self.send("response.in_progress", response=self.object("in_progress"))

    async def think(self, deltas: tuple[str, ...] = REASONING) -> None:
        item = {"type": "reasoning", "content": None}
        await self.send("response.output_item.added", item=item)
        for delta in deltas:
            await self.send("response.reasoning_text.delta", delta=delta)
        await self.send("response.output_item.done", item=item)

    async def answer(self, deltas: tuple[str, ...] = ANSWER) -> None:
        for delta in deltas:
            await self.send("response.output_text.delta", delta=delta)

    async def end(self, status: str = "completed", **fields: Any) -> None:
        await self.send(f"response.{status}", response=self.object(status, **fields))

    def object(
        self,
        status: str,
        reasoning: tuple[str, ...] = REASONING,
        answer: tuple[str, ...] = ANSWER,
        **fields: Any,
    ) -> dict[str, Any]:
        done = status != "in_progress"
        part = {"type": "reasoning_text", "text": "".join(reasoning)}
        text = {"type": "output_text", "text": "".join(answer)}
        items = [{"type": "reasoning", "content": [part]}, {"type": "message", "content": [text]}]
        return {
            "id": self.id,
            "status": status,
            "output": items if done else [],
            "usage": {
                "input_tokens": 5,
                "output_tokens": 7,
                "output_tokens_details": {"reasoning_tokens": 4},
            }
            if done
            else None,
            "timing": {"raw": {"tpot_s": 0.02}, "paced": {"tpot_s": 0.1}, "reasoning_s": 0.5},
            "qoe": {"qoe": 0.75, "qoe_ttfat": 0.5, "qoe_e2e": 0.25},
            "instance": "w0",
            "unknown_field": 1,
        } | fields

    async def received_by_client(self) -> None:
        """Return when the client has read everything sent so far.

        Client and server share an event loop, or the pong crosses a process boundary after the
        data: the client's reader was woken before the pong was written.
        """
        await (await self.socket.ping())

    async def call(self, *calls: tuple[str, str], **fields: Any) -> None:
        """Think, say something, call tools by name with arguments, and end."""
        await self.begin()
        await self.think()
        await self.answer()
        items = []
        for number, (name, arguments) in enumerate(calls):
            item = {"type": "function_call", "id": f"{self.id}-{number}", "name": name}
            item |= {"call_id": f"{self.id}-call-{number}", "arguments": ""}
            await self.send("response.output_item.added", item=item)
            for start in range(0, len(arguments), 4):
                kind = "response.function_call_arguments.delta"
                await self.send(kind, item_id=item["id"], delta=arguments[start : start + 4])
            items.append(item | {"arguments": arguments})
            await self.send("response.output_item.done", item=items[-1])
        await self.end(output=[*self.object("completed")["output"], *items], **fields)


Script = Callable[[Reply], Awaitable[None]]


async def good(reply: Reply) -> None:
    await reply.begin()
    await reply.think()
    await reply.answer()
    await reply.end()


class ScriptedServer:
    """Answers the n-th ``response.create`` with the n-th script, the last one for all others."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts or (good,)
        self.requests: list[Any] = []
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.stalled: asyncio.Queue[Reply] = asyncio.Queue()
        self.connections = 0
        self.open_connections = 0
        self.most_open_connections = 0
        self.authorization: list[str | None] = []
        self.status = HTTPStatus.OK  # of HTTP routes and handshakes
        self.base_url = ""
        self.owner = "pascal-serve"

    @property
    def ws_url(self) -> str:
        return self.base_url.replace("http", "ws") + "/v1/responses"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedServer]:
        async with serve(self._serve, "127.0.0.1", 0, process_request=self._http) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            self.base_url = f"http://127.0.0.1:{port}"
            yield self

    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        self.authorization.append(request.headers.get("Authorization"))
        if self.status != HTTPStatus.OK:
            return connection.respond(self.status, "{}")
        if request.path == "/v1/responses":
            return None
        model = {"id": "scripted", "owned_by": self.owner}
        listed = {"/v1/models": {"data": [model]}, "/ready": {"status": "ready"}}
        return connection.respond(HTTPStatus.OK, json.dumps(listed[request.path]))

    async def _serve(self, socket: ServerConnection) -> None:
        self.connections += 1
        self.open_connections += 1
        self.most_open_connections = max(self.most_open_connections, self.open_connections)
        try:
            async with asyncio.TaskGroup() as replies:
                async for message in socket:
                    body = json.loads(message)
                    if body["type"] == "response.cancel":
                        self.cancelled.put_nowait(body["response_id"])
                        continue
                    script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
                    self.requests.append(body)
                    replies.create_task(self._play(script, Reply(self, socket, body)))
        finally:
            self.open_connections -= 1

    async def _play(self, script: Script, reply: Reply) -> None:
        try:
            await script(reply)
        except ConnectionClosed:
            return  # the client has gone, as some tests want


async def stalls(reply: Reply) -> None:
    """Begin, and never end."""
    await reply.begin()
    await reply.received_by_client()
    reply.server.stalled.put_nowait(reply)
