"""What the launcher decides without a worker that works."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.cluster import Cluster
from gateway.config import Config, ServerConfig, WorkersConfig
from gateway.supervisor import CannotServe, LocalSupervisor, local_settings


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
    supervisor = LocalSupervisor(config, Cluster(on_progress=print), tmp_path)
    with pytest.raises(CannotServe, match=r"worker-[01] exited with 1 while starting"):
        await supervisor.run()
    assert supervisor.restarts_total >= 2


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
    supervisor = LocalSupervisor(config, Cluster(on_progress=print), tmp_path)
    with pytest.raises(CannotServe, match="a bug"):
        await supervisor.run()
    assert supervisor.restarts_total == 2
