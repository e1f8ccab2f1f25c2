"""A store that fails: the responses of the gateway's clients go on."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from gateway import app
from gateway.app import make_runner
from gateway.config import Config, LauncherConfig, ServerConfig
from gateway.store import Connection, ResponseStore, StoreUnusable, check_store, responses
from tests.gateway.support.scene import play
from tests.gateway.support.scripted_engine import ANSWER
from tests.gateway.support.scripted_service import ended, until


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which the test fills."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no permission to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    with (folder / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


async def test_responses_go_on_while_the_disk_is_full(full_disk: Path) -> None:
    async with play(full_disk, "a") as playing:
        service = playing.service
        before = await playing.start()
        await ended(before)
        await until(lambda: not service._background)
        fill(full_disk)
        with capture_logs() as logs:
            sessions = [await playing.start() for _ in range(40)]
            for session in sessions:
                await ended(session)
                assert (session.status, session.answer_text) == ("completed", ANSWER)
            await until(lambda: not service._background)
        lost = [line for line in logs if line["event"] == "response_not_stored"]
        assert lost
        assert {line["file"] for line in lost} == {str(full_disk / "store.sqlite3")}
        assert {line["reason"] for line in lost} == {"database or disk is full"}
        metrics = service.metrics.render().decode()
        assert f'pascal_store_failures_total{{kind="write"}} {len(lost)}.0' in metrics
        # Those from before are there, and a later one is stored as soon as there is room.
        assert await service.store.get(before.response_id, "") is not None
        os.unlink(full_disk / "filling")
        after = await playing.start()
        await ended(after)
        await until(lambda: not service._background)
        assert await service.store.get(after.response_id, "") is not None


async def test_a_disk_that_is_full_at_the_start_is_named(full_disk: Path) -> None:
    old, new = full_disk / "old.sqlite3", full_disk / "new.sqlite3"
    store = ResponseStore(old)
    await store.open()
    await store.close()
    fill(full_disk)
    for path in (old, new):
        with pytest.raises(StoreUnusable, match=rf"{path} cannot be used: .*(full|disk I/O)"):
            await ResponseStore(path).open()
    os.unlink(full_disk / "filling")
    store = ResponseStore(old)
    await store.open()
    await store.close()


async def test_a_disk_that_cannot_be_written_is_named(full_disk: Path) -> None:
    old, new = full_disk / "old.sqlite3", full_disk / "new.sqlite3"
    store = ResponseStore(old)
    await store.open()
    await store.close()
    remount = await asyncio.create_subprocess_exec(
        "mount", "-o", "remount,ro", str(full_disk), stderr=subprocess.DEVNULL
    )
    assert await remount.wait() == 0
    for path in (old, new):
        with pytest.raises(StoreUnusable, match=rf"The store {path} .*no permission to write"):
            check_store(path)
        with pytest.raises(StoreUnusable, match=rf"The store {path} .*no permission to write"):
            await ResponseStore(path).open()


async def test_a_look_up_in_a_store_that_fails_is_a_refusal_and_harms_nobody(
    tmp_path: Path,
) -> None:
    async with play(tmp_path, "a") as playing:
        service = playing.service
        runner = make_runner(service)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await service.store._execute("DROP TABLE responses", ())
        try:
            async with aiohttp.ClientSession(url) as client:
                body = {"input": "hi", "previous_response_id": "resp_1"}
                async with client.post("/v1/responses", json=body) as answer:
                    assert answer.status == 503
                    error = (await answer.json())["error"]
                assert error["code"] == "store_unavailable"
                assert str(tmp_path) not in error["message"]
                async with client.get("/v1/responses/resp_1") as answer:
                    assert answer.status == 503
                async with client.post("/v1/responses", json={"input": "hi"}) as answer:
                    assert (await answer.json())["status"] == "completed"
        finally:
            await runner.cleanup()
        metrics = service.metrics.render().decode()
        assert 'pascal_store_failures_total{kind="read"} 2.0' in metrics
        assert 'pascal_refused_total{code="store_unavailable"} 2.0' in metrics


async def test_the_start_does_not_wait_for_the_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is still at its first slice when `/health` answers."""
    free = threading.Event()
    begun = threading.Event()

    def slice_that_waits(_: Connection, created_before: float) -> int:
        begun.set()
        free.wait(10)
        raise sqlite3.OperationalError("disk I/O error")

    make_site = app.make_site

    def site(runner: web.AppRunner, host: str, port: int) -> web.TCPSite:
        made = make_site(runner, host, port)
        runners.append(runner)
        return made

    runners: list[web.AppRunner] = []
    monkeypatch.setattr(responses, "_delete_slice", slice_that_waits)
    monkeypatch.setattr(app, "make_site", site)
    launcher = LauncherConfig(kind="static", addresses=(f"unix:{tmp_path}/none.sock",))
    server = ServerConfig(port=0, state_dir=str(tmp_path))
    config = Config(server=server, launcher=launcher)
    serving = asyncio.create_task(app.serve(config, announce=lambda _: None))
    try:
        await until(lambda: runners and runners[0].addresses and begun.is_set())
        port = runners[0].addresses[0][1]
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://127.0.0.1:{port}/health") as answer,
        ):
            assert answer.status == 200
        assert not free.is_set()
    finally:
        free.set()
        serving.cancel()
        await asyncio.wait([serving])
