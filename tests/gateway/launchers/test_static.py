"""Workers that run elsewhere: they are dialled, lost and dialled again, but never ended."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.config import Config, LauncherConfig, ModelConfig, WorkersConfig
from gateway.launchers.static import StaticLauncher
from gateway.routing.cluster import Cluster
from gateway.routing.worker_link import LinkError, open_link
from tests.gateway.support.real_workers import TOKEN, ask, free_port, pascal_worker
from tests.gateway.support.scripted_service import until
from tests.gateway.support.scripted_worker import scripted_worker
from tests.support.server import Server, is_alive

QUICK = WorkersConfig(restart_backoff_s=0.01, restart_backoff_max_s=0.02)


def config_of(*addresses: str, served: str = "m") -> Config:
    return Config(
        model=ModelConfig(served_name=served),
        workers=QUICK,
        launcher=LauncherConfig(kind="static", addresses=addresses, token=TOKEN),
    )


async def test_a_worker_that_comes_back_is_dialled_again(tmp_path: Path) -> None:
    cluster = Cluster(on_progress=print)
    async with scripted_worker(tmp_path, "a") as (worker, address):
        launcher = StaticLauncher(config_of(address), cluster)
        running = asyncio.create_task(launcher.run())
        await until(lambda: "a" in cluster.instances)
        first = cluster.instances["a"]
        await worker.hang_up()
        await until(lambda: cluster.instances.get("a") not in (first, None))
        assert list(launcher.names) == ["a"]
        running.cancel()
        await asyncio.wait([running])
        assert cluster.instances == {}


async def test_a_name_given_twice_and_another_model_are_refused(tmp_path: Path) -> None:
    cluster = Cluster(on_progress=print)
    other = tmp_path / "other"
    other.mkdir()
    async with (
        scripted_worker(tmp_path, "a") as (_, first),
        scripted_worker(other, "a") as (_, second),
    ):
        with capture_logs() as logs:
            running = asyncio.create_task(StaticLauncher(config_of(first, second), cluster).run())
            await until(lambda: any("as well; change its --id" in str(line) for line in logs))
            running.cancel()
            await asyncio.wait([running])
        with capture_logs() as logs:
            wrong = StaticLauncher(config_of(first, served="n"), cluster)
            running = asyncio.create_task(wrong.run())
            await until(lambda: any("serves the model 'm', this" in str(x) for x in logs))
            running.cancel()
            await asyncio.wait([running])


async def test_pauses_double_and_a_reason_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            raise asyncio.CancelledError

    monkeypatch.setattr("gateway.launchers.dialer.asyncio.sleep", sleep)
    monkeypatch.setattr("gateway.launchers.dialer.random.uniform", lambda *_: 1.0)
    # Each attempt takes longer than any pause, which does not make it a success.
    clock = itertools.count(0.0, 100.0)
    monkeypatch.setattr(
        "gateway.launchers.dialer.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    address = f"unix:{tmp_path}/nobody"
    config = Config(launcher=LauncherConfig(kind="static", addresses=(address,), token=TOKEN))
    with capture_logs() as logs:
        launcher = StaticLauncher(config, Cluster(on_progress=print))
        await launcher.run()
    assert launcher.failures == {address: 8}
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    (line,) = logs
    assert (line["event"], line["worker"]) == ("worker_unreachable", address)
    assert TOKEN not in str(line)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.long
async def test_two_workers_outlive_each_other_and_their_gateway(tmp_path: Path) -> None:
    ports = sorted((free_port(), free_port()))
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    extra = (
        *("--set=launcher.kind=static", f"--token-file={token}", "--emulate=h100-qwen32b"),
        "--set=launcher.addresses=" + ",".join(f"ws://127.0.0.1:{port}" for port in ports),
    )
    names = [f"w-{port}" for port in ports]
    with ExitStack() as stack:
        first, second = (stack.enter_context(pascal_worker(tmp_path, p, token)) for p in ports)
        (tmp_path / "1").mkdir()
        with Server(tmp_path / "1", workers=1, extra=extra) as server:

            def there() -> Any:
                return server.request("/ready")[1]["instances"]

            await asyncio.to_thread(server.wait_for, lambda: there() == names)
            assert ask(server)[0] == 200
            refused = server.request(f"/admin/instances/{names[0]}/drain", {"restart": True})
            assert (refused[0], refused[1]["error"]["code"]) == (409, "not_restartable")
            assert server.request(f"/admin/instances/{names[0]}/drain", {})[0] == 202
            assert ask(server)[1]["instance"] == names[1]
            os.killpg(second.pid, signal.SIGKILL)
            second.wait()
            await asyncio.to_thread(server.wait_for, lambda: there() == names[:1])
            assert server.request(f"/admin/instances/{names[0]}/undrain", {})[0] == 200
            assert ask(server)[1]["instance"] == names[0]
            again = stack.enter_context(pascal_worker(tmp_path, ports[1], token))
            await asyncio.to_thread(server.wait_for, lambda: there() == names)
            server.process.kill()
        with pytest.raises(LinkError, match="wrong token"):
            await open_link(f"ws://127.0.0.1:{ports[0]}", "another", "test")
        (tmp_path / "2").mkdir()
        with Server(tmp_path / "2", workers=1, extra=extra) as server:
            await asyncio.to_thread(server.wait_for, lambda: there() == names)
            pids = [i["pid"] for i in server.request("/admin/instances")[1]["instances"]]
            assert pids == [first.pid, again.pid]  # the workers that served the other gateway
            assert ask(server)[0] == 200
        assert is_alive(first.pid)
