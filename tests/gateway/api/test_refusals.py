"""Each refusal leaves one line in the log, with the cause and nothing private."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.config import LimitsConfig, ServerConfig
from tests.gateway.api.test_apis import accepted, api, key, receive
from workers.messages import Finish

TABLES = {
    "server": ServerConfig(api_keys=("alice-key",), max_message_bytes=1000),
    "limits": LimitsConfig(max_requests_per_user=1),
}
RESPONSES = "/v1/responses"
SECRET = "the-prompt-of-the-user"


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "expected"),
    [
        ("POST", RESPONSES, {"input": SECRET, "tempo": 1}, {}, (400, "unknown_parameter", "tempo")),
        ("POST", RESPONSES, {"input": SECRET, "top_p": 7}, {}, (400, "invalid_value", "top_p")),
        (
            "POST",
            RESPONSES,
            {"input": SECRET, "a\n\x1b[2J\u2028": 1},
            {},
            (400, "unknown_parameter", "a??[2J?"),
        ),
        ("POST", RESPONSES, {"input": SECRET * 100}, {}, (413, "request_too_large", None)),
        (
            "POST",
            RESPONSES,
            {"input": SECRET},
            {"Content-Encoding": "x-mine"},
            (415, "unsupported_content_encoding", "Content-Encoding"),
        ),
        (
            "POST",
            RESPONSES,
            {},
            key("eve-key"),
            (401, "invalid_api_key", None),
        ),
        (
            "GET",
            "/v1/models",
            None,
            {"Origin": "http://evil.example"},
            (403, "forbidden_origin", None),
        ),
        ("GET", "/v1/responses/resp_x", None, {}, (404, "response_not_found", "response_id")),
        ("GET", "/v1/a%0Ab", None, {}, (404, "no_such_route", None)),
        ("PUT", "/v1/models", None, {}, (405, "http_error", None)),
    ],
)
async def test_one_line_for_each_refusal(
    tmp_path: Path,
    method: str,
    path: str,
    body: Any,
    headers: dict[str, str],
    expected: tuple[int, str, str | None],
) -> None:
    async with api(tmp_path, **TABLES) as (client, _, service):
        with capture_logs() as lines:
            answer = await client.request(
                method, path, json=body, headers={**key("alice-key"), **headers}
            )
            await answer.read()
        counted = f'pascal_refused_total{{code="{expected[1]}"}} 1.0\n'
        assert counted in service.metrics.render().decode()
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("request_refused", "info")
    assert (line["method"], line["path"]) == (method, path)
    assert (line["status"], line["code"], line["param"]) == expected
    assert answer.status == expected[0]
    assert (await answer.json())["error"]["type"] != "server_error"
    for secret in (SECRET, "alice-key", "eve-key"):
        assert secret not in str(lines)


async def test_one_line_for_who_has_too_many(tmp_path: Path) -> None:
    async with api(tmp_path, **TABLES) as (client, worker, _):
        post: dict[str, Any] = {"json": {"input": SECRET}, "headers": key("alice-key")}
        asking = asyncio.create_task(client.post(RESPONSES, **post))
        request_id = await accepted(worker)
        with capture_logs() as lines:
            answer = await client.post(RESPONSES, **post)
        assert answer.status == 429
        assert answer.headers["Retry-After"] == "2"
        assert [(line["status"], line["path"]) for line in lines] == [(429, RESPONSES)]
        await worker.tokens(request_id, 0, "a", finish=Finish(reason="stop"))
        await asking


@pytest.mark.parametrize("path", ["v1/responses", "v1/chat/completions", "v1/messages"])
async def test_who_finds_no_instance_is_told_when_to_come_again(tmp_path: Path, path: str) -> None:
    """Without it, Codex gives up after 25 s, before a restarted instance serves."""
    said = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
    async with api(tmp_path, limits=LimitsConfig(retry_after_s=7)) as (client, _, service):
        service.cluster.drain("worker-0")
        answer = await client.post(path, json={"input": "x"} if "responses" in path else said)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")


async def test_one_line_for_each_event_of_a_socket_that_is_refused(tmp_path: Path) -> None:
    async with (
        api(tmp_path, **TABLES) as (client, _, _service),
        client.ws_connect(RESPONSES, headers=key("alice-key")) as socket,
    ):
        with capture_logs() as lines:
            for message, code in (
                ("{" + SECRET, "invalid_json"),
                (json.dumps({"type": "response.dance"}), "unknown_event_type"),
                (json.dumps({"type": "response.create", "input": "x", "tempo": 1}), None),
                (json.dumps({"type": "response.cancel", "response_id": "resp_x"}), None),
                (json.dumps({"type": "response.create", "model": "m", "input": "x"}), None),
                ("x" * 2000, "request_too_large"),
            ):
                await socket.send_str(message)
                error = await receive(socket, "error")
                assert code in (None, error["error"]["code"])
            await socket.send_bytes(b"binary")
            await receive(socket, "error")
    refused = [line for line in lines if line["event"] == "request_refused"]
    assert [(line["status"], line["param"]) for line in refused] == [
        (400, None),
        (400, "type"),
        (400, "tempo"),
        (404, "response_id"),
        (404, "model"),
        (413, None),
        (400, None),
    ]
    assert {(line["method"], line["path"]) for line in refused} == {("WEBSOCKET", RESPONSES)}
    assert SECRET not in str(lines)


async def test_who_has_no_key_learns_how_to_show_one(tmp_path: Path) -> None:
    async with api(tmp_path, **TABLES) as (client, _, _service):
        for method, path in (("GET", "/v1/models"), ("POST", RESPONSES), ("GET", RESPONSES)):
            answer = await client.request(method, path)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "WWW-Authenticate" not in (await client.get("/v1/nothing")).headers


async def test_the_line_is_short_however_long_the_path(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _, _service):
        with capture_logs() as lines:
            await (await client.get("/v1/" + "x" * 5000)).read()
    assert [len(line["path"]) for line in lines] == [200]
