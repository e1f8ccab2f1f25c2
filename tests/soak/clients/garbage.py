"""Clients that send garbage. Each must be refused, and no other client may notice."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress

from websockets.exceptions import ConnectionClosed

from tests.soak.clients.stage import (
    KEY,
    LARGEST_BODY,
    LARGEST_FRAME,
    Socket,
    Stage,
    body,
    end_by_reset,
)
from tests.soak.clients.stream import Violation

_CREATE = {"type": "response.create", "input": "Hello."}
_TEXTS = (
    "",
    "{",
    "[]",
    "null",
    '"response.create"',
    "[" * 5000,
    '{"type":' * 500,
    json.dumps({"type": "response.unmake"}),
    json.dumps({"type": 7}),
    json.dumps({"input": "no type"}),
    json.dumps({**_CREATE, "temperature": "hot"}),
    json.dumps({**_CREATE, "temperatur": 1}),
    json.dumps({**_CREATE, "input": []}),
    json.dumps({**_CREATE, "input": [{"role": "ghost", "content": "boo"}]}),
    json.dumps({**_CREATE, "forced_lengths": {"reasoning_tokens": -1, "answer_tokens": 0}}),
    json.dumps({**_CREATE, "max_output_tokens": 10**30}),
    json.dumps({**_CREATE, "previous_response_id": "resp_never"}),
    json.dumps({**_CREATE, "model": "another"}),
    json.dumps({**_CREATE, "stream_id": "x" * 200}),
    json.dumps({**_CREATE, "input": "long " * 60_000}),
    json.dumps({"type": "response.cancel"}),
    json.dumps({"type": "response.cancel", "response_id": "resp_never"}),
    json.dumps({"type": "response.pacing.update", "response_id": "x", "tpot_s": -1}),
    '{"type":"response.create","input":"\\ud800"}',
    '{"type":"response.create","input":NaN}',
)


async def sends_garbage(stage: Stage, rng: random.Random) -> None:
    """Sends wrong messages of every kind, then a correct one, which must be served."""
    async with Socket(stage) as socket:
        for _ in range(rng.randint(1, 8)):
            if rng.random() < 0.15:
                await socket.send_raw(rng.randbytes(rng.randint(0, 2000)), text=False)
            else:
                await socket.send_raw(rng.choice(_TEXTS))
            stage.tally.refused[await socket.error()] += 1
        stream = await socket.create(body(rng))
        await socket.follow(stream)


async def breaks_the_frame(stage: Stage, rng: random.Random) -> None:
    """Sends text that is not UTF-8, or a message above the hard limit; the server must close."""
    async with Socket(stage) as socket:
        with suppress(ConnectionClosed):
            if rng.random() < 0.5:
                await socket.send_raw(b'{"type":"\xff\xfe\xc0"}', text=True)
            else:
                await socket.send_raw("x" * (LARGEST_FRAME + 100))
        code = await socket.closed()
        if code not in (1002, 1006, 1007, 1009):
            raise Violation(f"a broken frame was answered with close code {code}")


async def asks_wrongly(stage: Stage, rng: random.Random) -> None:
    """Sends HTTP requests that must be refused with a status of 4xx."""
    json_type = f"Content-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"
    large = "x" * (LARGEST_BODY + 10)
    cases = (
        ("POST", "/v1/responses", json_type, "{"),
        ("POST", "/v1/responses", json_type, json.dumps({"input": 3})),
        ("POST", "/v1/responses", json_type, json.dumps({"input": "x", "background": 7})),
        ("POST", "/v1/chat/completions", json_type, json.dumps({"messages": []})),
        ("POST", "/v1/chat/completions", json_type, "\x00\x01\x02"),
        ("POST", "/v1/responses", json_type, json.dumps({"input": large})),
        ("POST", "/v1/responses", json_type + "Content-Encoding: gzip\r\n", "no gzip"),
        ("POST", "/v1/responses", "Authorization: Bearer wrong\r\n", json.dumps({"input": "x"})),
        ("POST", "/v1/responses", "", json.dumps({"input": "x"})),
        ("GET", "/v1/responses/resp_never", json_type, ""),
        ("GET", "/v1/responses/resp_never?stream=true&starting_after=x", json_type, ""),
        ("DELETE", "/v1/responses/resp_never", json_type, ""),
        ("POST", "/v1/responses/resp_never/cancel", json_type, ""),
        ("PUT", "/v1/responses", json_type, "{}"),
        ("BREW", "/v1/responses", json_type, ""),
        ("GET", "/v1/responses", json_type, ""),
        ("GET", "/nothing/../here", "", ""),
        ("GET", "/admin/instances", "", ""),
    )
    for method, path, headers, text in rng.sample(cases, rng.randint(1, 5)):
        head = f"{method} {path} HTTP/1.1\r\nHost: soak\r\n{headers}"
        if text:
            head += f"Content-Length: {len(text)}\r\n"
        status = await _status(stage, f"{head}Connection: close\r\n\r\n{text}".encode())
        if not 400 <= status < 500:
            raise Violation(f"{method} {path} with {text[:40]!r} was answered by {status}")
        stage.tally.refused[f"http {status}"] += 1


async def speaks_no_http(stage: Stage, rng: random.Random) -> None:
    """Sends bytes that are not HTTP; the answer must be 400 or a closed connection."""
    data = rng.choice(
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),
            b"HELO soak\r\n\r\n",
            rng.randbytes(500) + b"\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 20_000 + b"\r\n\r\n",
            b"POST /v1/responses HTTP/1.1\r\nContent-Length: minus\r\n\r\n",
            b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        )
    )
    status = await _status(stage, data)
    if status and not 400 <= status < 500:
        raise Violation(f"{data[:40]!r} was answered by {status}")


async def never_finishes(stage: Stage, rng: random.Random) -> None:
    """Sends nothing, half a head or half a body, and holds the connection for a while."""
    head = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode()
    data = rng.choice(
        (b"", head, head + b"Content-Length: 1000\r\n\r\n{", b"GET /v1/resp", b"\r\n")
    )
    async with stage.one_of(stage.half_open):
        reader, writer = await asyncio.open_connection(*stage.address)
        try:
            writer.write(data)
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(rng.uniform(1, 20)):
                    await reader.read()  # returns when the gateway closes
        finally:
            _end(writer, rng)


async def upgrades_and_vanishes(stage: Stage, rng: random.Random) -> None:
    """Asks for a WebSocket and disconnects before, or right after, the answer."""
    lines = (
        "GET /v1/responses HTTP/1.1",
        "Host: soak",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Version: {rng.choice(('13', '13', '13', '99'))}",
        f"Sec-WebSocket-Key: {rng.choice(('x3JJHMbDL1EzLkh9GBhXDw==', '!'))}",
        f"Authorization: Bearer {rng.choice((KEY, KEY, 'wrong'))}",
    )
    reader, writer = await asyncio.open_connection(*stage.address)
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        if rng.random() < 0.6:
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(rng.uniform(0, 0.5)):
                    await reader.read(100)
        if rng.random() < 0.3:
            writer.write(rng.randbytes(100))  # frames without a mask, unknown opcodes
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(5):
                    await reader.read()
    finally:
        _end(writer, rng)


async def _status(stage: Stage, data: bytes) -> int:
    """The status of the answer; 0 if the gateway closes without an answer."""
    reader, writer = await asyncio.open_connection(*stage.address)
    try:
        writer.write(data)
        async with asyncio.timeout(30):
            line = await reader.readline()
        return int(line.split()[1]) if line.startswith(b"HTTP/") else 0
    except TimeoutError:
        raise Violation(f"no answer for 30 s to {data[:60]!r}") from None
    except ConnectionError:
        return 0
    finally:
        end_by_reset(writer.transport)


def _end(writer: asyncio.StreamWriter, rng: random.Random) -> None:
    if rng.random() < 0.5:
        end_by_reset(writer.transport)
    else:
        writer.close()
