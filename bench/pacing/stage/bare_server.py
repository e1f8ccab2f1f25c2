"""A process that only sends: the same bytes as the gateway, by aiohttp or by a bare transport.

It answers the same three requests as the gateway. When it is told to, it sends each stream a fixed
frame again and again, at the same rate as in the gateway's case and spread over the streams: every
slot of 5 ms has its share of them. What it costs is the least that a gateway on aiohttp can cost.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Literal, cast

from aiohttp import WSMsgType, web

from bench.pacing.lateness import SLOT_S
from bench.pacing.stage.frames import Transport, on_the_wire
from bench.pacing.stage.talk import obey
from bench.policies.engine_process import Send
from bench.reporting.errors import BenchmarkError
from workers import loop

_BACKLOG = 4096
_BEGUN = '{"type":"response.in_progress"}'
_CHAT_BEGUN = '{"choices":[{"delta":{"role":"assistant"}}]}'


class _Stream:
    """A client that waits for frames."""

    __slots__ = ("role", "send", "transport", "write")

    def __init__(
        self,
        role: str,
        send: Callable[[Any], Awaitable[None]],
        transport: asyncio.Transport,
    ) -> None:
        self.role = role
        self.send = send  # aiohttp's own way
        self.transport = transport
        self.write: Callable[[bytes], None] = transport.write


class BareServer:
    """The server and its streams."""

    def __init__(self) -> None:
        self._streams: list[_Stream] = []

    async def start(self) -> int:
        """Listen; :return: the port."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/responses", self._socket),
                web.post("/v1/responses", self._sse),
                web.post("/v1/chat/completions", self._chat),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=_BACKLOG).start()
        return int(runner.addresses[0][1])

    async def release(
        self,
        *,
        how: Literal["send", "write"],
        transport: Transport,
        payloads: Mapping[str, str],
        seconds: float,
        period_s: float,
    ) -> int:
        """Send each stream one frame in a period.

        :param payloads: of a frame, by the role of the stream.
        :return: the number of frames.
        """
        self._streams = [stream for stream in self._streams if not stream.transport.is_closing()]
        if not self._streams:
            raise BenchmarkError("no stream is open")
        count = max(1, round(period_s / SLOT_S))
        slots = [self._streams[number::count] for number in range(count)]
        texts = {role: self._payload(transport, text) for role, text in payloads.items()}
        wires = {role: on_the_wire(transport, text.encode()) for role, text in payloads.items()}
        began_s, number, sent = time.monotonic(), 0, 0
        while number * SLOT_S < seconds:
            await asyncio.sleep(max(0.0, began_s + number * SLOT_S - time.monotonic()))
            slot = slots[number % count]
            if how == "send":
                for stream in slot:
                    await stream.send(texts[stream.role])
            else:
                for stream in slot:
                    stream.write(wires[stream.role])
            number += 1
            sent += len(slot)
        return sent

    @staticmethod
    def _payload(transport: Transport, text: str) -> str | bytes:
        return text if transport == "ws" else text.encode()

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False, heartbeat=25.0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                role = json.loads(message.data)["input"]
                self._add(role, socket.send_str, request)
                await socket.send_str(_BEGUN)
        return socket

    async def _sse(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, (await request.json())["input"], _BEGUN)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        role = (await request.json())["messages"][0]["content"]
        return await self._stream(request, role, _CHAT_BEGUN)

    async def _stream(self, request: web.Request, role: str, begun: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self._add(role, response.write, request)
        await response.write(f"data: {begun}\n\n".encode())
        await asyncio.Event().wait()  # until the client leaves
        return response

    def _add(self, role: str, send: Callable[[Any], Awaitable[None]], request: web.Request) -> None:
        transport = cast(asyncio.Transport, request.transport)
        self._streams.append(_Stream(role, send, transport))


def serve(messages: Iterator[bytes], send: Send) -> None:
    """Entry point of `bench.policies.engine_process`."""
    server = BareServer()
    loop.run(obey(messages, send, {"start": server.start, "release": server.release}))
