"""The gateway under soak, and how readers reach it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from websockets.asyncio.client import ClientConnection, connect

from tests.soak.clients.stream import Refused, Stream, Tally, Violation

KEY = "key-of-the-soak"
HEADERS = {"Authorization": f"Bearer {KEY}"}
PROFILE = "h100-qwen32b"  # steps of 25 ms: a response takes seconds but little CPU time
PATIENCE_S = 90.0  # without an event for this long, a stream hangs
KILLED = "worker-1"  # the other one is never killed, so that its memory can be judged
SEND_TIMEOUT_S = 15.0  # a reader that takes nothing for this long is disconnected
LARGEST_BODY = 256 * 1024
LARGEST_FRAME = 1024 * 1024
LOG_BOUND = {"session.log_bytes": "8192"}  # fewer than the longest responses have
_SMALL_BUFFER = 4096  # bytes, for a reader whose buffer must fill up soon
_SMALL_SEGMENT = 1460  # bytes, as in a network: the gateway's buffer in the system stays small
_ESTABLISHED = "01"  # in /proc/net/tcp
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


def settings(ttl_s: float) -> dict[str, str]:
    """Settings with which the gateway is steady after a few ``ttl_s``."""
    return {
        "workers.emulate": PROFILE,
        "workers.kv_blocks": "400",  # 6400 tokens: now and then requests are preempted
        "workers.restart_backoff_s": "0.2",
        "session.ttl_s": f"{ttl_s}",
        **LOG_BOUND,
        "server.api_keys": KEY,
        "server.max_message_bytes": f"{LARGEST_BODY}",
        "server.hard_message_bytes": f"{LARGEST_FRAME}",
        "server.log_level": "warning",
        "server.header_timeout_s": "10",
        "server.send_timeout_s": f"{SEND_TIMEOUT_S}",
        "session.total_bytes": f"{4 * 2**20}",  # about the usual total: the oldest are dropped
        "limits.max_requests_per_user": "1000",
        "limits.load": "0",  # more than the engines can serve in time is part of the test
        "store.retention_days": f"{120 / 86400:.6f}",
    }


class Enough(Exception):
    """As many readers as may do so at a time do it already."""


@dataclass(slots=True)
class Stage:
    """What all readers share."""

    url: str
    http: aiohttp.ClientSession
    tally: Tally
    ttl_s: float
    half_open: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    stalled: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))

    @asynccontextmanager
    async def one_of(self, few: asyncio.Semaphore) -> AsyncIterator[None]:
        """Be one of the few that may do something at a time.

        :raises Enough: others do it already. Nobody waits: with many readers the wait has no end.
        """
        if few.locked():
            raise Enough
        async with few:
            yield

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Make an HTTP request; :return: status and decoded JSON. Raises `Violation` for a 500."""
        async with self.http.request(method, self.url + path, json=body) as answer:
            data = await answer.read()
            if answer.status == 500:
                raise Violation(f"{method} {path}: 500 {data[:200]!r}")
            return answer.status, json.loads(data)


def body(rng: random.Random, *, store: bool = False, long: bool = False) -> dict[str, Any]:
    """A request body: short reasoning, a short answer, a random pace."""
    answer = rng.randint(350, 500) if long else int(rng.triangular(2, 120, 15))
    pace = rng.choice([{"tpot_s": 0.02}, {"tpot_s": 0.04}, {"tpot_s": 0.08}, False])
    return {
        "input": "Tell me about slopes. " * rng.randint(1, 8),
        "store": store,
        "pacing": {"tpot_s": 0.025} if long else pace,
        "forced_lengths": {
            "reasoning_tokens": int(rng.triangular(2, 80, 10)),
            "answer_tokens": answer,
        },
    }


async def connected(stage: Stage, *, slow: bool) -> socket.socket:
    """A connection to the gateway; with ``slow`` its receive buffer is small and fills up soon."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        if slow:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SMALL_SEGMENT)
        await asyncio.get_running_loop().sock_connect(raw, stage.address)
    except BaseException:
        raw.close()
        raise
    return raw


class Socket:
    """The WebSocket of one reader."""

    def __init__(self, stage: Stage, *, slow: bool = False) -> None:
        self.stage = stage
        self._slow = slow
        self._socket: ClientConnection

    async def __aenter__(self) -> Socket:
        self._socket = await connect(
            self.stage.url.replace("http", "ws", 1) + "/v1/responses",
            sock=await connected(self.stage, slow=self._slow),
            additional_headers=HEADERS,
            compression=None,
            max_queue=2 if self._slow else 64,
            ping_interval=None,
            close_timeout=10,
            open_timeout=PATIENCE_S,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self._socket.close()
        self.vanish(reset=True)

    def vanish(self, *, reset: bool) -> None:
        """End the connection without a close frame."""
        if reset:
            end_by_reset(self._socket.transport)
        else:
            self._socket.transport.abort()

    def held(self) -> bool:
        """Whether the gateway still has its end of this connection open."""
        raw = self._socket.transport.get_extra_info("socket")
        return raw is not None and raw.getsockname()[1] in established(self.stage.address[1])

    async def send(self, **event: Any) -> None:
        """Send one event."""
        await self._socket.send(json.dumps(event))

    async def send_raw(self, data: str | bytes, *, text: bool | None = None) -> None:
        """Send any message; bytes with ``text`` are sent as text that need not be UTF-8."""
        await self._socket.send(data, text=text)

    async def event(self) -> dict[str, Any]:
        """The next event of any stream. Raises `ConnectionClosed` or `Violation`."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                event: dict[str, Any] = json.loads(await self._socket.recv())
        except TimeoutError:
            raise Violation(f"no event for {PATIENCE_S:.0f} s") from None
        return event

    async def error(self) -> str:
        """The code of the error event that must come next."""
        event = await self.event()
        if event["type"] != "error" or event["status"] >= 500:
            raise Violation(f"garbage was answered by {str(event)[:200]}")
        return str(event["error"]["code"])

    async def closed(self) -> int:
        """Read until the server has closed; :return: the close code."""
        async with asyncio.timeout(PATIENCE_S):
            await self._socket.wait_closed()
        return self._socket.close_code or 0

    async def create(self, request: dict[str, Any]) -> Stream:
        """Start a response and read its first event. Raises `Refused`."""
        stream = Stream(self.stage.tally)
        await self.send(type="response.create", **request)
        await self.follow(stream, upto=1)
        return stream

    async def resume(self, stream: Stream) -> None:
        """Ask for the events that this reader has not seen."""
        await self.send(
            type="response.resume", response_id=stream.response_id, starting_after=stream.last
        )

    async def follow(self, stream: Stream, upto: int | None = None) -> None:
        """Read to the end, or ``upto`` further events. Raises `Refused` for an error event."""
        count = 0
        while not stream.ended and (upto is None or count < upto):
            event = await self.event()
            if event["type"] == "error":
                if event["error"]["code"] == "events_expired":
                    stream.expired()
                raise Refused(event["error"]["code"], event["error"]["message"], event["status"])
            stream.feed(event)
            count += 1


def established(port: int, table: Path = Path("/proc/net/tcp")) -> set[int]:
    """The remote ports of all connections that a local port holds open."""
    local_end = f":{port:04X}"
    ports: set[int] = set()
    for line in table.read_text(encoding="ascii").splitlines()[1:]:
        _, local, remote, state, _ = line.split(maxsplit=4)
        if state == _ESTABLISHED and local.endswith(local_end):
            ports.add(int(remote.rpartition(":")[2], 16))
    return ports


def end_by_reset(transport: asyncio.BaseTransport | None) -> None:
    """End a TCP connection by a reset."""
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    cast(asyncio.WriteTransport, transport).abort()  # uvloop's is no instance


def nice(steps: int) -> None:
    """Lower the priority of this process below that of the gateway, which is already running."""
    with suppress(OSError):
        os.nice(steps)
