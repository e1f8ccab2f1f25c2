"""Many requests on instances that come, go, hang and are drained at random; none may be lost.

The engines follow a script (`tests.gateway.support.scripted_engine`), so that requests can move
with tickets at any time and a run takes a second. With real engines: `tests.chaos`.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.config import ClusterConfig, PlacementConfig
from gateway.response.session import Session
from gateway.routing.route import Stage
from tests.chaos.faults import Injector
from tests.chaos.world import World
from tests.gateway.support.scene import Play, check_clean, play
from tests.gateway.support.scripted_engine import ANSWER, THOUGHTS, Actor
from tests.gateway.support.scripted_service import ended, until
from tests.gateway.support.sessions import events_of

NAMES = ("a", "b", "c", "d")
REQUESTS = 120
HOLDS = ("accept", "generate", "hand over")


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_every_reader_gets_every_token_once(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    placement = PlacementConfig(
        boundary="balance", balance_gap=0.0, headroom=0.0, cost_check=False, migration_timeout_s=0.1
    )
    cluster = ClusterConfig(max_restarts=1000)
    async with play(tmp_path, *NAMES, placement=placement, cluster=cluster) as playing:
        watcher = Injector(cast(World, SimpleNamespace(cluster=playing.cluster)))
        with watcher.watching():
            await unrest(playing, rng)
        assert watcher.wrong == []  # no request was in a place that the table of faults lacks


async def unrest(playing: Play, rng: random.Random) -> None:
    """Requests, faults and cancels, then an end for all."""
    sessions: list[Session] = []
    hits: set[Stage] = set()
    cancelled: set[Session] = set()
    while len(sessions) < REQUESTS:
        starting = [asyncio.create_task(playing.start()) for _ in range(4)]
        for _ in range(4):
            await disturb(playing, rng, hits)
            await asyncio.sleep(0)
        for actor in playing.actors.values():
            hold(actor, rng)
        await recover(playing)
        sessions += await asyncio.gather(*starting)
        if rng.random() < 0.3:
            unlucky = rng.choice(sessions)
            if not unlucky.finished:
                playing.service.cancel(unlucky)
                cancelled.add(unlucky)
    for name in NAMES:
        playing.cluster.undrain(name)
    playing.release()
    for session in sessions:
        await ended(session)
    for session in sessions:
        if session in cancelled and session.incomplete_reason == "cancelled":
            assert THOUGHTS.startswith(session.reasoning_text)
            assert ANSWER.startswith(session.answer_text)
        else:
            assert (session.status, session.reasoning_text) == ("completed", THOUGHTS)
            assert session.answer_text == ANSWER
        numbers = [event["sequence_number"] for event in events_of(session)]
        assert numbers == list(range(len(numbers)))
    check_clean(playing, sessions[-1])
    router = playing.cluster.router
    assert router.migrations["moved"] > 0
    assert router.migrations["recomputed"] > 0
    assert router.failovers["resumed"] > 10
    assert router.failovers["failed"] == 0
    assert len(hits) >= 2, hits


async def disturb(playing: Play, rng: random.Random, hits: set[Stage]) -> None:
    instances = playing.cluster.instances
    name = rng.choice(NAMES)
    match rng.choice(("lose", "drain", "undrain", "nothing")):
        case "lose" if name in instances:
            hits |= {route.stage for route in playing.cluster.router.routes_of(name)}
            await playing.scene.lose(name)
        case "drain" if len(playing.cluster.drained) < 2:
            playing.cluster.drain(name)
        case "undrain":
            playing.cluster.undrain(name)
        case _:
            pass


async def recover(playing: Play) -> None:
    """Bring lost instances back, and let all accept, so that requests can start."""
    for name in NAMES:
        if name not in playing.cluster.instances:
            await playing.scene.join(name, movable=True)
            playing.act(name)
        playing.actors[name].holding.discard("accept")
        playing.actors[name].wake()
    await until(lambda: playing.cluster.instances)


def hold(actor: Actor, rng: random.Random) -> None:
    """Stop at some token, or continue."""
    actor.holding.clear()
    actor.until_place = rng.randrange(10)
    actor.holding |= {what for what in HOLDS if rng.random() < 0.3}
    actor.wake()
