"""A process that shows what this machine can do: the least that can pace streams.

It dials the same scripted workers as the gateway and serves the same readers, over WebSocket alone.
One wheel releases the tokens of all streams, in slots of 5 ms, and writes each frame straight to
its transport. It checks nothing, keeps no log, and cannot resume, cancel or fail over. So its
lateness is that of the machine, of the workers and of the readers.
"""

from __future__ import annotations

import asyncio
import gc
import json
import secrets
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec
from websockets.asyncio.client import ClientConnection, unix_connect

from bench.pacing.lateness import SLOT_S
from bench.pacing.stage.frames import ws_head
from bench.pacing.stage.talk import obey
from bench.policies.engine_process import Send
from workers import loop
from workers.messages import (
    PROTOCOL,
    Accepted,
    ChatMessage,
    Hello,
    Pace,
    Sampling,
    Step,
    Submit,
    TokenRun,
    decode_to_gateway,
    encode,
)

_TAU_S: Final = 0.1
_BACKLOG = 4096
_UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class _Stream(asyncio.Protocol):
    """A client and its response."""

    def __init__(self, server: Prototype) -> None:
        self.request_id = f"resp_{secrets.token_hex(16)}"
        self.waiting: deque[bytes] = deque()  # frames that are not due yet
        self.due_s = 0.0  # of the next token
        self.on_wheel = False
        self._server = server
        self._sequence = 2
        self._thinking = True
        self._transport: asyncio.Transport
        ids = f'"item_id":"msg_{secrets.token_hex(16)}","output_index":1,"content_index":0,'
        self._middle = f",{ids}".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Upgrade, or take the request, whose frame has a mask of zeros."""
        if data.startswith(b"GET "):
            self._transport.write(_UPGRADED)
        elif b"response.create" in data:
            body = json.loads(data[data.index(b"{") :])
            self._server.submit(self, body["input"])

    def begin(self) -> None:
        """Tell the client that its response runs."""
        self._transport.write(self._frame(b'{"type":"response.in_progress"}'))

    def tokens(self, run: TokenRun, now: float) -> None:
        """Write thoughts at once; keep answering tokens until they are due."""
        for index, text in enumerate(run.texts):
            if self._thinking:
                kind = b"reasoning_text"
            else:
                kind = b"output_text"
            body = b'{"type":"response.%b.delta","sequence_number":%d%b"delta":%b}' % (
                kind,
                self._sequence,
                self._middle,
                msgspec.json.encode(text),
            )
            self._sequence += 1
            if self._thinking:
                self._transport.write(self._frame(body))
                self._thinking = not any(turn.at == index + 1 for turn in run.turns)
            else:
                self.waiting.append(self._frame(body))
        if self.waiting and not self.on_wheel:
            self.due_s = max(self.due_s, now)
            self._server.put(self)

    def release(self) -> None:
        """Write the next token."""
        if not self._transport.is_closing():
            self._transport.write(self.waiting.popleft())

    @staticmethod
    def _frame(body: bytes) -> bytes:
        return ws_head(len(body)) + body


class Prototype:
    """The server: links to the workers, streams, and the wheel."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._links: list[ClientConnection] = []
        self._wheel: dict[int, list[_Stream]] = {}
        self._slot = 0  # the last one that was released
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *, paths: list[str]) -> int:
        """Dial the workers at these sockets and listen; :return: the port."""
        for path in paths:
            link = await unix_connect(path, compression=None, max_size=None, ping_interval=None)
            await link.send(encode(Hello(protocol=PROTOCOL, gateway="benchmark")))
            await link.recv()
            self._links.append(link)
            self._tasks.append(asyncio.create_task(self._read(link)))
        self._slot = int(time.monotonic() / SLOT_S)
        self._tasks.append(asyncio.create_task(self._turn()))
        server = await asyncio.get_running_loop().create_server(
            lambda: _Stream(self), "127.0.0.1", 0, backlog=_BACKLOG
        )
        gc.collect()
        gc.freeze()
        gc.disable()  # it makes no cycles
        return int(server.sockets[0].getsockname()[1])

    def submit(self, stream: _Stream, text: str) -> None:
        """Send a request to the next worker."""
        link = self._links[len(self._streams) % len(self._links)]
        self._streams[stream.request_id] = stream
        submit = Submit(
            request_id=stream.request_id,
            messages=(ChatMessage(role="user", content=text),),
            sampling=Sampling(),
            pace=Pace(tau_s=_TAU_S),
        )
        self._tasks.append(asyncio.create_task(link.send(encode(submit))))

    def put(self, stream: _Stream) -> None:
        """Have the next token of a stream released in the slot that ends when it is due."""
        stream.on_wheel = True
        slot = max(self._slot + 1, int(stream.due_s / SLOT_S))
        self._wheel.setdefault(slot, []).append(stream)

    async def _read(self, link: ClientConnection) -> None:
        async for frame in link:
            message = decode_to_gateway(frame)
            if isinstance(message, Step):
                now = time.monotonic()
                for run in message.runs:
                    self._streams[run.request_id].tokens(run, now)
            elif isinstance(message, Accepted):
                self._streams[message.request_id].begin()

    async def _turn(self) -> None:
        while True:
            now_slot = int(time.monotonic() / SLOT_S)
            while self._slot < now_slot:
                self._slot += 1
                for stream in self._wheel.pop(self._slot, ()):
                    stream.release()
                    stream.due_s += _TAU_S
                    if stream.waiting:
                        self.put(stream)
                    else:
                        stream.on_wheel = False
            await asyncio.sleep(max(0.0, (self._slot + 1) * SLOT_S - time.monotonic()))


def serve(messages: Iterator[bytes], send: Send) -> None:
    """Entry point of `bench.policies.engine_process`."""
    prototype = Prototype()
    actions: dict[str, Any] = {"start": prototype.start}
    loop.run(obey(messages, send, actions))
