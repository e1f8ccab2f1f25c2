"""Calls of Ray that do not return. They need the package ray, but no cluster."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.config import Config, LauncherConfig
from gateway.routing.cluster import Cluster
from tests.support.programs import RAY, needs

pytestmark = needs(RAY)


async def test_a_kill_that_hangs_blocks_nobody_and_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gateway.launchers import ray_cluster

    killing, free = threading.Event(), threading.Event()

    def kill(_: Any, *, no_restart: bool) -> None:
        assert not no_restart
        killing.set()
        free.wait(20)

    monkeypatch.setattr("gateway.launchers.ray_cluster.ray.kill", kill)
    monkeypatch.setattr(ray_cluster, "_CALL_S", 0.05)
    config = Config(launcher=LauncherConfig(kind="ray"))
    launcher = ray_cluster.RayLauncher(config, Cluster(on_progress=print))
    launcher._actors["worker-0"] = object()
    with capture_logs() as logs:
        try:
            launcher.restart("worker-0")  # returns at once
            (task,) = launcher._killing
            await asyncio.wait_for(task, 10)
        finally:
            free.set()
    assert killing.is_set()
    assert [line["event"] for line in logs] == ["ray_actor_not_killed"]
    assert logs[0]["instance_id"] == "worker-0"
    assert "does not answer within" in logs[0]["reason"]


async def test_a_call_hands_its_result_or_its_error_on() -> None:
    from gateway.launchers import ray_cluster

    assert await ray_cluster.in_thread(lambda: 3) == 3

    def fail() -> None:
        raise TimeoutError("Ray's own")

    with pytest.raises(TimeoutError, match="Ray's own") as caught:
        await ray_cluster.in_thread(fail)
    assert not isinstance(caught.value, ray_cluster.NoAnswer)


def test_a_port_counts_once_somebody_listens() -> None:
    from gateway.launchers.ray_cluster import listens

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert not listens(port)
        bound.listen()
        assert listens(port)
