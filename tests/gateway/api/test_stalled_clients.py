"""Clients that stop reading, over real sockets.

They lose their connection, not their response, and nobody else waits for them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse
from structlog.testing import capture_logs

from gateway.config import ServerConfig
from gateway.response.session import Session
from tests.gateway.api.test_apis import api, receive
from tests.gateway.support.scripted_service import start, until
from tests.gateway.support.scripted_worker import ScriptedWorker

PROMPT_S = 5.0  # a loaded machine may need some of it; a stalled client would cost a minute
TABLES = {"server": ServerConfig(send_timeout_s=0.3)}
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def ask(stalled: socket.socket, request_id: str, transport: str) -> None:
    """Ask for all events of a response."""
    if transport == "sse":
        path = f"/v1/responses/{request_id}?stream=true"
        stalled.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return
    stalled.sendall(f"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n".encode())
    assert b"101" in stalled.recv(4096)
    resume = f'{{"type":"response.resume","response_id":"{request_id}"}}'.encode()
    stalled.sendall(bytes([0x81, 0x80 | len(resume)]) + bytes(4) + resume)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="an option of Linux's TCP")
@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_a_client_that_takes_nothing_loses_its_connection(
    tmp_path: Path, transport: str
) -> None:
    async with api(tmp_path, **TABLES) as (client, worker, service):
        session, request_id = await start(service, worker)
        await fill(session, worker, request_id)
        async with client.get("/health") as answer:
            address = (answer.url.host, answer.url.port)
        with socket.socket() as stalled:
            before = len(os.listdir("/proc/self/fd"))
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(address)
            with capture_logs() as logged:
                await asyncio.to_thread(ask, stalled, request_id, transport)
                await until(lambda: session.log.followed)
                assert len(os.listdir("/proc/self/fd")) > before
                await until(lambda: not session.log.followed)
                await until(lambda: len(os.listdir("/proc/self/fd")) == before)
        reasons = [line for line in logged if line["event"] == "stalled_client_closed"]
        assert {reason["seconds"] for reason in reasons} == {0.3}
        assert not session.finished  # it goes on, and can be resumed


class Stalled:
    """A client that asked for all events of a response, and takes none."""

    def __init__(self, client: ClientSession) -> None:
        self._client = client
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    async def __aenter__(self) -> Stalled:
        async with self._client.get("/health") as answer:
            self._socket.connect((answer.url.host, answer.url.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()

    async def ask(self, session: Session, transport: str) -> None:
        """Ask, and return when the gateway has begun to answer."""
        await asyncio.to_thread(ask, self._socket, session.response_id, transport)
        await until(lambda: session.log.followed)


async def fill(session: Session, worker: ScriptedWorker, request_id: str) -> int:
    """More events than all buffers on the way to a client hold; :return: their number."""
    count = 4000
    for position in range(0, count, 1000):
        await worker.tokens(request_id, position, *("x" * 900,) * 1000)
    await until(lambda: len(session.token_ids) == count)
    return count


@pytest.mark.parametrize("transport", ["sse", "websocket"])
@pytest.mark.parametrize("same", [True, False], ids=["same response", "another response"])
async def test_a_client_that_takes_nothing_delays_nobody_on_another_connection(
    tmp_path: Path, transport: str, same: bool
) -> None:
    async with api(tmp_path) as (client, worker, service):  # it stays connected for a minute
        session, request_id = await start(service, worker)
        position = await fill(session, worker, request_id)
        async with Stalled(client) as stalled, client.ws_connect("v1/responses") as other:
            await stalled.ask(session, transport)
            if not same:
                session, request_id = await start(service, worker)
                position = 0
            await resume(other, session)
            for number in range(position, position + 50):
                began_s = time.monotonic()
                await worker.tokens(request_id, number, f"token {number}")
                event = await receive(other, "response.output_text.delta")
                assert event["delta"] == f"token {number}"
                assert time.monotonic() - began_s < PROMPT_S


async def test_a_response_that_is_far_behind_does_not_hold_up_others_on_its_connection(
    tmp_path: Path,
) -> None:
    async with api(tmp_path) as (client, worker, service):
        behind, request_id = await start(service, worker)
        count = await fill(behind, worker, request_id)
        live, live_id = await start(service, worker)
        async with client.ws_connect("v1/responses") as reader:
            await resume(reader, live, stream_id="live")
            await resume(reader, behind, stream_id="behind", starting_after=-1)
            await receive(reader, "response.output_text.delta")  # the first of many
            await worker.tokens(live_id, 0, "now")
            seen = 1
            while True:
                event = await receive(reader, "response.output_text.delta")
                if event["stream_id"] == "live":
                    break
                seen += 1
        assert event["delta"] == "now"
        assert seen < count


async def resume(
    reader: ClientWebSocketResponse,
    session: Session,
    starting_after: int | None = None,
    **fields: Any,
) -> None:
    """Follow a response, by default from its latest event on."""
    latest = session.log.next_sequence - 1
    await reader.send_json(
        {
            "type": "response.resume",
            "response_id": session.response_id,
            "starting_after": latest if starting_after is None else starting_after,
            **fields,
        }
    )


async def test_a_client_that_vanished_without_a_word_is_noticed_by_a_ping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.api.websocket._PING_INTERVAL_S", 0.2)
    async with api(tmp_path) as (client, worker, service):
        session, request_id = await start(service, worker)
        await worker.tokens(request_id, 0, "a")
        async with client.get("/health") as answer:
            address = (answer.url.host, answer.url.port)
        with socket.socket() as silent:  # it takes what is sent, and never answers
            silent.connect(address)
            await asyncio.to_thread(ask, silent, request_id, "websocket")
            await until(lambda: session.log.followed)
            await until(lambda: not session.log.followed)
        assert not session.finished  # it goes on, and can be resumed
