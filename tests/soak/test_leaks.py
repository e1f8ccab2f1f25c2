"""Each deliberate leak leaves behind one object of its kind per request."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import SessionConfig
from gateway.response.event_log import EventLog
from gateway.service import ResponseService
from tests.gateway.support.scripted_service import ended, serving, start, until
from tests.soak import leaks
from workers.messages import Finish

RESPONSES = 3


@pytest.fixture(params=[*leaks.KINDS, None])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str | None]:
    """A kind of leak, or none; the leaked objects are released afterwards."""
    for name in ("start", "_drop"):
        monkeypatch.setattr(ResponseService, name, getattr(ResponseService, name))
    kept: list[object] = []
    monkeypatch.setattr(leaks, "_kept", kept)
    if request.param is not None:
        leaks.patch(request.param)
    yield request.param
    for one in kept:
        if isinstance(one, int):
            os.close(one)
        elif isinstance(one, asyncio.Task):
            one.cancel()


async def test_every_request_leaves_something(kind: str | None, tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0", session=SessionConfig(ttl_s=0.0)) as (
        service,
        workers,
    ):
        worker = workers["worker-0"]
        tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
        for _ in range(RESPONSES):
            session, request_id = await start(service, worker)
            await worker.tokens(request_id, 0, "Hello", finish=Finish(reason="stop"))
            await ended(session)
        expected = RESPONSES if kind == "sessions" else 0
        await until(lambda: len(service._sessions) <= expected)
        await until(lambda: not service._background)  # stored
        left = {
            "tasks": len(asyncio.all_tasks()) - tasks,
            "fds": len(os.listdir("/proc/self/fd")) - descriptors,
            "sessions": len(service._sessions),
            "log": sum(isinstance(one, EventLog) for one in leaks._kept),
            "memory": sum(isinstance(one, bytes) for one in leaks._kept),
        }
    assert left == {name: RESPONSES if name == kind else 0 for name in leaks.KINDS}
