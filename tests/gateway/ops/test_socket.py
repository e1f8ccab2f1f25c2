"""The WebSocket of the operations page: who may open it, and what it sends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError

from gateway.api.documents.frames import OperationsFrame
from gateway.app import make_runner, make_site
from gateway.config import ServerConfig
from gateway.ops import hub as hub_module
from gateway.ops.asks import Asked
from gateway.ops.hub import MOST_VIEWERS
from gateway.ops.socket import HUB
from gateway.service import ResponseService
from tests.gateway.support.scripted_service import ended, serving, start, until
from tests.gateway.support.scripted_worker import ScriptedWorker
from workers.messages import Finish

STREAM: dict[str, Any] = {"stream": True, "pacing": {"tpot_s": 5.0}, "input": "a secret question"}
SECRET = "wombat"  # of the answers


@asynccontextmanager
async def gateway(
    folder: Path, **tables: Any
) -> AsyncIterator[tuple[ClientSession, ResponseService, ScriptedWorker, Any]]:
    async with serving(folder, "worker-0", **tables) as (service, workers):
        runner = make_runner(service)
        await runner.setup()
        await make_site(runner, "127.0.0.1", 0).start()
        try:
            async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}/") as client:
                yield client, service, workers["worker-0"], runner.app[HUB]
        finally:
            await runner.cleanup()


async def frames_until(socket: ClientWebSocketResponse, type_: str) -> list[dict[str, Any]]:
    """The frames up to the next one of this type; each must be as the document says."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while not found or found[-1]["type"] != type_:
            message = await socket.receive()
            assert message.type is WSMsgType.TEXT, message
            assert SECRET not in message.data
            assert "secret question" not in message.data
            msgspec.json.decode(message.data, type=OperationsFrame, strict=True)
            found.append(orjson.loads(message.data))
    return found


async def test_what_a_viewer_gets(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (client, service, worker, _):
        session, name = await start(service, worker, reasoning=True, **STREAM)
        async with client.ws_connect("/admin/ops") as socket:
            before = await frames_until(socket, "requests")
            assert [frame["type"] for frame in before] == [
                "hello",
                "history",
                "instances",
                "requests",
            ]
            hello, history, instances, requests = before
            assert hello["protocol"] == 1
            assert hello["model"] == service.config.served_model_name
            assert len(history["rows"][0]) == 1 + len(hello["columns"])
            (row,) = instances["rows"]
            assert dict(zip(hello["instance_columns"], row, strict=True))["name"] == "worker-0"
            assert requests == {"type": "requests", "first": True, "rows": [[1, 0, 0, 0, None]]}
            await worker.tokens(name, 0, SECRET, "end", boundary=1)
            await worker.tokens(name, 2, SECRET, finish=Finish(reason="stop"))
            await ended(session)
            events = (await frames_until(socket, "events"))[-1]["rows"]
            while events[-1][0] != "ended":
                events += (await frames_until(socket, "events"))[-1]["rows"]
            assert events[-1] == ["ended", 1, "completed"]
            last = (await frames_until(socket, "second"))[-1]
            row = dict(zip(["at", *hello["columns"]], last["row"], strict=True))
            assert row["queued"] == 0
            assert row["ttft_p50_s"] > 0
            assert (row["serving"], row["instances"]) == (1, 1)


async def test_totals_are_those_of_the_metrics(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path) as (client, service, worker, _),
        client.ws_connect("/admin/ops") as socket,
    ):
        await frames_until(socket, "requests")
        for count in range(1, 4):
            session, name = await start(service, worker, reasoning=True, **STREAM)
            await worker.tokens(name, 0, *["t"] * count, "end", boundary=count)
            await worker.tokens(name, count + 1, "a", finish=Finish(reason="stop"))
            await ended(session)
        await frames_until(socket, "second")
        totals = (await frames_until(socket, "second"))[-1]["totals"]
        async with client.get("/metrics") as response:
            text = await response.text()

        def value(name: str) -> int:
            found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
            assert found is not None, name
            return int(float(found[1]))

        for kind in ("reasoning", "answering", "calling"):
            metric = f'pascal_tokens_generated_total{{kind="{kind}"}}'
            assert totals[f"{kind}_tokens"] == value(metric)
        assert totals["reasoning_tokens"] == 2 + 3 + 4
        assert totals["released_tokens"] == value("pascal_tokens_released_total") == 3
        assert totals["responses"]["completed"] == 3
        for status, count in totals["responses"].items():
            assert value(f'pascal_responses_total{{status="{status}"}}') == count
        assert totals["preempted"] == value('pascal_preemptions_total{instance="worker-0"}')
        assert totals["moved"] == value('pascal_migrations_total{outcome="moved"}')
        assert totals["slo_violations"] == value("pascal_slo_violations_total")


async def test_nothing_happens_before_the_first_viewer(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (client, _, _, hub):
        assert hub._task is None
        async with client.ws_connect("/admin/ops") as socket:
            await frames_until(socket, "second")
        await until(lambda: not hub.viewers)
        rows = len(hub.history)
        async with client.ws_connect("/admin/ops") as again:  # a page that is loaded again
            (history,) = (
                frame for frame in await frames_until(again, "history") if "rows" in frame
            )
        assert len(history["rows"]) >= rows >= 1


async def test_a_viewer_who_takes_nothing_gets_a_keyframe_later_and_delays_nobody(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path) as (client, service, worker, hub):

        class Stuck:
            behind = False
            full = False

            def __init__(self) -> None:
                self.asked = Asked()
                self.got: list[dict[str, Any]] = []

            def send(self, data: bytes) -> None:
                assert not self.full
                self.got.append(orjson.loads(data))

        stuck = Stuck()
        hub.add(stuck)
        await until(lambda: any(frame["type"] == "readers" for frame in stuck.got))
        stuck.full = True
        count = len(stuck.got)
        session, _ = await start(service, worker, **STREAM)
        async with client.ws_connect("/admin/ops") as socket:
            await frames_until(socket, "second")
            assert stuck.behind
            assert len(stuck.got) == count
            stuck.full = False
            await until(lambda: not stuck.behind)
            await until(lambda: len(stuck.got) > count)
            assert stuck.got[count]["type"] == "requests"
            assert [row[0] for row in stuck.got[count]["rows"]] == [1]
        hub.remove(stuck)
        service.cancel(session)


async def test_a_viewer_who_leaves_while_it_is_welcomed_leaves_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_SLICE_S", 0.0)  # the hub rests wherever it may
    async with gateway(tmp_path) as (client, _, _, hub):

        class Hasty:
            behind = full = False

            def __init__(self) -> None:
                self.asked = Asked()

            def send(self, data: bytes) -> None:
                if orjson.loads(data)["type"] == "hello":
                    asyncio.get_running_loop().call_soon(hub.remove, self)
                    left.append(self)

        left: list[Hasty] = []
        for _ in range(MOST_VIEWERS):
            hub.add(Hasty())
        await until(lambda: len(left) == MOST_VIEWERS)
        await until(lambda: not hub.viewers and not hub._new)
        async with client.ws_connect("/admin/ops") as socket:
            await frames_until(socket, "requests")
            assert len(hub.viewers) == 1


async def test_viewers_are_bounded(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (client, _, _, hub):
        sockets = [await client.ws_connect("/admin/ops") for _ in range(MOST_VIEWERS)]
        with pytest.raises(WSServerHandshakeError) as caught:
            await client.ws_connect("/admin/ops")
        assert caught.value.status == 429
        await sockets.pop().close()
        await until(lambda: hub.room)
        sockets.append(await client.ws_connect("/admin/ops"))
        for socket in sockets:
            await socket.close()


async def test_a_key_with_the_scope_is_needed_and_a_plain_get_is_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path, server=ServerConfig(api_keys=("key",))) as (client, *_):
        with pytest.raises(WSServerHandshakeError) as caught:
            await client.ws_connect("/admin/ops")
        assert caught.value.status == 401
        protocols = ("operations", "openai-insecure-api-key.key")
        async with client.ws_connect("/admin/ops", protocols=protocols) as socket:
            assert socket.protocol == "operations"
            assert (await frames_until(socket, "hello"))[-1]["protocol"] == 1
        headers = {"Authorization": "Bearer key"}
        async with client.get("/admin/ops", headers=headers) as response:
            assert response.status == 400
            assert (await response.json())["error"]["param"] == "Upgrade"


async def test_without_keys_only_this_machine_may_look(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (client, *_):
        with pytest.raises(WSServerHandshakeError) as caught:
            await client.ws_connect("/admin/ops", headers={"X-Forwarded-For": "192.0.2.1"})
        assert caught.value.status == 403


async def test_a_shutdown_closes_the_sockets(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, _):
        runner = make_runner(service)
        await runner.setup()
        await make_site(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with ClientSession(address) as client, client.ws_connect("/admin/ops") as socket:
            await frames_until(socket, "hello")
            closing = asyncio.create_task(runner.cleanup())
            async with asyncio.timeout(10):
                while (message := await socket.receive()).type is WSMsgType.TEXT:
                    pass
            assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)
            assert socket.close_code == 1001
            await closing


async def test_each_choice_is_marked_at_once(tmp_path: Path) -> None:
    """Also two within a second."""
    async with gateway(tmp_path) as (client, service, _, hub):
        async with client.ws_connect("admin/ops") as socket:
            await frames_until(socket, "requests")
            service.cluster.policies.set("fcfs")
            service.cluster.policies.set("rr")
            service.cluster.boundary.set("off")
            texts = [(await frames_until(socket, "note"))[-1]["text"] for _ in range(3)]
        assert texts == ["policy slack → fcfs", "policy fcfs → rr", "boundary balance → off"]
        assert [note["choice"] for note in hub.notes] == [True] * 3


async def test_a_fault_does_not_end_what_viewers_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_AGAIN_S", 0.01)
    async with gateway(tmp_path) as (client, _, _, hub), client.ws_connect("admin/ops") as socket:
        await frames_until(socket, "second")
        real, calls = hub._answer, 0

        async def broken(*args: Any, **options: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise KeyError("a bug")
            await real(*args, **options)

        monkeypatch.setattr(hub, "_answer", broken)
        await frames_until(socket, "hello")  # it begins anew
        await frames_until(socket, "second")
        assert len(hub.viewers) == 1
