"""Draining at its limits: all instances at once, a silent target, KV that is still being read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.config import ClusterConfig, PlacementConfig
from gateway.routing.route import Stage
from tests.gateway.routing.test_maintenance import gateway
from tests.gateway.routing.test_moving import moving
from tests.gateway.support.scene import check_whole, play
from tests.gateway.support.scripted_engine import ANSWER
from tests.gateway.support.scripted_service import ended, until

STAY = PlacementConfig(boundary="off", migration_timeout_s=30.0)


async def test_a_request_on_its_way_to_a_drained_instance_goes_on_somewhere(
    tmp_path: Path,
) -> None:
    async with moving(tmp_path, "handing over") as (playing, session):
        playing.cluster.drain("a")
        playing.cluster.drain("b")
        playing.release()
        await ended(session)
        check_whole(playing, session)


async def test_a_drained_instance_that_comes_back_is_better_than_none(tmp_path: Path) -> None:
    limits = ClusterConfig(failover_timeout_s=30.0)
    async with play(tmp_path, "a", "b", placement=STAY, cluster=limits) as playing:
        for actor in playing.actors.values():
            actor.holding |= {"generate"}
            actor.until_place = 2
        session = await playing.start()
        await until(lambda: len(session.token_ids) == 2)
        playing.cluster.drain("b")
        playing.cluster.drain("a")
        await playing.scene.lose("a")
        await playing.scene.join("a", movable=True)
        playing.act("a")
        playing.release()
        await ended(session)
        assert session.status == "completed"


async def test_round_robin_spreads_what_is_moved_away(tmp_path: Path) -> None:
    everywhere = PlacementConfig(
        new="round_robin",
        boundary="off",
        max_migrations=0,
        max_migrations_per_instance=0,
        migration_timeout_s=0.2,  # the targets hold on to what they pull
    )
    async with play(tmp_path, "a", "b", "c", placement=everywhere) as playing:
        for actor in playing.actors.values():
            actor.holding |= {"generate"}
            actor.until_place = 2
        sessions = [await playing.start() for _ in range(12)]
        await until(lambda: all(len(session.token_ids) == 2 for session in sessions))
        playing.cluster.drain("a")
        assert await playing.cluster.emptied("a")
        playing.release()
        for session in sessions:
            await ended(session)
        assert Counter(session.instance_id for session in sessions) == {"b": 6, "c": 6}


async def test_no_instance_takes_in_more_than_it_may_while_others_are_drained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = PlacementConfig(boundary="off", max_migrations=0, max_migrations_per_instance=1)
    async with play(tmp_path, "a", "b", "c", placement=few) as playing:
        router = playing.cluster.router
        for name in "ab":
            playing.actors[name].holding |= {"generate"}
            playing.actors[name].until_place = 2
        playing.cluster.drain("c")
        sessions = [await playing.start() for _ in range(4)]  # two at each of the others
        await until(lambda: all(len(session.token_ids) == 2 for session in sessions))
        playing.cluster.undrain("c")
        under_way: list[int] = []
        hand_over = router._carrier.hand_over

        def noted(*args: Any) -> None:
            hand_over(*args)
            under_way.append(len(router.migrating))

        monkeypatch.setattr(router._carrier, "hand_over", noted)
        playing.cluster._members.drained |= {"a", "b"}
        playing.cluster.drain("a")
        await until(lambda: all(session.instance_id == "c" for session in sessions))
        playing.release()
        for session in sessions:
            await ended(session)
            assert session.migrations == 1
        assert under_way == [1, 1, 1, 1]  # one after the other, though they leave two instances
        assert router.migrations == {"moved": 4}


@pytest.mark.parametrize(("in_all", "each", "most"), [(2, 0, 2), (0, 1, 1), (0, 0, 4)])
async def test_few_leave_a_drained_instance_at_once(
    tmp_path: Path, in_all: int, each: int, most: int
) -> None:
    few = PlacementConfig(boundary="off", max_migrations=in_all, max_migrations_per_instance=each)
    async with play(tmp_path, "a", "b", "c", placement=few) as playing:
        a, router = playing.actors["a"], playing.cluster.router
        a.holding |= {"generate", "hand over"}
        a.until_place = 2
        playing.cluster._members.drained |= {"b", "c"}  # all begin at "a"
        sessions = [await playing.start() for _ in range(4)]
        await until(lambda: all(len(session.token_ids) == 2 for session in sessions))
        playing.cluster._members.drained.clear()
        playing.cluster.drain("a")
        assert len(router.migrating) == most
        playing.release()
        for session in sessions:
            await ended(session)
            assert session.answer_text == ANSWER


async def test_a_restart_waits_until_kv_has_been_read(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (playing, launcher, _url, _client):
        a, b = playing.actors["a"], playing.actors["b"]
        a.holding |= {"generate"}
        a.until_place = 2
        b.holding |= {"generate"}
        b.until_place = 0  # accepted; its KV is being read
        session = await playing.start()
        await until(lambda: len(session.token_ids) == 2)
        assert session.instance_id == "a"
        playing.service.maintenance.drain("a", restart=True)
        await playing.reach(session, Stage.PULLING)
        assert playing.cluster.router.reading_from("a")
        assert not launcher.restarted
        playing.release()
        await ended(session)
        await until(lambda: launcher.restarted)


async def test_nothing_is_moved_to_an_instance_that_has_fallen_silent(tmp_path: Path) -> None:
    async with play(tmp_path, "a", "b", placement=STAY) as playing:
        a, b = playing.actors["a"], playing.actors["b"]
        a.holding |= {"generate"}
        a.until_place = 2
        session = await playing.start()
        await until(lambda: len(session.token_ids) == 2)
        playing.cluster.instances["b"].link.last_heard_s -= 1000
        playing.cluster.drain("a")
        assert not playing.cluster.router.migrating
        assert not b.submits
        playing.release()
        await ended(session)


async def test_a_migration_that_another_overtakes_is_counted(tmp_path: Path) -> None:
    async with moving(tmp_path, "pulling", "a", "b", "c") as (playing, session):
        b = playing.actors["b"]
        playing.let_time_run_out(session)  # a doubt: again on b, without its ticket
        await until(lambda: len(b.submits) == 2)
        await playing.reach(session, Stage.RUNNING)
        playing.cluster.drain("b")  # before the first token
        await until(lambda: b.asked_for)
        playing.release()
        await ended(session)
        check_whole(playing, session)
        assert sum(playing.cluster.router.migrations.values()) == 2
