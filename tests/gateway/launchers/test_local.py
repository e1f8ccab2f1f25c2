"""The local launcher without real workers."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from gateway.config import Config, ServerConfig, WorkersConfig
from gateway.launchers import local
from gateway.launchers.local import CannotServe, LocalSupervisor
from gateway.launchers.worker_settings import local_settings
from gateway.routing.cluster import Cluster
from tests.support.server import ROOT


def test_each_cpu_worker_gets_a_core_of_its_own_while_there_are_some(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    settings = [
        local_settings(Config(workers=WorkersConfig(engine="inprocess")), index, tmp_path)
        for index in range(len(cores) + 1)
    ]
    assert [one.cpu_cores for one in settings] == [(core,) for core in [*cores, cores[0]]]
    assert len({one.listen for one in settings}) == len(settings)


def test_gpu_workers_are_not_pinned(tmp_path: Path) -> None:
    config = Config(workers=WorkersConfig(engine="async", tensor_parallel_size=2))
    settings = local_settings(config, 1, tmp_path)
    assert settings.cpu_cores == ()
    assert settings.tensor_parallel_size == 2
    assert not settings.enforce_eager


def test_emulated_workers_run_their_engine_in_process_and_share_the_cores(tmp_path: Path) -> None:
    settings = local_settings(Config(workers=WorkersConfig(emulate="h100-qwen32b")), 1, tmp_path)
    assert (settings.engine, settings.emulate) == ("inprocess", "h100-qwen32b")
    assert settings.cpu_cores == ()
    assert local_settings(Config(), 0, tmp_path).emulate is None


def test_workers_are_told_their_policy_and_its_numbers(tmp_path: Path) -> None:
    policy: dict[str, Any] = {
        "policy": "slack",
        "quantum_tokens": 7,
        "demotion_tokens": 8,
        "low_water_s": 0.5,
        "high_water_s": 9.0,
    }
    settings = local_settings(Config(workers=replace(WorkersConfig(), **policy)), 0, tmp_path)
    assert {name: getattr(settings, name) for name in policy} == policy


async def test_workers_that_never_come_up_end_the_server_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    false = shutil.which("false")
    assert false is not None
    monkeypatch.setattr(sys, "executable", false)
    config = Config(
        server=ServerConfig(state_dir=str(tmp_path)),
        workers=replace(WorkersConfig(), restart_backoff_s=0.01, count=2),
    )
    launcher = LocalSupervisor(config, Cluster(on_progress=print), tmp_path)
    with pytest.raises(CannotServe, match=r"worker-[01] exited with 1 while starting"):
        await launcher.run()
    assert launcher.restarts_total >= 2


async def test_a_bug_met_by_one_worker_is_a_failure_of_that_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(LocalSupervisor, "_run_once", broken)
    config = Config(
        server=ServerConfig(state_dir=str(tmp_path)),
        workers=replace(WorkersConfig(), restart_backoff_s=0.01, count=1),
    )
    launcher = LocalSupervisor(config, Cluster(on_progress=print), tmp_path)
    with pytest.raises(CannotServe, match="a bug"):
        await launcher.run()
    assert launcher.restarts_total == 2


def fake_worker(folder: Path, script: str) -> str:
    """A program in the place of the interpreter that runs workers."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def supervisor_of(folder: Path, **workers: Any) -> LocalSupervisor:
    config = Config(
        server=ServerConfig(state_dir=str(folder)),
        workers=replace(WorkersConfig(), restart_backoff_s=0.01, **workers),
    )
    return LocalSupervisor(config, Cluster(on_progress=print), folder)


async def test_the_reason_of_a_failed_start_is_the_workers_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
    echo '{"event": "worker_failed", "reason": "no chat template"}' >&2
    echo 'Warning: a resource leaked'; exit 3"""
    monkeypatch.setattr(sys, "executable", fake_worker(tmp_path, script))
    with pytest.raises(CannotServe) as caught:
        await supervisor_of(tmp_path, count=1).run()
    log = tmp_path / "logs" / "worker-0.log"
    said = f"worker-0 exited with 3 while starting: no chat template (log: {log})"
    assert str(caught.value) == said


async def test_the_reason_is_never_that_of_an_earlier_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "logs" / "worker-0.log"
    log.parent.mkdir()
    log.write_text('{"event": "worker_failed", "reason": "of yesterday"}\n')
    monkeypatch.setattr(sys, "executable", fake_worker(tmp_path, "kill -SEGV $$"))
    with pytest.raises(CannotServe, match=r"was killed by SIGSEGV while starting \(log"):
        await supervisor_of(tmp_path, count=1).run()


@pytest.mark.parametrize(
    ("inherited", "dealt"),
    [("4,5,6,7", ["4,5", "6,7"]), ("GPU-a,MIG-b,GPU-c,GPU-d", ["GPU-a,MIG-b", "GPU-c,GPU-d"]),
     (None, ["0,1", "2,3"])],
)  # fmt: skip
async def test_workers_start_with_their_share_of_the_inherited_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inherited: str | None, dealt: list[str]
) -> None:
    monkeypatch.setattr("gateway.launchers.worker_settings.cpu_build", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if inherited is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", inherited)
    script = 'echo "GPUs: $CUDA_VISIBLE_DEVICES"; exit 1'
    monkeypatch.setattr(sys, "executable", fake_worker(tmp_path, script))
    with pytest.raises(CannotServe):
        await supervisor_of(tmp_path, count=2, engine="async", tensor_parallel_size=2).run()
    for index, devices in enumerate(dealt):
        printed = (tmp_path / "logs" / f"worker-{index}.log").read_text()
        assert set(printed.splitlines()) == {f"GPUs: {devices}"}


async def test_a_worker_that_loads_for_long_and_dies_at_once_backs_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading takes longer than an instance must serve to be forgiven; it never serves."""
    pauses: list[float] = []
    now_s = 0.0
    lives = 6

    async def load_and_die(*_: object) -> None:
        nonlocal now_s
        now_s += 90.0
        raise local.WorkerExited("exited with 1 while starting: no memory")

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == lives:
            raise asyncio.CancelledError  # it is enough

    monkeypatch.setattr(LocalSupervisor, "_run_once", load_and_die)
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: now_s))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(random, "uniform", lambda *_: 1.0)
    one = supervisor_of(tmp_path, count=1, restart_backoff_max_s=0.1)
    one._cluster.ever_served = True
    with capture_logs() as logs:
        await one.run()
    assert pauses == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.1, 0.1])
    assert one.failures == {"worker-0": lives}
    (line,) = [line for line in logs if line["event"] == "worker_failed_repeatedly"]
    assert (line["instance_id"], line["tried_again_every_s"]) == ("worker-0", 0.1)


async def test_a_process_that_does_not_die_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hanging:
        """As a process in a call of a driver that never returns."""

        pid = 2**22 + 1  # of no process
        returncode = None

        def terminate(self) -> None:
            pass

        async def wait(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(local, "_STOP_S", 0.01)
    monkeypatch.setattr(local, "_KILLED_S", 0.01)
    with capture_logs() as logs:
        await asyncio.wait_for(local._end_process(cast("Any", Hanging()), "worker-0"), 10)
    assert [line["event"] for line in logs] == ["worker_killed", "worker_not_killed"]
    assert {line["instance_id"] for line in logs} == {"worker-0"}


SERVES_AND_DIES = """
import asyncio, json, os, signal, sys
from websockets.asyncio.server import unix_serve
from tests.gateway.support.scripted_worker import ScriptedWorker
from workers.messages import PROTOCOL

async def main():
    settings = json.loads(sys.argv[-1])
    worker = ScriptedWorker(settings["instance_id"], PROTOCOL)
    path = settings["listen"].removeprefix("unix:")
    async with unix_serve(worker.handle, path, compression=None):
        while worker._socket is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        print("ValueError: last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_worker_that_dies_while_it_serves_is_restarted_and_its_reason_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "serves.py"
    program.write_text(SERVES_AND_DIES)
    script = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" "{program}" "$@"'
    monkeypatch.setattr(sys, "executable", fake_worker(tmp_path, script))
    monkeypatch.setattr(local, "_MAX_FAILED_STARTS", 2)
    launcher = supervisor_of(tmp_path, count=1)
    log = tmp_path / "logs" / "worker-0.log"
    with capture_logs() as logs:
        running = asyncio.create_task(launcher.run())
        async with asyncio.timeout(120):  # a gateway that has served does not give up
            while launcher.failures["worker-0"] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
    reasons = {line["reason"] for line in logs if line["event"] == "worker_failed"}
    why = f"was killed by SIGKILL while serving: ValueError: last words (log: {log})"
    assert reasons == {why}
    assert launcher.restarts_total >= 1
    assert len([line for line in logs if line["event"] == "worker_failed_repeatedly"]) == 1


SERVES = """
import asyncio, json, signal, subprocess, sys
from pathlib import Path
from websockets.asyncio.server import unix_serve
from tests.gateway.support.scripted_worker import ScriptedWorker
from workers.messages import PROTOCOL

async def main():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"])
    settings = json.loads(sys.argv[-1])
    worker = ScriptedWorker(settings["instance_id"], PROTOCOL)
    path = settings["listen"].removeprefix("unix:")
    async with unix_serve(worker.handle, path, compression=None):
        with Path(sys.argv[1]).open("a") as pids:
            print(child.pid, file=pids)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@asynccontextmanager
async def served(
    folder: Path, monkeypatch: pytest.MonkeyPatch, **workers: Any
) -> AsyncIterator[tuple[LocalSupervisor, Path]]:
    """A supervisor with a worker that hears no order to stop; the file names its children."""
    program, pids = folder / "serves.py", folder / "pids"
    program.write_text(SERVES)
    script = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" "{program}" "{pids}" "$@"'
    monkeypatch.setattr(sys, "executable", fake_worker(folder, script))
    monkeypatch.setattr(local, "_STOP_S", 0.05)
    monkeypatch.setattr(local, "_STABLE_S", 0.05)
    launcher = supervisor_of(folder, count=1, **workers)
    running = asyncio.create_task(launcher.run())
    try:
        async with asyncio.timeout(120):
            await launcher._cluster.wait_for_instances(1)
            yield launcher, pids
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert not any(runs(int(pid)) for pid in pids.read_text().split())


async def test_a_worker_is_restarted_once_and_leaves_nothing_and_is_forgiven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, monkeypatch) as (launcher, pids):
        cluster = launcher._cluster
        (first,) = cluster.instances.values()
        launcher.restart("worker-0")
        await cluster.gone(first)
        launcher._backoffs["worker-0"].failures = 1
        await cluster.wait_for_instances(1)
        assert not runs(int(pids.read_text().split()[0]))
        while launcher.failures["worker-0"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (launcher.restarts_total, len(pids.read_text().split())) == (1, 2)


async def test_a_worker_that_says_nothing_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as logs:
        async with served(tmp_path, monkeypatch, heartbeat_timeout_s=0.1) as (launcher, _):
            (first,) = launcher._cluster.instances.values()
            await launcher._cluster.gone(first)
            while not launcher.failures["worker-0"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    (line, *_) = [line for line in logs if line["event"] == "worker_failed"]
    assert line["reason"].startswith("no heartbeat for")
