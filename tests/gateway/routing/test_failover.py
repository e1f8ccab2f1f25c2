"""Requests that lose their instance, or whose instance is taken out of service."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.config import ClusterConfig, PlacementConfig
from gateway.routing.router import closing
from gateway.schemas.errors import Unavailable
from tests.gateway.support.override import override
from tests.gateway.support.scene import Play, check_clean, check_whole, play
from tests.gateway.support.scripted_engine import ANSWER, BOUNDARY, LENGTH
from tests.gateway.support.scripted_service import ended, generation, scene, start, until
from workers.messages import Rejected

# ---- failover ---------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [0, 2, BOUNDARY + 1, LENGTH - 1])
async def test_a_request_outlives_its_instance(tmp_path: Path, known: int) -> None:
    placement = PlacementConfig(boundary="off")
    async with play(tmp_path, "a", "b", placement=placement) as playing:
        playing.actors["a"].holding |= {"generate"}
        playing.actors["a"].until_place = known
        session = await playing.start()
        await until(lambda: len(session.token_ids) == known)
        await playing.scene.lose("a")
        await ended(session)
        check_whole(playing, session)
        assert len(playing.actors["b"].submits[0].known_token_ids) == known
        assert (session.failovers, session.migrations) == (1, 0)
        assert playing.cluster.router.failovers == {"resumed": 1}


async def test_a_request_that_is_only_being_read_is_not_submitted_again(tmp_path: Path) -> None:
    async with play(tmp_path, "a", "b", placement=PlacementConfig(boundary="off")) as playing:
        session = await playing.start(pacing={"tpot_s": 0.01})
        await until(lambda: len(session.token_ids) == LENGTH)
        assert not session.finished
        await playing.scene.lose("a")
        await ended(session)
        check_whole(playing, session)
        assert playing.actors["b"].submits == []
        assert session.failovers == 0


async def test_a_request_that_an_engine_refuses_because_it_failed_goes_on_elsewhere(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, "a", "b") as built:
        starting = asyncio.create_task(built.service.start(await generation(built.service), ""))
        submit = await built.workers["a"].next_submit()
        refusal = Rejected(request_id=submit.request_id, code="engine_failed", message="broke")
        await built.workers["a"].say(refusal)
        await built.workers["b"].accept(await built.workers["b"].next_submit())
        session = await starting
        assert (session.instance_id, session.failovers) == ("b", 1)


async def test_a_worker_with_the_name_of_another_is_not_lost_with_it(tmp_path: Path) -> None:
    async with scene(tmp_path, "a") as built:
        first = built.workers["a"]
        second = await built.join("a")
        with capture_logs() as logged:
            await first.hang_up()
            await until(lambda: [line for line in logged if line["event"] == "instance_lost"])
        starting = asyncio.create_task(built.service.start(await generation(built.service), ""))
        await second.accept(await second.next_submit())
        assert (await starting).instance_id == "a"


async def test_after_the_end_of_the_gateway_nothing_is_submitted_again(tmp_path: Path) -> None:
    async with scene(tmp_path, "a", "b") as built:
        session, _ = await start(built.service, built.workers["a"])
        built.service.cluster.close()
        await built.lose("a")
        assert session.error is not None
        assert (session.status, session.error.code) == ("failed", "draining")
        assert built.workers["b"].unread() == 0


async def test_a_request_that_waits_for_an_instance_is_cancelled_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path, "a") as built:
        session, _ = await start(built.service, built.workers["a"])
        await built.lose("a")
        built.service.cancel(session)
        assert (session.finished, session.incomplete_reason) == (True, "cancelled")
        assert (built.service.cluster.router.routes, built.service._running) == ({}, {})


async def test_a_new_request_does_not_go_to_a_drained_instance_even_if_it_is_the_only_one(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, "a") as built:
        built.service.cluster.drain("a")
        with pytest.raises(Unavailable) as caught:
            await built.service.start(await generation(built.service), "")
        assert (caught.value.code, built.workers["a"].unread()) == ("no_instance", 0)


async def test_an_error_for_a_client_that_has_just_left_is_told_to_nobody(tmp_path: Path) -> None:
    async with scene(tmp_path, "a") as built:
        starting = asyncio.create_task(built.service.start(await generation(built.service), ""))
        submit = await built.workers["a"].next_submit()
        router = built.service.cluster.router
        starting.cancel()
        router._fail(router.routes[submit.request_id], closing(), time.monotonic())
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert (router.routes, built.service._sessions) == ({}, {})


async def test_a_bug_when_a_deadline_passes_ends_that_request(tmp_path: Path) -> None:
    async with scene(tmp_path, "a") as built:
        session, request_id = await start(built.service, built.workers["a"])
        router = built.service.cluster.router
        route = router.routes[request_id]
        route._stage_ends_s = 0.0
        override(route, expired=None)
        router._deadlines.set(route, time.monotonic())
        await ended(session)
        assert session.error is not None
        assert (session.error.code, router.routes) == ("internal_error", {})


async def test_a_timer_that_is_early_is_set_again(tmp_path: Path) -> None:
    async with scene(tmp_path, "a") as built:
        session, request_id = await start(built.service, built.workers["a"])
        built.service.cancel(session)
        router = built.service.cluster.router
        early = router._deadlines.timers[request_id]
        router._expire(router.routes[request_id], time.monotonic())
        assert router._deadlines.timers[request_id] is not early
        assert not session.finished


async def test_a_request_that_kills_its_instances_is_given_up(tmp_path: Path) -> None:
    bound = ClusterConfig(max_restarts=2)
    async with play(tmp_path, "a", "b", "c", "d", cluster=bound) as playing:
        for actor in playing.actors.values():
            actor.poisoned = True
        session = await playing.start()
        await ended(session)
        assert session.status == "failed"
        assert session.error is not None
        assert session.error.code == "instance_lost"
        assert "restarted 2 times" in session.error.message
        await until(lambda: len(playing.cluster.instances) == 1)  # one survives
        assert playing.cluster.router.failovers == {"resumed": 2, "failed": 1}
        check_clean(playing, session)


async def test_a_new_request_waits_out_the_loss_of_its_only_instance(tmp_path: Path) -> None:
    async with play(tmp_path, "a") as playing:
        playing.actors["a"].holding |= {"accept"}
        starting = asyncio.create_task(playing.start())
        await until(lambda: playing.actors["a"].submits)
        await playing.scene.lose("a")
        assert not starting.done()
        await playing.scene.join("a", movable=True)
        playing.act("a")
        session = await starting
        await ended(session)
        check_whole(playing, session)


async def test_a_client_that_leaves_while_its_request_waits_leaves_nothing(tmp_path: Path) -> None:
    async with play(tmp_path, "a") as playing:
        playing.actors["a"].holding |= {"accept"}
        starting = asyncio.create_task(playing.start())
        await until(lambda: playing.actors["a"].submits)
        await playing.scene.lose("a")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert playing.cluster.router.routes == {}
        assert playing.cluster.router._deadlines.timers == {}


async def test_the_end_of_the_gateway_leaves_nobody_waiting(tmp_path: Path) -> None:
    async with play(tmp_path, "a") as playing:
        playing.actors["a"].holding |= {"generate"}
        playing.actors["a"].until_place = 2
        session = await playing.start()
        await until(lambda: len(session.token_ids) == 2)
        await playing.scene.lose("a")
        playing.service.fail_all()
        await ended(session)
        assert session.error is not None
        assert session.error.code == "draining"
        check_clean(playing, session)


# ---- draining ---------------------------------------------------------------------------------


async def test_a_drained_instance_gives_everything_away(tmp_path: Path) -> None:
    placement = PlacementConfig(boundary="off")
    async with play(tmp_path, "a", "b", placement=placement) as playing:
        a, b = playing.actors["a"], playing.actors["b"]
        a.holding |= {"generate"}
        a.until_place = 2
        b.holding |= {"generate"}
        b.until_place = 3
        sessions = [await playing.start() for _ in range(12)]
        await until(lambda: all(len(session.token_ids) >= 2 for session in sessions))
        mine = {s.response_id for s in sessions if s.instance_id == "a"}
        playing.cluster.drain("a")
        assert await playing.cluster.emptied("a")
        assert set(a.asked_for) == mine
        assert all(submit.ticket for submit in b.submits if submit.known_token_ids)
        await playing.start()
        assert playing.actors["b"].submits[-1].known_token_ids == ()
        playing.release()
        for session in sessions:
            await ended(session)
            assert session.answer_text == ANSWER
            assert (session.migrations == 1) == (session.response_id in mine)


async def test_without_tickets_a_drained_instance_gives_its_requests_to_be_computed(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, "a", "b") as built, asyncio.TaskGroup() as tasks:
        playing = Play(built, tasks)
        playing.act("a", "generate").until_place = 5
        playing.act("b")
        session = await playing.start()
        await until(lambda: len(session.token_ids) == 5)
        playing.cluster.drain("a")
        await ended(session)
        check_whole(playing, session)
        assert playing.cluster.router.migrations == {"recomputed": 1}
        playing.stop()


async def test_the_only_instance_keeps_its_requests_until_there_is_another(tmp_path: Path) -> None:
    async with play(tmp_path, "a") as playing:
        a = playing.actors["a"]
        a.holding |= {"generate"}
        a.until_place = 2
        session = await playing.start()
        await until(lambda: len(session.token_ids) == 2)
        playing.cluster.drain("a")
        assert not playing.service.ready
        assert (a.asked_for, session.instance_id) == ([], "a")
        await playing.scene.join("b", movable=True)
        playing.act("b")
        await ended(session)
        check_whole(playing, session)
        assert session.instance_id == "b"


async def test_a_request_that_the_drained_instance_has_not_accepted_leaves_at_once(
    tmp_path: Path,
) -> None:
    async with play(tmp_path, "a", "b") as playing:
        playing.actors["a"].holding |= {"accept"}
        starting = asyncio.create_task(playing.start())
        await until(lambda: playing.actors["a"].submits)
        playing.cluster.drain("a")
        session = await starting
        await ended(session)
        check_whole(playing, session)
        assert (session.instance_id, session.migrations, session.failovers) == ("b", 0, 0)
