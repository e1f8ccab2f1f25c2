"""The id of an HTTP request: on every response, and in every line that is logged for it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from gateway import logs
from gateway.app import make_app
from gateway.config import ServerConfig
from tests.gateway.api.test_apis import STOP, UNPACED, accepted, api, create, receive
from tests.gateway.support import stored_keys
from tests.gateway.support.scripted_service import until

ID = "X-Request-Id"
SECRET = "the words of a prompt"


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The log as a gateway has it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    kept = structlog.get_config()
    structlog.reset_defaults()
    logs.configure("debug")
    yield
    structlog.configure(**kept)
    root.handlers[:], root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What the gateway logged; the scripted worker's server writes to the same file."""
    written = capsys.readouterr().err.splitlines()
    return [json.loads(line) for line in written if line.startswith("{")]


@pytest.mark.parametrize("sent", ["abc-123", "Root=1-67891233:abc/d+e@f_.", "x" * 128])
async def test_a_safe_id_comes_back(tmp_path: Path, sent: str) -> None:
    async with api(tmp_path) as (client, _, _service):
        answer = await client.get("health", headers={ID: sent})
        assert answer.headers.getall(ID) == [sent]


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", 'a"b', "a\tb", "é", "{x}", "a;b"])
async def test_another_is_replaced(tmp_path: Path, sent: str) -> None:
    async with api(tmp_path) as (client, _, _service):
        answer = await client.get("health", headers={ID: sent})
        (given,) = answer.headers.getall(ID)
        assert given.startswith("req_")
        assert (await client.get("health")).headers[ID] != given


async def test_every_answer_has_one(tmp_path: Path) -> None:
    """Of every route, refused or not, by every method."""
    async with api(tmp_path) as (client, _, service):
        paths = {
            str(resource.canonical).replace(":.+", "")
            for resource in make_app(service).router.resources()
        }
        assert len(paths) > 15
        for path in [*paths, "/nothing", "/static/app.js"]:
            for method in ("GET", "POST", "DELETE", "PUT", "OPTIONS"):
                path = path.replace("{response_id}", "resp_x").replace("{", "").replace("}", "")
                async with client.request(method, path.lstrip("/"), headers={ID: "mine"}) as answer:
                    assert answer.headers.getall(ID) == ["mine"], (method, path)
        async with client.ws_connect("v1/responses", headers={ID: "mine"}) as opened:
            assert opened._response.headers.getall(ID) == ["mine"]
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect("v1/responses", headers={ID: "mine", "Origin": "http://x"})
        assert caught.value.headers is not None
        assert caught.value.headers[ID] == "mine"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"what is this\r\n\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nExpect: a-miracle\r\n\r\n",
        b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
async def test_so_has_the_answer_to_what_is_no_request(
    tmp_path: Path, request_bytes: bytes
) -> None:
    async with api(tmp_path) as (client, _, _service):
        assert client._base_url is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", client._base_url.port)
        writer.write(request_bytes)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
        writer.close()
        assert head.lower().count("x-request-id: req_") == 1


async def test_a_page_of_another_origin_may_read_it(tmp_path: Path) -> None:
    server = ServerConfig(allowed_origins=("https://chat.example",))
    async with api(tmp_path, server=server) as (client, _, _service):
        answer = await client.get("health", headers={"Origin": "https://chat.example"})
        exposed = answer.headers["Access-Control-Expose-Headers"].lower()
        for name in ("x-request-id", "retry-after", "x-ratelimit-remaining-tokens"):
            assert name in exposed


async def test_all_lines_of_a_request_have_its_id_and_none_has_its_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], configured: None
) -> None:
    """Also those that a worker, a timer or the end of a response sets off."""
    async with api(tmp_path) as (client, worker, service):
        header = await stored_keys.added(tmp_path, service)
        capsys.readouterr()
        body = {"input": SECRET, "instructions": SECRET, **UNPACED}
        first = asyncio.create_task(
            client.post("v1/responses", json=body, headers={ID: "one", **header})
        )
        submit = await worker.next_submit()
        assert submit.x_request_id == "one"  # for the worker's own lines
        await worker.accept(submit)
        one = submit.request_id
        second = asyncio.create_task(
            client.post(
                "v1/chat/completions",
                json={"messages": [{"role": "user", "content": SECRET}], "stream": True},
                headers={ID: "two", **header},
            )
        )
        two = await accepted(worker)
        async with client.ws_connect("v1/responses", headers={ID: "three", **header}) as opened:
            await create(opened, input=SECRET)
            three = await accepted(worker)
            await opened.send_json({"type": SECRET, "input": SECRET})
            await receive(opened, "error")
            for request_id in (three, two, one):  # the worker's message sets off their ends
                await worker.tokens(request_id, 0, SECRET, finish=STOP)
            await receive(opened, "response.completed")
        await (await first).read()
        await (await second).read()
        bad = {"input": [{"role": SECRET}], "model": SECRET}
        await client.post("v1/responses", json=bad, headers={ID: "four", **header})
        await client.post("v1/messages", data=SECRET, headers={ID: "five", **header})
        await until(lambda: not service._running)
        lost = asyncio.create_task(
            client.post("v1/responses", json=body, headers={ID: "six", **header})
        )
        six = await accepted(worker)
        await worker.hang_up()
        await until(lambda: not service.cluster.instances)
        lost.cancel()
        text = header["Authorization"].removeprefix("Bearer ")
    logged = lines(capsys)
    names = {"one": one, "two": two, "three": three}
    for name, wire_id in names.items():
        of_response = [
            line for line in logged if line.get("request_id") == wire_id.partition("/")[0]
        ]
        events = {line["event"] for line in of_response}
        assert {"request_placed", "response_ended"} <= events
        assert {line["x_request_id"] for line in of_response} == {name}
    (suspended,) = [line for line in logged if line["event"] == "request_suspended"]
    assert (suspended["x_request_id"], suspended["request_id"]) == ("six", six.partition("/")[0])
    refused = [line for line in logged if line["event"] == "request_refused"]
    assert [line["x_request_id"] for line in refused] == ["three", "four", "five"]
    shown = json.dumps([line for line in logged if line.get("param") != SECRET])
    assert SECRET not in shown
    assert text not in shown
    assert text[18:] not in shown
