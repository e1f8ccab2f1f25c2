"""Headers that hold on every route: targets of the reader, and those for pages of other origins."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSServerHandshakeError

from gateway.app import make_app
from gateway.config import PacingConfig, ServerConfig
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.generation import default_targets
from tests.gateway.api.test_apis import api, create
from tests.gateway.api.test_cors import FOREIGN, PAGE, PREFLIGHT
from tests.gateway.support.scripted_service import serving
from workers.messages import Finish

HI = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "v1/chat/completions": {"messages": HI},
    "v1/completions": {"prompt": "hi"},
    "v1/messages": {"messages": HI, "max_tokens": 9},
    "v1/responses": {"input": "hi"},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", ["x-slo-tpot-ms", "x-llm-d-slo-tpot-ms"])
async def test_a_header_sets_the_pace_on_every_route_unless_the_body_does(
    tmp_path: Path, path: str, name: str
) -> None:
    async with api(tmp_path) as (client, worker, _):
        for fields, tau_s in (({}, 0.05), ({"pacing": {"tpot_s": 0.2}}, 0.2)):
            body = {**BODIES[path], "stream": True, **fields}
            posted = client.post(path, json=body, headers={name: "50"})
            asking = asyncio.create_task(posted)
            submit = await worker.next_submit()
            assert (submit.pace.tau_s, submit.pace.paced) == (tau_s, True)
            await worker.accept(submit)
            await worker.tokens(submit.request_id, 0, "x", finish=Finish(reason="stop"))
            await (await asking).text()


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", ["x-slo-ttft-ms", "x-llm-d-slo-tpot-ms"])
@pytest.mark.parametrize("value", ["0", "fast", "nan", "1e9", ""])
async def test_a_bad_value_is_refused_by_the_name_of_its_header(
    tmp_path: Path, path: str, name: str, value: str
) -> None:
    async with api(tmp_path) as (client, worker, _):
        answer = await client.post(path, json=BODIES[path], headers={name: value})
        error = (await answer.json())["error"]
        assert (answer.status, error["param"]) == (400, name)
        assert name in error["message"]
        assert worker.unread() == 0


async def test_headers_of_an_upgrade_hold_for_the_socket(tmp_path: Path) -> None:
    headers = {"x-llm-d-slo-tpot-ms": "40"}
    async with api(tmp_path) as (client, worker, _):
        async with client.ws_connect("v1/responses", headers=headers) as socket:
            await create(socket, pacing=True)
            assert (await worker.next_submit()).pace.tau_s == 0.04
        with pytest.raises(WSServerHandshakeError):
            await client.ws_connect("v1/responses", headers={"x-slo-tpot-ms": "x"})


def test_the_newer_name_wins_and_its_value_alone_counts() -> None:
    both = {"x-slo-ttft-ms": "1000", "x-llm-d-slo-ttft-ms": "2000", "x-slo-tpot-ms": "50"}
    targets = default_targets(PacingConfig(), both)
    assert (targets.ttft_s, targets.tpot_s) == (2.0, 0.05)
    assert default_targets(PacingConfig(), {**both, "x-slo-ttft-ms": "?"}).ttft_s == 2.0
    with pytest.raises(InvalidRequest) as caught:
        default_targets(PacingConfig(), {**both, "x-llm-d-slo-ttft-ms": "?"})
    assert caught.value.param == "x-llm-d-slo-ttft-ms"


async def routes_of(folder: Path) -> set[tuple[str, str]]:
    """Every method and path of the API, with made-up names."""
    async with serving(folder) as (service, _):
        return {
            (route.method, route.resource.canonical.replace("{", "").replace("}", ""))
            for route in make_app(service).router.routes()
            if route.resource is not None and route.method != "HEAD"
        }


async def test_pages_of_allowed_origins_are_let_in_on_every_route_and_no_others(
    tmp_path: Path,
) -> None:
    routes = await routes_of(tmp_path)
    assert {("POST", f"/{path}") for path in BODIES} <= routes
    assert {("POST", "/tokenize"), ("POST", "/detokenize"), ("GET", "/version")} <= routes
    server = ServerConfig(allowed_origins=(PAGE,))
    (tmp_path / "second").mkdir()
    async with api(tmp_path / "second", server=server) as (client, _, _service):
        for method, path in sorted(routes):
            ask = {**PREFLIGHT, "Access-Control-Request-Method": method}
            answer = await client.options(path, headers={"Origin": PAGE, **ask})
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, PAGE)
            assert method in answer.headers["Access-Control-Allow-Methods"].split(", ")
            answer = await client.options(path, headers={"Origin": FOREIGN, **ask})
            assert answer.status == 403
            assert not [name for name in answer.headers if name.startswith("Access-Control-")]
        for path in BODIES:
            answer = await client.post(path, json={}, headers={"Origin": PAGE})
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (400, PAGE)
            assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
            answer = await client.post(path, json={}, headers={"Origin": FOREIGN})
            assert answer.status == 403
