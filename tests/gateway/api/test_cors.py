"""Pages of allowed origins may use the API from a browser; pages of others may not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.api import cors
from gateway.api.auth import ForbiddenOrigin
from gateway.config import ServerConfig
from tests.gateway.api.test_apis import UNPACED, accepted, api
from workers.messages import Finish

PAGE, FOREIGN = "http://localhost:3000", "http://evil.example"
ALLOWED = ServerConfig(allowed_origins=(PAGE,))
ALL = ServerConfig(allowed_origins=("*",), api_keys=("alice",))
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
}


def of_cors(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("Access-Control-")}


async def test_a_page_of_an_allowed_origin_reads_every_response(tmp_path: Path) -> None:
    async with api(tmp_path, server=ALLOWED) as (client, worker, _):
        headers = {"Origin": PAGE}
        answer = await client.options("/v1/chat/completions", headers={**headers, **PREFLIGHT})
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        allowed = answer.headers["Access-Control-Allow-Headers"].lower()
        assert {"authorization", "content-type", "x-stainless-os"} == {*allowed.split(", ")}

        body = {"input": "hi", "stream": True, **UNPACED}
        asking = asyncio.create_task(client.post("/v1/responses", json=body, headers=headers))
        await worker.tokens(await accepted(worker), 0, "a", finish=Finish(reason="stop"))
        answers: list[Any] = [
            await asking,
            await client.get("/v1/models", headers=headers),
            await client.post("/v1/responses", json={}, headers=headers),
            await client.get("/v1/nothing", headers=headers),
            await client.put("/v1/models", headers=headers),
        ]
        assert [answer.status for answer in answers] == [200, 200, 400, 404, 405]
        for answer in answers:
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
            assert answer.headers["Vary"] == "Origin"
            assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_a_page_of_another_origin_reads_none(tmp_path: Path) -> None:
    async with api(tmp_path, server=ALLOWED) as (client, _, _service):
        headers = {"Origin": FOREIGN}
        answer = await client.options("/v1/models", headers={**headers, **PREFLIGHT})
        assert (answer.status, of_cors(answer.headers)) == (403, {})
        assert (await answer.json())["error"]["code"] == "forbidden_origin"
        for path, status in (("/v1/models", 403), ("/health", 200), ("/v1/nothing", 404)):
            answer = await client.get(path, headers=headers)
            assert (answer.status, of_cors(answer.headers)) == (status, {})
            assert answer.headers["Vary"] == "Origin"  # no cache gives it to a page that may read


async def test_without_the_setting_there_is_no_cors(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _, _service):
        answer = await client.options("/v1/models", headers={"Origin": PAGE, **PREFLIGHT})
        assert (answer.status, of_cors(answer.headers)) == (403, {})
        answer = await client.get("/health", headers={"Origin": PAGE})
        assert of_cors(answer.headers) == {}
        assert "Vary" not in answer.headers
        for headers in ({}, PREFLIGHT):  # no browser asks like this
            assert (await client.options("/v1/models", headers=headers)).status == 405


async def test_a_star_allows_all_and_the_key_is_still_asked_for(tmp_path: Path) -> None:
    async with api(tmp_path, server=ALL) as (client, _, _service):
        headers = {"Origin": FOREIGN}
        answer = await client.options("/v1/models", headers={**headers, **PREFLIGHT})
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, "*")
        answer = await client.get("/v1/models", headers=headers)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, "*")
        answer = await client.get(
            "/v1/models", headers={**headers, "Authorization": "Bearer alice"}
        )
        assert answer.status == 200


def test_only_names_of_headers_are_repeated() -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Headers": "x-a, b c, \udcff, x-d"}
    assert cors.allow_request(ALLOWED, asked)["Access-Control-Allow-Headers"] == "x-a, x-d"
    assert "Access-Control-Allow-Headers" not in cors.allow_request(ALLOWED, {"Origin": PAGE})


@pytest.mark.parametrize("origin", ["null", PAGE + "/", PAGE.upper(), "\udcff"])
def test_an_origin_must_be_the_same(origin: str) -> None:
    assert of_cors(cors.allow_origin(ALLOWED, {"Origin": origin})) == {}
    with pytest.raises(ForbiddenOrigin):
        cors.allow_request(ALLOWED, {"Origin": origin})
