"""The gateway drops a worker that is silent, or whose engine stands still, after a known time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest

from gateway.config import Config, LauncherConfig, ModelConfig, WorkersConfig
from gateway.launchers.liveness import check_alive
from gateway.launchers.static import StaticLauncher
from gateway.routing.cluster import Cluster
from gateway.routing.worker_link import LinkError, WorkerLink
from tests.gateway.support.instances import SilentLink, make_instance
from tests.gateway.support.scripted_service import until
from tests.gateway.support.scripted_worker import scripted_worker

TIMEOUT_S = 15.0


@pytest.mark.parametrize(
    ("silent_s", "stuck_s", "reason"),
    [
        (TIMEOUT_S - 1, 0.0, None),
        (TIMEOUT_S + 1, 0.0, "no heartbeat for 16 s"),
        (0.0, 4 * TIMEOUT_S - 1, None),  # a step may take long: a prompt, a compilation
        (0.0, 4 * TIMEOUT_S + 1, "no engine step for 61 s"),
    ],
)
def test_silence_and_standstill_have_a_bound(
    silent_s: float, stuck_s: float, reason: str | None
) -> None:
    cluster = Cluster(on_progress=print)
    instance = make_instance("a")
    instance.since_step_s = stuck_s
    cluster._members.open["a"] = instance
    link = SilentLink("a")
    link.last_heard_s = time.monotonic() - silent_s
    if reason is None:
        check_alive(cast(WorkerLink, link), cluster, "a", TIMEOUT_S)
    else:
        with pytest.raises(LinkError, match=reason):
            check_alive(cast(WorkerLink, link), cluster, "a", TIMEOUT_S)


async def test_a_silent_worker_is_given_up_and_dialled_again(tmp_path: Path) -> None:
    cluster = Cluster(on_progress=print)
    async with scripted_worker(tmp_path, "a") as (_, address):
        config = Config(
            model=ModelConfig(served_name="m"),
            workers=WorkersConfig(restart_backoff_s=0.01),
            launcher=LauncherConfig(kind="static", addresses=(address,)),
        )
        running = asyncio.create_task(StaticLauncher(config, cluster).run())
        await until(lambda: "a" in cluster.instances)
        first = cluster.instances["a"]
        first.link.last_heard_s -= config.workers.heartbeat_timeout_s + 1
        await until(lambda: cluster.instances.get("a") not in (first, None))
        running.cancel()
        await asyncio.wait([running])
