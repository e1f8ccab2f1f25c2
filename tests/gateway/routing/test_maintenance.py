"""Draining and restarting instances, by the operator's routes and commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from gateway.api import admin
from gateway.api.http import SERVICE
from gateway.app import make_app, make_runner
from gateway.config import PlacementConfig, ServerConfig
from gateway.schemas.errors import Forbidden
from pascal import main
from tests.gateway.support.scene import Play, play
from tests.gateway.support.scripted_engine import ANSWER
from tests.gateway.support.scripted_service import ended, until

STAY = PlacementConfig(boundary="off")


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Import what a command needs before its first call, which would otherwise take too long."""
    with pytest.raises(SystemExit):
        main.main(["--version"])


class Launcher:
    """Restarts scripted workers."""

    restartable = True

    def __init__(self, playing: Play, names: Collection[str]) -> None:
        self.restart_timeout_s = 30.0
        self.names = names
        self.restarted: list[str] = []
        self._playing = playing
        self._tasks: set[asyncio.Task[None]] = set()

    def restart(self, instance_id: str) -> None:
        self.restarted.append(instance_id)
        self._tasks.add(asyncio.create_task(self._restart(instance_id)))

    async def _restart(self, name: str) -> None:
        await self._playing.scene.lose(name)
        await self._playing.scene.join(name, movable=True)
        self._playing.act(name)


@asynccontextmanager
async def gateway(
    folder: Path, **tables: Any
) -> AsyncIterator[tuple[Play, Launcher, str, aiohttp.ClientSession]]:
    async with play(folder, "a", "b", placement=STAY, **tables) as playing:
        launcher = Launcher(playing, ("a", "b", "c"))
        playing.service.maintenance.launcher = launcher
        runner = make_runner(playing.service)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession(url) as client:
                yield playing, launcher, url, client
        finally:
            await runner.cleanup()


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The output of a command, without the gateway's log."""
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.startswith(("a: ", "b: "))]


async def command(*arguments: str) -> int:
    return await asyncio.to_thread(main.main, list(arguments))


async def test_drain_says_how_far_it_is_and_undrain_takes_it_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway(tmp_path) as (playing, _, url, client):
        a, b = playing.actors["a"], playing.actors["b"]
        a.holding |= {"generate", "hand over"}
        a.until_place = 2
        session = await playing.start()
        await until(lambda: len(session.token_ids) == 2)
        draining = asyncio.create_task(command("drain", "a", f"--base-url={url}"))
        await until(lambda: a.asked_for)
        async with client.get("/admin/instances") as answer:
            described = {one["id"]: one for one in (await answer.json())["instances"]}
        assert (described["a"]["state"], described["a"]["requests"]) == ("draining", 1)
        assert (described["b"]["state"], described["c"]["state"]) == ("serving", "absent")
        assert not draining.done()
        playing.release()
        assert await draining == 0
        printed = said(capsys)
        assert printed[0] == "a: draining, 1 request left"
        assert printed[-1] == "a: drained"
        await ended(session)
        assert session.answer_text == ANSWER
        assert len(b.submits) == 1
        assert await command("undrain", "a", f"--base-url={url}") == 0
        assert said(capsys) == ["a: serving"]
        session = await playing.start()
        assert session.instance_id == "a"
        await ended(session)


async def test_a_rolling_restart_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway(tmp_path) as (playing, launcher, url, _):
        for actor in playing.actors.values():
            actor.holding |= {"generate"}
            actor.until_place = 3
        sessions = [await playing.start() for _ in range(4)]
        await until(lambda: all(len(session.token_ids) == 3 for session in sessions))
        for actor in playing.actors.values():
            actor.until_place = 5
        before = dict(playing.cluster.instances)
        status = await command("drain", "a", "b", "--restart", f"--base-url={url}")
        assert status == 0
        assert launcher.restarted == ["a", "b"]
        assert all(playing.cluster.instances[name] is not before[name] for name in "ab")
        assert playing.cluster.drained == set()
        assert said(capsys)[-1] == "b: serving"
        playing.release()
        for session in sessions:
            await ended(session)
            assert (session.answer_text, session.failovers) == (ANSWER, 0)
            assert session.migrations >= 1


async def test_what_cannot_be_drained_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway(tmp_path) as (playing, launcher, url, client):
        assert await command("drain", "worker-9", f"--base-url={url}") == 1
        message = "pascal: There is no instance 'worker-9'; known: a, b, c.\n"
        assert capsys.readouterr().err == message
        launcher.names = ("a",)
        assert await command("drain", "b", "--restart", f"--base-url={url}") == 1
        assert "cannot be restarted from here" in capsys.readouterr().err
        launcher.restartable = False
        assert await command("drain", "a", "--restart", f"--base-url={url}") == 1
        assert "cannot be restarted from here" in capsys.readouterr().err
        assert playing.cluster.drained == set()
        async with client.post("/admin/instances/a/drain", json={"now": True}) as answer:
            assert answer.status == 400
        assert await command("undrain", "a", "--base-url=http://127.0.0.1:1") == 1
        assert "no gateway answers" in capsys.readouterr().err


async def test_draining_asks_for_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ServerConfig(api_keys=("secret",))
    async with gateway(tmp_path, server=server) as (playing, _, url, client):
        async with client.get("/admin/instances") as answer:
            assert answer.status == 401
        assert await command("drain", "a", f"--base-url={url}") == 1
        assert "API key" in capsys.readouterr().err
        assert playing.cluster.drained == set()
        assert await command("drain", "a", f"--base-url={url}", "--api-key=secret") == 0
        assert playing.cluster.drained == {"a"}


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.7", False)],
)
async def test_without_keys_only_the_own_machine_may(
    tmp_path: Path, peer: str, allowed: bool
) -> None:
    headers = {"Host": "127.0.0.1:8080"}
    async with play(tmp_path, "a", placement=STAY) as playing:
        app = make_app(playing.service)
        assert app[SERVICE] is playing.service
        asked = make_mocked_request("GET", "/admin/instances", headers, app=app)
        request = asked.clone(remote=peer)
        if allowed:
            assert (await admin.list_instances(request)).status == 200
        else:
            with pytest.raises(Forbidden):
                await admin.list_instances(request)


async def test_without_keys_nobody_may_through_a_proxy_on_the_same_machine(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (playing, _, _url, client):
        for headers in ({"X-Forwarded-For": "203.0.113.9"}, {"Host": "chat.example"}):
            async with client.post("/admin/instances/a/drain", headers=headers) as answer:
                assert answer.status == 403
                assert (await answer.json())["error"]["code"] == "local_only"
        assert playing.cluster.drained == set()


async def test_with_a_key_everybody_may_who_has_it(tmp_path: Path) -> None:
    server = ServerConfig(api_keys=("secret",))
    headers = {"X-Forwarded-For": "203.0.113.9", "Authorization": "Bearer secret"}
    async with (
        gateway(tmp_path, server=server) as (_playing, _, _url, client),
        client.get("/admin/instances", headers=headers) as answer,
    ):
        assert answer.status == 200


@pytest.mark.parametrize("ends", [True, False])
async def test_a_restart_that_never_comes_back_ends_with_an_error(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ends: bool,
) -> None:
    """Whether the old process does not end or no new one comes."""
    async with gateway(tmp_path) as (playing, launcher, url, client):
        launcher.restart_timeout_s = 0.3

        async def restart(name: str) -> None:
            if ends:
                await playing.scene.lose(name)

        monkeypatch.setattr(launcher, "_restart", restart)
        async with asyncio.timeout(30):
            status = await command("drain", "a", "--restart", f"--base-url={url}")
        assert status == 1
        message = "pascal: Instance 'a' was not restarted: it did not come back within 0 s.\n"
        assert capsys.readouterr().err == message
        async with client.get("/admin/instances/a") as answer:
            described = await answer.json()
        # One that did not end serves on; one that comes back later serves.
        assert described["state"] == ("absent" if ends else "serving")
        assert "was not restarted" in described["error"]
        assert playing.cluster.drained == set()
        monkeypatch.undo()
        if ends:
            await playing.scene.join("a", movable=True)
            playing.act("a")
        launcher.restart_timeout_s = 30.0
        assert await command("drain", "a", "--restart", f"--base-url={url}") == 0
        async with client.get("/admin/instances/a") as answer:
            described = await answer.json()
        assert (described["state"], described["error"]) == ("serving", None)


async def test_a_launcher_that_fails_to_restart_is_an_error_of_that_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str) -> None:
        raise KeyError("a bug")

    async with gateway(tmp_path) as (playing, launcher, url, _):
        monkeypatch.setattr(launcher, "restart", broken)
        assert await command("drain", "a", "--restart", f"--base-url={url}") == 1
        assert "internal error, see the gateway's log" in capsys.readouterr().err
        assert playing.cluster.drained == set()


async def test_a_restart_that_is_taken_back_before_it_begins_is_not_made(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (playing, launcher, _, _client):
        a, maintenance = playing.actors["a"], playing.service.maintenance
        a.holding |= {"generate", "hand over"}
        a.until_place = 2
        session = await playing.start()
        await until(lambda: len(session.token_ids) == 2)
        maintenance.drain("a", restart=True)
        await until(lambda: a.asked_for)
        maintenance.undrain("a")
        await until(lambda: not maintenance._restarts)
        assert launcher.restarted == []
        playing.release()
        await ended(session)


async def test_the_policy_changes_everywhere_and_for_those_that_join_later(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (playing, _, _url, client):
        workers = playing.scene.workers
        async with client.get("/admin/policy") as answer:
            assert await answer.json() == {
                "policy": None,
                "instances": [
                    {"id": name, "policy": "slack", "pending": False, "error": None}
                    for name in "ab"
                ],
            }
        workers["b"].keeps_policy = True
        async with client.post("/admin/policy", json={"policy": "rr"}) as answer:
            described = await answer.json()
        assert described["policy"] == "rr"
        assert [(one["policy"], one["error"]) for one in described["instances"]] == [
            ("rr", None),
            ("slack", "it stays"),
        ]
        await playing.scene.join("c", movable=True)
        policies = playing.service.cluster.policies
        await policies.settled()
        assert [one["policy"] for one in policies.describe()["instances"]] == ["rr", "slack", "rr"]
        async with client.post("/admin/policy", json={"policy": "slack"}) as answer:
            assert {one["policy"] for one in (await answer.json())["instances"]} == {"slack"}
        assert workers["a"].policies == ["rr", "slack"]
        assert workers["b"].policies == ["rr"]  # it never left the one that is wanted again
        for wrong in ({"policy": "lifo"}, {}, {"policy": "rr", "now": True}):
            async with client.post("/admin/policy", json=wrong) as answer:
                assert answer.status == 400
                assert (await answer.json())["error"]["param"] == (
                    "now" if "now" in wrong else "policy"
                )
        assert workers["a"].policies == ["rr", "slack"]


async def test_a_policy_that_is_taken_back_before_its_answer_is_taken_back(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (playing, _, _url, _client):
        policies = playing.service.cluster.policies
        policies.set("rr")
        policies.set("slack")
        await policies.settled()
        assert playing.scene.workers["a"].policies == ["rr", "slack"]
        described = policies.describe()["instances"]
        assert [(one["policy"], one["pending"]) for one in described] == [("slack", False)] * 2
