"""Clients that stop reading, over real sockets: they lose their connection, not their response."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from gateway.config import ServerConfig
from tests.gateway.api.test_apis import api
from tests.gateway.support.scripted_service import start, until

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
        count = 4000  # events of a kilobyte: more than all buffers on the way hold
        for position in range(0, count, 1000):
            await worker.tokens(request_id, position, *("x" * 1000,) * 1000)
        await until(lambda: len(session.token_ids) == count)
        async with client.get("/health") as answer:
            address = (answer.url.host, answer.url.port)
        with socket.socket() as stalled:
            before = len(os.listdir("/proc/self/fd"))
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(address)
            await asyncio.to_thread(ask, stalled, request_id, transport)
            await until(lambda: session.log.followed)
            assert len(os.listdir("/proc/self/fd")) > before
            await until(lambda: not session.log.followed)
            await until(lambda: len(os.listdir("/proc/self/fd")) == before)
        assert not session.finished  # it goes on, and can be resumed
