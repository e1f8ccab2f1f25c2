"""A process with many readers: raw connections that count what they receive.

A reader asks for one stream by hand, over a WebSocket or with an HTTP request. From its first event
on it counts tokens and bytes and does not parse them (see `bench.pacing.stage.frames`). When it
records, it also keeps the time of each token, of the clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import msgspec

from bench.pacing.lateness import punctuality, worst_pause_s
from bench.pacing.stage.frames import (
    Transport,
    client_message,
    mark,
    marks_per_token,
    payload_of,
    pong_for,
)
from bench.pacing.stage.talk import obey
from bench.policies.engine_process import Send
from bench.reporting.errors import BenchmarkError
from bench.reporting.statistics import percentile
from workers import loop

_AT_ONCE = 64  # connections that are being opened
_OPEN_S = 60.0  # for one connection
_TICK_S = 0.01  # the timer that shows how late the loop is
_HOST = "127.0.0.1"
_UPGRADE = (
    b"GET /v1/responses HTTP/1.1\r\nHost: benchmark\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
# What shows that the stream has begun.
_BEGUN: Final = {"ws": b"response.in_progress", "sse": b"response.in_progress", "chat": b'"role":'}


class Reader(asyncio.Protocol):
    """One connection and its stream."""

    def __init__(self, transport: Transport, role: str, pace: object) -> None:
        self.role = role
        self.tokens = 0  # times a mark was received
        self.received_bytes = 0
        self.last = b""  # received most recently
        self.times: array[float] | None = None  # when each token came
        self.ended: str | None = None  # why there will be no more
        self._kind = transport
        self._pace = pace
        self._mark = mark(role)
        self._head: bytes | None = b""  # until the stream has begun
        self._socket: asyncio.Transport
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # ---- steps of a stream --------------------------------------------------------------------

    async def upgrade(self) -> None:
        """Open the WebSocket."""
        self._socket.write(_UPGRADE)
        await self._until(b"\r\n\r\n")

    async def begin(self) -> None:
        """Ask for the stream; :raises BenchmarkError: if it is refused."""
        self._head = b""
        if self._kind == "ws":
            body = self._responses_body()
            self._socket.write(client_message(json.dumps(body).encode()))
        elif self._kind == "sse":
            self._post("/v1/responses", self._responses_body())
        else:
            messages = [{"role": "user", "content": self.role}]
            self._post("/v1/chat/completions", self._body(messages=messages))
        await self._until(_BEGUN[self._kind])
        self._head = None

    def close(self) -> None:
        """Leave."""
        self._socket.abort()

    def _responses_body(self) -> dict[str, Any]:
        extra = {"type": "response.create"} if self._kind == "ws" else {}
        return self._body(input=self.role, store=False, **extra)

    def _body(self, **fields: Any) -> dict[str, Any]:
        if self._kind != "ws":
            fields["stream"] = True
        if self._pace is not None:
            fields["pacing"] = self._pace
        return fields

    def _post(self, path: str, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: benchmark\r\nContent-Type: application/json\r\n"
        self._socket.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)

    async def _until(self, sign: bytes) -> None:
        async with asyncio.timeout(_OPEN_S):
            while sign not in (self._head or b""):
                if self._head is not None and _refused(self._head):
                    raise BenchmarkError(f"a stream was refused: {_tail(self._head)}")
                if self.ended is not None:
                    raise BenchmarkError(f"a connection ended: {self.ended}")
                self._ready = asyncio.get_running_loop().create_future()
                await self._ready

    # ---- what the loop calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._socket = cast(asyncio.Transport, transport)  # uvloop's has no such base

    def data_received(self, data: bytes) -> None:
        """Count."""
        count = data.count(self._mark)
        self.tokens += count
        self.received_bytes += len(data)
        self.last = data
        if self.times is not None and count:
            now = time.monotonic()
            if count == 1:
                self.times.append(now)
            else:
                self.times.extend([now] * count)
        if b"\x89" in data:
            self._pong(data)
        if self._head is not None:
            self._head += data
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note it."""
        self.ended = str(exc or f"the server closed it: {_tail(self.last)}")
        self._wake()

    def _wake(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _pong(self, data: bytes) -> None:
        if self._kind == "ws" and (pong := pong_for(data, data.index(b"\x89"))) is not None:
            self._socket.write(pong)


def _refused(head: bytes) -> bool:
    status = head.partition(b"\r\n")[0].split(b" ")
    http = len(status) > 1 and status[0].startswith(b"HTTP/") and status[1] not in (b"101", b"200")
    return http or b'"type":"error"' in head


def _tail(data: bytes) -> str:
    return data[-300:].decode(errors="replace").strip()


class Readers:
    """All readers of the process."""

    def __init__(self) -> None:
        self._readers: list[Reader] = []
        self._transport: Transport = "ws"
        self._watch: asyncio.Task[None] | None = None
        self._timer_late_s: list[float] = []

    async def open(
        self,
        *,
        port: int,
        transport: Transport,
        roles: Sequence[str],
        pace: object = None,
        begin: bool = True,
    ) -> int:
        """Open one connection for each role.

        :param pace: the field ``pacing`` of the request; None: the server's.
        :param begin: ask for the streams too, not just connect.
        """
        self._transport = transport
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(role: str) -> Reader:
            async with free:
                _, reader = await asyncio.get_running_loop().create_connection(
                    lambda: Reader(transport, role, pace), _HOST, port
                )
                self._readers.append(reader)
                if transport == "ws":
                    await reader.upgrade()
                if begin:
                    await reader.begin()
                return reader

        await _all(one(role) for role in roles)
        return len(self._readers)

    async def begin(self) -> None:
        """Ask for the streams of all connections."""
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(reader: Reader) -> None:
            async with free:
                await reader.begin()

        await _all(one(reader) for reader in self._readers)

    async def close(self) -> None:
        """Leave all streams."""
        for reader in self._readers:
            reader.close()
        self._readers.clear()

    async def count(self) -> dict[str, float]:
        """What all readers received so far, and this process's CPU time."""
        return {
            "tokens": sum(
                reader.tokens / marks_per_token(self._transport, reader.role)
                for reader in self._readers
            ),
            "bytes": sum(reader.received_bytes for reader in self._readers),
            "lost": sum(reader.ended is not None for reader in self._readers),
            "least": min((reader.tokens for reader in self._readers), default=0),
            "cpu_s": time.process_time(),
            "now_s": time.monotonic(),
        }

    async def samples(self) -> dict[str, str]:
        """The payload of one frame with one token as it was received, by role."""
        found: dict[str, str] = {}
        for reader in self._readers:
            if reader.role not in found and mark(reader.role) in reader.last:
                payload = payload_of(self._transport, reader.last)
                marks = marks_per_token(self._transport, reader.role)
                if payload is not None and payload.count(mark(reader.role)) == marks:
                    found[reader.role] = payload.decode()
        return found

    async def record(self) -> None:
        """Keep the time of each token from now on, and watch the loop's own timer."""
        for reader in self._readers:
            reader.times = array("d")
        self._timer_late_s = []
        self._watch = asyncio.create_task(self._tick())

    async def analyse(
        self, *, tau_s: float, tokens: int, from_s: float, to_s: float
    ) -> dict[str, Any]:
        """How punctual the recorded tokens were.

        :param tokens: of each answer; what follows repeats the text and does not count.
        :param from_s, to_s: the time in which all streams ran, for the worst pause.
        """
        if self._watch is not None:
            self._watch.cancel()
        times = [list(reader.times or ())[:tokens] for reader in self._readers]
        timer = sorted(self._timer_late_s) or [0.0]
        return {
            **msgspec.to_builtins(punctuality(times, tau_s)),
            "incomplete": sum(len(of_one) < tokens for of_one in times),
            "worst_pause_ms": 1e3 * worst_pause_s(times, tau_s, from_s, to_s),
            "client_timer_late_p99_ms": 1e3 * percentile(timer, 99.0),
            "client_timer_late_max_ms": 1e3 * timer[-1],
        }

    async def _tick(self) -> None:
        due_s = time.monotonic()
        while True:
            due_s = max(due_s + _TICK_S, time.monotonic())
            await asyncio.sleep(due_s - time.monotonic())
            self._timer_late_s.append(max(0.0, time.monotonic() - due_s))


async def _all(work: Any) -> None:
    """Run all; the first failure is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def serve(messages: Iterator[bytes], send: Send) -> None:
    """Entry point of `bench.policies.engine_process`."""
    readers = Readers()
    names = ("open", "begin", "close", "count", "samples", "record", "analyse")
    loop.run(obey(messages, send, {name: getattr(readers, name) for name in names}))
