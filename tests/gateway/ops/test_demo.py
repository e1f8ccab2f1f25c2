"""``/admin/demo``: who has it, what it refuses, what it marks on the charts, and its child."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.config import LauncherConfig, ServerConfig
from gateway.ops.demo.load import DemoLoad
from tests.gateway.ops.test_socket import frames_until, gateway
from tests.gateway.support.scripted_service import until
from tests.support.server import ROOT, is_alive

SAYS = """
import json, sys
for line in sys.stdin:
    print("no JSON", flush=True)
    print(json.dumps({"level": line.strip(), "running": 3, "completed": 2}), flush=True)
"""


def server(folder: Path, **fields: Any) -> ServerConfig:
    return ServerConfig(**{"state_dir": str(folder), "demo": "off", **fields})


async def test_a_gateway_that_is_no_demonstration_has_none(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (client, _, _, _):
        for answer in (
            await client.get("/admin/demo"),
            await client.post("/admin/demo", json={"load": "calm"}),
        ):
            error = (await answer.json())["error"]
            assert (answer.status, error["code"]) == (404, "not_a_demo")
            assert "`pascal demo`" in error["message"]
        async with client.ws_connect("/admin/ops") as socket:
            assert (await frames_until(socket, "hello"))[-1]["demo"] is False


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "load"),
        ({"load": "heavy"}, "load"),
        ({"load": 3}, "load"),
        ({"speed": 1}, "speed"),
        ({"kill": ["worker-0"]}, "kill"),
    ],
)
async def test_a_wrong_body_names_the_field(tmp_path: Path, body: Any, param: str) -> None:
    async with gateway(tmp_path, server=server(tmp_path)) as (client, _, _, _):
        async with client.post("/admin/demo", json=body) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["param"]) == (400, param)
        assert (await (await client.get("/admin/demo")).json())["load"] == "off"


async def test_only_workers_of_this_machine_are_killed(tmp_path: Path) -> None:
    tables = {"server": server(tmp_path), "launcher": LauncherConfig(kind="static")}
    async with gateway(tmp_path, **tables) as (client, _, _, _):
        for name, status, code in (
            ("worker-0", 409, "not_restartable"),
            ("worker-9", 404, "instance_not_found"),
        ):
            async with client.post("/admin/demo", json={"kill": name}) as answer:
                assert answer.status == status
                assert (await answer.json())["error"]["code"] == code


async def test_a_key_for_looking_only_looks(tmp_path: Path) -> None:
    async with gateway(tmp_path, server=server(tmp_path, api_keys=("k",))) as (client, _, _, _):
        assert (await client.get("/admin/demo")).status == 401
        assert (await client.post("/admin/demo", json={"load": "calm"})).status == 401
        key = {"Authorization": "Bearer k"}
        assert (await client.get("/admin/demo", headers=key)).status == 200


async def test_a_change_of_the_load_is_marked_on_the_charts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ops.demo.load._COMMAND", ("-c", SAYS))
    async with (
        gateway(tmp_path, server=server(tmp_path)) as (client, _, _, _),
        client.ws_connect("/admin/ops") as socket,
    ):
        assert (await frames_until(socket, "second"))[0]["demo"] is True
        for level in ("busy", "busy", "off"):
            async with client.post("/admin/demo", json={"load": level}) as answer:
                assert (await answer.json())["load"] == level
        notes = [(await frames_until(socket, "note"))[-1]["text"] for _ in range(2)]
        assert notes == ["load off → busy", "load busy → off"]


async def test_the_child_follows_the_level_and_ends(tmp_path: Path) -> None:
    load = DemoLoad(tmp_path / "logs" / "load.log", command=("-c", SAYS))
    try:
        load.set("calm", "http://127.0.0.1:9")
        await until(lambda: load.told.level == "calm")
        assert (load.told.running, load.told.completed) == (3, 2)
        load.set("pressure", "http://127.0.0.1:9")
        await until(lambda: load.told.level == "pressure")
        assert load.pid is not None
    finally:
        await load.close()
    ended: tuple[object, object] = (load.pid, load.level)
    assert ended == (None, "off")


async def test_a_child_that_does_not_end_by_itself_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ops.demo.load._END_S", 0.05)
    hangs = "import json, time; print(json.dumps({'level': 'calm'}), flush=True); time.sleep(600)"
    load = DemoLoad(tmp_path / "load.log", command=("-c", hangs))
    load.set("calm", "http://127.0.0.1:9")
    await until(lambda: load.told.level == "calm")
    await asyncio.wait_for(load.close(), 10)
    assert load.pid is None


async def test_a_child_that_cannot_run_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ops.demo.load._PAUSE_S", 0.01)
    load = DemoLoad(tmp_path / "load.log", command=("-c", "import sys; sys.exit('no luck')"))
    load.set("calm", "http://127.0.0.1:9")
    await until(lambda: load.error)
    assert load.level == "off"
    assert load.error == f"The load generator ended with 1; see {tmp_path / 'load.log'}."
    assert (tmp_path / "load.log").read_text().strip() == "no luck"
    load.set("calm", "http://127.0.0.1:9")
    forgotten: object = load.error
    assert forgotten is None
    await load.close()


async def test_the_load_ends_with_a_gateway_that_is_killed(tmp_path: Path) -> None:
    gateway = """
import asyncio, pathlib, sys
from gateway.ops.demo.load import DemoLoad
async def main():
    load = DemoLoad(pathlib.Path(sys.argv[1]))
    load.set("busy", "http://127.0.0.1:9")
    while load.pid is None:
        await asyncio.sleep(0.01)
    print("pid", load.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", gateway, str(tmp_path / "load.log")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while not (line := await process.stdout.readline()).startswith(b"pid "):
            assert line  # what it logs
    pid = int(line.split()[1])
    assert is_alive(pid)
    process.kill()
    await process.wait()
    async with asyncio.timeout(60):
        while True:
            if not is_alive(pid):
                break
            await asyncio.sleep(0.05)
