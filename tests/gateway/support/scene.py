"""A service whose scripted workers act by themselves, and checks for the end of a test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.config import PlacementConfig
from gateway.response.session import Session
from gateway.routing.route import Stage
from tests.gateway.support.scripted_engine import ANSWER, THOUGHTS, Actor
from tests.gateway.support.scripted_service import Scene, generation, scene, until
from tests.gateway.support.sessions import events_of

# Every request moves at its boundary: from "a", where it begins, to "b".
MOVE = PlacementConfig(boundary="balance", balance_gap=0.0, headroom=0.0, migration_timeout_s=30.0)


class Play:
    """A scene whose workers act."""

    def __init__(self, built: Scene, tasks: asyncio.TaskGroup) -> None:
        self.scene = built
        self.service = built.service
        self.cluster = built.service.cluster
        self.actors: dict[str, Actor] = {}
        self._tasks = tasks
        self._running: list[asyncio.Task[None]] = []

    def act(self, name: str, *holding: str) -> Actor:
        actor = self.actors[name] = Actor(self.scene.workers[name], set(holding))
        self._running.append(self._tasks.create_task(actor.run()))
        return actor

    async def start(self, **fields: Any) -> Session:
        return await self.service.start(await generation(self.service, **fields), "")

    async def reach(self, session: Session, stage: Stage) -> None:
        def there() -> bool:
            route = self.cluster.router.routes.get(session.response_id)
            return route is not None and route.stage is stage

        await until(there)

    def let_time_run_out(self, session: Session) -> None:
        route = self.cluster.router.routes[session.response_id]
        route._stage_ends_s = 0.0
        self.cluster.router._deadlines.set(route, time.monotonic())

    def release(self) -> None:
        for actor in self.actors.values():
            actor.release()

    def stop(self) -> None:
        for task in self._running:
            task.cancel()


@asynccontextmanager
async def play(
    folder: Path, *names: str, placement: PlacementConfig = MOVE, **tables: Any
) -> AsyncIterator[Play]:
    async with (
        scene(folder, *names, movable=True, placement=placement, **tables) as built,
        asyncio.TaskGroup() as tasks,
    ):
        playing = Play(built, tasks)
        for name in names:
            playing.act(name)
        try:
            yield playing
        finally:
            playing.stop()


def check_whole(playing: Play, session: Session) -> None:
    """Check that no token is lost, doubled or out of order, and that nothing is left behind."""
    assert (session.status, session.reasoning_text) == ("completed", THOUGHTS)
    assert session.answer_text == ANSWER
    check_clean(playing, session)


def check_clean(playing: Play, session: Session) -> None:
    events = events_of(session)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    assert "".join(deltas) == session.answer_text
    assert [error for actor in playing.actors.values() for error in actor.errors] == []
    assert session.response_id not in playing.scene.service._running
    router = playing.cluster.router
    assert (router.routes, router._deadlines.timers, router._acceptances.waiting) == ({}, {}, {})
    assert not any(map(router.routes_of, playing.cluster.instances))
