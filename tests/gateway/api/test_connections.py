"""Incomplete requests and malformed HTTP, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from structlog.testing import capture_logs

from gateway.api.connections import Connection
from gateway.config import ServerConfig
from tests.gateway.api.test_apis import UNPACED, accepted, api, create, receive
from tests.gateway.support.scripted_service import until
from workers.messages import Finish

HOST = b"Host: x\r\n"
POST = b"POST /v1/responses HTTP/1.1\r\n" + HOST
GET = b"GET /health HTTP/1.1\r\n" + HOST
STOP = Finish(reason="stop")
IMPATIENT = {"server": ServerConfig(header_timeout_s=0.1, body_timeout_s=0.1)}


def port_of(client: ClientSession) -> int:
    base_url = client._base_url
    assert base_url is not None
    assert base_url.port is not None
    return base_url.port


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(client: ClientSession, data: bytes = b"") -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
    writer.write(data)
    return reader, writer


async def answer_of(client: ClientSession, data: bytes) -> tuple[int, bytes, Any]:
    """Status, headers and decoded body of the answer to some bytes; ends with the connection."""
    reader, writer = await connected(client, data)
    try:
        text = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    head, _, body = text.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), head, json.loads(body)


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What came until the server closed the connection."""
    return await asyncio.wait_for(reader.read(), 10)


# ---- what is no HTTP ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (GET + b"Cookie: " + b"a" * 40_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (GET + b"Cookie: " + b"a" * 3_000_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", 431, "headers_too_large"),
        (GET + b"a: b\r\n" * 200 + b"\r\n", 400, "invalid_http"),
        (GET + b"a: \x00\r\n\r\n", 400, "invalid_http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"q" * 300, 400, "invalid_http"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_http"),
        (b"hello\r\n\r\n", 400, "invalid_http"),
        (POST + b"Content-Length: secret\r\n\r\n", 400, "invalid_http"),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400, "invalid_http"),
        (POST + b"Connection: close\r\nExpect: a miracle\r\n\r\n", 417, "http_error"),
    ],
)
async def test_what_is_no_http_gets_an_error_in_form_and_one_line(
    tmp_path: Path, data: bytes, status: int, code: str
) -> None:
    async with api(tmp_path) as (client, _, _service):
        with capture_logs() as lines:
            answered, head, document = await answer_of(client, data)
    assert (answered, document["error"]["code"]) == (status, code)
    assert b"Content-Type: application/json" in head
    assert [line["event"] for line in lines] == ["request_refused"]
    assert (lines[0]["status"], lines[0]["code"]) == (status, code)
    assert "secret" not in str(lines)


async def test_a_long_cookie_is_none_of_our_business(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _, _service):
        answer = await client.get("/health", headers={"Cookie": "a" * 9000})
        assert answer.status == 200


@pytest.mark.parametrize("encoding", ["zstd", "br", "compress", "gzip, gzip", "\xff"])
async def test_an_encoding_that_is_not_known_is_refused_with_those_that_are(
    tmp_path: Path, encoding: str
) -> None:
    async with api(tmp_path) as (client, _, _service):
        data = POST + b"Connection: close\r\nContent-Length: 2\r\nContent-Encoding: "
        data += encoding.encode("latin-1") + b"\r\n\r\n{}"
        status, _, document = await answer_of(client, data)
    assert status == 415
    assert "gzip or deflate" in document["error"]["message"]


async def test_a_small_body_that_stands_for_a_huge_one_is_not_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the HTTP library, which knows no bound and goes on to the end of a refused body."""

    def unbounded(*_: object, **__: object) -> None:
        raise AssertionError("the HTTP library decompresses")

    monkeypatch.setattr("aiohttp.http_parser.ZLibDecompressor", unbounded)
    data = gzip.compress(bytes(2**22))
    headers = {"Content-Encoding": "gzip"}
    async with api(tmp_path) as (client, _, _service):
        answer = await client.post("/v1/responses", data=data, headers=headers)
        assert answer.status == 413
        # Nor where the body is of no interest, and only read to its end.
        answer = await client.get("/v1/models", data=data, headers=headers)
        assert answer.status == 200


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "identity"])
async def test_known_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    data = b'{"unknown":1}'
    if encoding != "identity":
        data = gzip.compress(data)
    async with api(tmp_path) as (client, _, _service):
        headers = {"Content-Encoding": encoding}
        answer = await client.post("/v1/responses", data=data, headers=headers)
        assert (await answer.json())["error"]["param"] == "unknown"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_several_requests_on_one_connection_and_an_upgrade_that_is_not_taken(
    tmp_path: Path, version: bytes
) -> None:
    """As Java's client sends its first request, and as pipelining clients do."""
    async with api(tmp_path) as (client, _, _service):
        upgrade = (
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        )
        first = b"POST /v1/responses HTTP/" + version + b"\r\n" + HOST + upgrade
        first += b'Content-Length: 13\r\n\r\n{"unknown":1}'
        reader, writer = await connected(client, first)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split(b" ", 2)[1] == b"400"
        assert b'"unknown"' in await reader.readuntil(b"}}")
        if version == b"1.1":
            writer.write((GET + b"\r\n") * 3)
            for _ in range(3):
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
                await reader.readuntil(b"}")
        writer.close()


# ---- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["//v1/responses", "/v1//responses/", "///v1///responses///"])
async def test_double_and_trailing_slashes_do_not_count(tmp_path: Path, path: str) -> None:
    async with api(tmp_path) as (client, worker, _):
        data = b'{"input":"hi"}'
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" % path.encode()
        head += b"Content-Length: %d\r\n\r\n" % len(data)
        asking = asyncio.create_task(answer_of(client, head + data))
        await worker.tokens(await accepted(worker), 0, "a", finish=STOP)
        status, _, response = await asking
        assert (status, response["status"]) == (200, "completed")
        again = await client.get(f"/v1//responses/{response['id']}/?stream=true&starting_after=x")
        assert (await again.json())["error"]["param"] == "starting_after"
        assert (await client.get("/v1/models/")).status == 200
        assert (await client.get("/")).status == 200


@pytest.mark.parametrize("path", [b"/v1/models/", b"/v1/responses/", b"/admin/instances/", b"/"])
async def test_a_path_that_is_no_text_is_quoted_in_a_way_that_can_be_sent(
    tmp_path: Path, path: bytes
) -> None:
    async with api(tmp_path) as (client, _, _service):
        for name in (b"\xff", b"%ff", b"%ed%a0%80"):
            head = b"GET " + path + name + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            status, _, document = await answer_of(client, head + b"\r\n")
            assert status == (400 if name == b"\xff" else 404)
            assert document["error"]["type"] == "invalid_request_error"


async def test_a_route_of_others_below_ours_is_not_found(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _, _service):
        answer = await client.post("/v1/responses/compact", json={"input": "x"})
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "no_such_route")


# ---- requests that never finish -----------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"GET /health HT", GET, GET + b"a: b\r\n"])
async def test_a_request_that_does_not_begin_or_end_its_headers_is_closed(
    tmp_path: Path, data: bytes
) -> None:
    async with api(tmp_path, **IMPATIENT) as (client, _, _service):
        reader, writer = await connected(client, data)
        assert await closed(reader) == b""
        writer.close()
        # So is a second request on a connection that has served one.
        reader, writer = await connected(client, GET + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"}")
        writer.write(data or b"G")
        assert await closed(reader) == b""
        writer.close()


async def test_bytes_that_drip_do_not_buy_time(tmp_path: Path) -> None:
    async with api(tmp_path, **IMPATIENT) as (client, _, _service):
        reader, writer = await connected(client, GET)

        async def drip() -> None:
            while True:
                writer.write(b"a: b\r\n")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        try:
            await asyncio.wait_for(reader.read(), 10)
        except ConnectionResetError:
            pass  # the last drop came after the end
        finally:
            dripping.cancel()
            writer.close()


@pytest.mark.parametrize("path", [b"/v1/responses", b"/v1/chat/completions"])
@pytest.mark.parametrize("part", [b"", b'{"input":'])
async def test_a_body_that_does_not_come_is_refused_and_its_connection_closed(
    tmp_path: Path, path: bytes, part: bytes
) -> None:
    async with api(tmp_path, **IMPATIENT) as (client, _, _service):
        head = b"POST " + path + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 20\r\n\r\n"
        status, head, document = await answer_of(client, head + part)
    assert (status, document["error"]["code"]) == (408, "request_timeout")
    assert b"Connection: close" in head


async def test_idle_connections_sockets_and_silent_streams_are_left_alone(tmp_path: Path) -> None:
    async with api(tmp_path, **IMPATIENT) as (client, worker, _):
        idle = await connected(client, GET + b"\r\n")
        await idle[0].readuntil(b"}")
        socket = await client.ws_connect("/v1/responses")
        body = {"input": "hi", "stream": True, **UNPACED}
        asking = asyncio.create_task(client.post("/v1/responses", json=body))
        request_id = await accepted(worker)
        stream = await asking
        for _ in range(2):  # both timeouts pass, seen at one that they are meant for
            reader, writer = await connected(client)
            await closed(reader)
            writer.close()
        idle[1].write(GET + b"\r\n")
        assert (await idle[0].readline()).startswith(b"HTTP/1.1 200")
        idle[1].close()
        await worker.tokens(request_id, 0, "a", finish=STOP)
        assert b"response.completed" in await stream.read()
        await create(socket)
        await worker.tokens(await accepted(worker), 0, "a", finish=STOP)
        assert await receive(socket, "response.completed")
        await socket.close()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Connections that the server has done with."""
    found: list[Connection] = []
    connection_lost = Connection.connection_lost

    def lost(connection: Connection, error: BaseException | None) -> None:
        connection_lost(connection, error)
        found.append(connection)

    monkeypatch.setattr(Connection, "connection_lost", lost)
    return found


async def test_a_connection_that_has_ended_has_no_timer(
    tmp_path: Path, ended: list[Connection]
) -> None:
    async with api(tmp_path) as (client, _, _service):
        _, writer = await connected(client, b"GET /")
        writer.close()
        await until(lambda: ended)
        assert [connection._header_timer for connection in ended] == [None]


async def test_who_sends_no_http_and_stays_is_not_waited_for(
    tmp_path: Path, ended: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.api.connections._DISCARD_S", 0.01)
    async with api(tmp_path) as (client, _, _service):
        _, writer = await connected(client, b"hello\r\n\r\n")
        await until(lambda: ended)
        writer.close()


async def test_bytes_of_a_request_in_pieces_and_of_a_socket_start_no_timer(tmp_path: Path) -> None:
    tables = {"server": ServerConfig(header_timeout_s=1.0)}
    async with api(tmp_path, **tables) as (client, _, _service):
        reader, writer = await connected(client, GET[:9])
        async with client.ws_connect("/v1/responses") as socket:
            await socket.send_str("no event")
            await receive(socket, "error")
            for piece in (GET[9:12], GET[12:15]):
                writer.write(piece)
                await socket.send_str("no event")  # the piece is read before the answer comes
                await receive(socket, "error")
            writer.write(GET[15:] + b"\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await reader.readuntil(b"}")
            await asyncio.sleep(1.2)
            await socket.send_str("no event")
            await receive(socket, "error")
        writer.write(GET + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
