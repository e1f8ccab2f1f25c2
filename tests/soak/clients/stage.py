"""The gateway under soak, and how readers reach it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from websockets.asyncio.client import ClientConnection, connect

from tests.soak.clients.stream import Refused, Stream, Tally, Violation

KEY = "key-of-the-soak"
HEADERS = {"Authorization": f"Bearer {KEY}"}
PROFILE = "h100-qwen32b"  # a step takes 25 ms: a response takes seconds, and little CPU
PATIENCE_S = 90.0  # no event for so long is a hang
KILLED = "worker-1"  # the other one lives through the run, so that its memory can be judged
SEND_TIMEOUT_S = 15.0  # a reader that takes nothing for so long is cut off
LARGEST_BODY = 256 * 1024
LARGEST_FRAME = 1024 * 1024
_SMALL_BUFFER = 4096  # of a reader that is to fill up soon
_ESTABLISHED = "01"  # in /proc/net/tcp
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


def settings(ttl_s: float) -> dict[str, str]:
    """Settings with which everything is steady after a few ``ttl_s``."""
    return {
        "workers.emulate": PROFILE,
        "workers.kv_blocks": "400",  # 6400 tokens: now and then requests must give way
        "workers.restart_backoff_s": "0.2",
        "session.ttl_s": f"{ttl_s}",
        "session.log_events": "300",  # fewer than the longest responses have
        "server.api_keys": KEY,
        "server.max_message_bytes": f"{LARGEST_BODY}",
        "server.hard_message_bytes": f"{LARGEST_FRAME}",
        "server.log_level": "warning",
        "server.header_timeout_s": "10",
        "server.send_timeout_s": f"{SEND_TIMEOUT_S}",
        "session.total_bytes": f"{4 * 2**20}",  # about what is kept at once: the oldest must go
        "limits.max_requests_per_user": "1000",
        "store.retention_days": f"{120 / 86400:.6f}",
    }


@dataclass(slots=True)
class Stage:
    """What every reader is given."""

    url: str
    http: aiohttp.ClientSession
    tally: Tally
    ttl_s: float
    half_open: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    stalled: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One whole HTTP exchange; status and decoded JSON. Raises `Violation` for a 500."""
        async with self.http.request(method, self.url + path, json=body) as answer:
            data = await answer.read()
            if answer.status == 500:
                raise Violation(f"{method} {path}: 500 {data[:200]!r}")
            return answer.status, json.loads(data)


def body(chance: random.Random, *, store: bool = False, long: bool = False) -> dict[str, Any]:
    """A request: short thoughts, a short answer, a reader of any speed."""
    answer = chance.randint(350, 500) if long else int(chance.triangular(2, 120, 15))
    pace = chance.choice([{"tpot_s": 0.02}, {"tpot_s": 0.04}, {"tpot_s": 0.08}, False])
    return {
        "input": "Tell me about slopes. " * chance.randint(1, 8),
        "store": store,
        "pacing": {"tpot_s": 0.025} if long else pace,
        "forced_lengths": {
            "reasoning_tokens": int(chance.triangular(2, 80, 10)),
            "answer_tokens": answer,
        },
    }


async def connected(stage: Stage, *, slow: bool) -> socket.socket:
    """A connection to the gateway; one that is slow has a small buffer, which fills up soon."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        if slow:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        await asyncio.get_running_loop().sock_connect(raw, stage.address)
    except BaseException:
        raw.close()
        raise
    return raw


class Socket:
    """A WebSocket of one reader: well-behaved or not."""

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
        """End the connection without a goodbye."""
        raw = self._socket.transport.get_extra_info("socket")
        if reset:
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.transport.abort()

    def held(self) -> bool:
        """Whether the gateway still has its end of this connection open."""
        raw = self._socket.transport.get_extra_info("socket")
        ends = f":{self.stage.address[1]:04X}", f":{raw.getsockname()[1]:04X}"
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
            _, local, remote, state = line.split()[:4]
            if local.endswith(ends[0]) and remote.endswith(ends[1]):
                return state == _ESTABLISHED
        return False

    async def send(self, **event: Any) -> None:
        """One event."""
        await self._socket.send(json.dumps(event))

    async def send_raw(self, data: str | bytes, *, text: bool | None = None) -> None:
        """Any message; bytes with ``text`` go as text that need not be UTF-8."""
        await self._socket.send(data, text=text)

    async def event(self) -> dict[str, Any]:
        """The next event, of whatever stream. Raises `ConnectionClosed` or `Violation`."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                found: dict[str, Any] = json.loads(await self._socket.recv())
        except TimeoutError:
            raise Violation(f"no event for {PATIENCE_S:.0f} s") from None
        return found

    async def error(self) -> str:
        """The code of the error event that must come next."""
        event = await self.event()
        if event["type"] != "error" or event["status"] >= 500:
            raise Violation(f"garbage was answered by {str(event)[:200]}")
        return str(event["error"]["code"])

    async def closed(self) -> int:
        """Read on until the server has closed; the close code."""
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
        """Ask for what this reader has not seen."""
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


def reset(transport: asyncio.BaseTransport | None) -> None:
    """End a TCP connection by a reset."""
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    assert isinstance(transport, asyncio.WriteTransport)
    transport.abort()


def nice(steps: int) -> None:
    """Give way to the gateway, which was started before this."""
    with suppress(OSError):
        os.nice(steps)
