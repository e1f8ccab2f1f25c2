"""Requests that change instances: each stage of a move, and each event that can happen there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from gateway.config import PlacementConfig
from gateway.policy.cluster_view import ViewRules
from gateway.policy.placement import Rules
from gateway.response.session import Session
from gateway.routing.chooser import Chooser
from gateway.routing.route import Stage
from gateway.routing.route_table import RouteTable
from gateway.schemas.errors import NotFound
from tests.gateway.support.instances import add, make_instance
from tests.gateway.support.scene import MOVE, Play, check_clean, check_whole, play
from tests.gateway.support.scripted_engine import ANSWER, BOUNDARY, LENGTH
from tests.gateway.support.scripted_service import ended, generation, scene, until
from tests.gateway.support.sessions import events_of
from workers.messages import Rejected

STAGES = ("handing over", "submitted", "pulling")


@asynccontextmanager
async def moving(
    folder: Path, stage: str, *names: str, **fields: Any
) -> AsyncIterator[tuple[Play, Session]]:
    """A request that is stopped in a stage of its move from "a" to "b"."""
    async with play(folder, *(names or ("a", "b"))) as playing:
        a, b = playing.actors["a"], playing.actors["b"]
        a.until_place, b.until_place = BOUNDARY + 1, 0
        a.holding |= {"generate"}
        b.holding |= {"generate"}
        if stage == "handing over":
            a.holding.add("hand over")
        if stage == "submitted":
            b.holding.add("accept")
        session = await playing.start(**fields)
        await playing.reach(session, Stage[stage.upper().replace(" ", "_")])
        await until(lambda: a.asked_for and (b.submits or stage == "handing over"))
        yield playing, session


# ---- the way itself ---------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["seed", "presence_penalty", "frequency_penalty"])
async def test_a_request_with_a_seed_or_penalties_moves(tmp_path: Path, field: str) -> None:
    async with play(tmp_path, "a", "b") as playing:
        session = await playing.start(**{field: 1})
        await ended(session)
        check_whole(playing, session)
        assert session.migrations == 1


async def test_a_request_moves_with_its_kv_at_the_boundary(tmp_path: Path) -> None:
    async with play(tmp_path, "a", "b") as playing:
        playing.actors["a"].until_place = LENGTH - 2  # some answer comes before it is let go
        playing.actors["a"].holding |= {"generate", "hand over"}
        session = await playing.start()
        await until(lambda: len(session.token_ids) == LENGTH - 2)
        await until(lambda: playing.actors["a"].asked_for)
        assert session.instance_id == "a"
        playing.release()
        await ended(session)
        check_whole(playing, session)
        (submit,) = playing.actors["b"].submits
        assert submit.ticket is not None
        assert submit.ticket.engine_id == playing.scene.workers["a"].engine_id
        assert 0 < submit.ticket.valid_s < 30.0  # the time that has passed is gone
        response = events_of(session)[-1]["response"]
        assert (response["instance"], response["migrations"], response["failovers"]) == ("b", 1, 0)
        assert response["usage"]["output_tokens"] == LENGTH
        assert playing.cluster.router.migrations == {"moved": 1}
        metrics = playing.service.metrics.render().decode()
        assert 'pascal_migrations_total{outcome="moved"} 1.0' in metrics
        assert 'pascal_boundary_blocking_seconds_count{how="moved"} 1.0' in metrics


@pytest.mark.parametrize("reason", ["boundary", "drain"])
async def test_the_log_says_why_a_request_moves(tmp_path: Path, reason: str) -> None:
    placement = MOVE if reason == "boundary" else replace(MOVE, boundary="off")
    with capture_logs() as logs:
        async with play(tmp_path, "a", "b", placement=placement) as playing:
            playing.actors["a"].until_place = LENGTH - 2
            playing.actors["a"].holding |= {"generate", "hand over"}
            session = await playing.start()
            await until(lambda: len(session.token_ids) == LENGTH - 2)
            if reason == "drain":
                playing.cluster.drain("a")
            await until(lambda: playing.actors["a"].asked_for)
            playing.release()
            await ended(session)
    by_event = {line["event"]: line for line in logs if line.get("request_id")}
    asked, finished = by_event["hand_over_requested"], by_event["migration_finished"]
    assert (asked["reason"], finished["reason"]) == (reason, reason)
    assert (asked["instance_id"], asked["target_id"]) == ("a", "b")
    assert asked["kv_blocks"] > 0


async def test_the_log_says_why_a_request_moves_without_its_kv(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with play(tmp_path, "a", "b") as playing:
            playing.actors["a"].until_place = 1
            playing.actors["a"].holding |= {"generate"}
            session = await playing.start()
            await until(lambda: len(session.token_ids) == 1)
            for instance in playing.cluster._members.open.values():
                instance.readable.clear()
            playing.cluster.drain("a")
            playing.release()
            await ended(session)
    (finished,) = [line for line in logs if line["event"] == "migration_finished"]
    assert (finished["reason"], finished["outcome"]) == ("drain", "recomputed")


async def test_staying_sends_nothing(tmp_path: Path) -> None:
    async with play(tmp_path, "a", "b", placement=PlacementConfig(boundary="off")) as playing:
        session = await playing.start()
        await ended(session)
        check_whole(playing, session)
        assert [len(actor.submits) for actor in playing.actors.values()] == [1, 0]
        assert playing.actors["a"].asked_for == []
        assert playing.cluster.router.migrations == {}
        metrics = playing.service.metrics.render().decode()
        assert 'pascal_boundary_blocking_seconds_count{how="stayed"} 1.0' in metrics


async def test_a_request_that_thinks_not_has_no_boundary(tmp_path: Path) -> None:
    async with scene(tmp_path, "a", "b", movable=True, placement=MOVE) as built:
        starting = asyncio.create_task(built.service.start(await generation(built.service), ""))
        submit = await built.workers["a"].next_submit()
        await built.workers["a"].accept(submit, reasoning=False)
        session = await starting
        await built.workers["a"].tokens(submit.request_id, 0, "x")
        await until(lambda: session.answer_text == "x")
        assert built.workers["a"].unread() == 0


async def test_instances_meet_in_both_directions_and_again_after_a_restart(tmp_path: Path) -> None:
    async with scene(tmp_path, "a", "b", "old", movable=True) as built:
        workers = built.workers
        old = await built.join("plain")  # its KV cannot move
        assert old.met == []
        assert set(workers["a"].met) == {workers[name].engine_id for name in ("b", "old")}
        await built.lose("b")
        again = await built.join("b", movable=True)
        await built.met("a", "b")
        assert workers["a"].met[-1] == again.engine_id
        assert set(again.met) == {workers[name].engine_id for name in ("a", "old")}


async def test_instances_that_could_not_meet_are_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.routing.cluster._MEET_AGAIN_S", 0.05)
    async with scene(tmp_path, "a", movable=True) as built:
        a, b = built.workers["a"], await built.join("b", movable=True, meeting_error="busy")
        await until(lambda: len(b.met) >= 2)
        b._meeting_error = None
        await built.met("b", "a")
        assert set(b.met) == {a.engine_id}


async def test_who_cannot_read_it_is_no_target(tmp_path: Path) -> None:
    async with scene(tmp_path, "a", movable=True, placement=MOVE) as built:
        await built.join("b", movable=True, meeting_error="no route")
        async with asyncio.TaskGroup() as tasks:
            playing = Play(built, tasks)
            playing.act("a")
            playing.act("b")
            session = await playing.start()
            await ended(session)
            check_whole(playing, session)
            assert playing.actors["a"].asked_for == []
            playing.stop()


# ---- every stage, every fault -----------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("lost", ["a", "b", "ab"])
async def test_an_instance_is_lost_on_the_way(tmp_path: Path, stage: str, lost: str) -> None:
    async with moving(tmp_path, stage, "a", "b", "c") as (playing, session):
        for name in lost:
            await playing.scene.lose(name)
        playing.release()
        await ended(session)
        check_whole(playing, session)
        router = playing.cluster.router
        at_source = stage == "handing over"
        assert session.failovers == {"a": at_source, "b": not at_source, "ab": 1 + at_source}[lost]
        last = session.instance_id or ""
        assert last in {"a": "b", "b": "c" if at_source else "ac", "ab": "c"}[lost]
        # Only a target that is lost before it was asked can be replaced without losing the KV.
        with_kv = at_source and lost == "b"
        assert router.migrations == {"moved" if with_kv else "recomputed": 1}
        final = playing.actors[last].submits[-1]
        assert (final.ticket is not None) == with_kv


@pytest.mark.parametrize("stage", STAGES)
async def test_nobody_is_left_until_one_comes_back(tmp_path: Path, stage: str) -> None:
    async with moving(tmp_path, stage) as (playing, session):
        await playing.scene.lose("a")
        await playing.scene.lose("b")
        await playing.reach(session, Stage.WAITING)
        assert session.status == "in_progress"
        await playing.scene.join("a", movable=True)
        playing.act("a")
        await ended(session)
        check_whole(playing, session)


@pytest.mark.parametrize("stage", STAGES)
async def test_time_runs_out_on_the_way(tmp_path: Path, stage: str) -> None:
    async with moving(tmp_path, stage) as (playing, session):
        a, b = playing.actors["a"], playing.actors["b"]
        holder = a if stage == "handing over" else b
        before = holder.submits[-1].request_id
        playing.let_time_run_out(session)
        await until(lambda: before in holder.cancelled)
        await until(lambda: len(b.submits) == (1 if stage == "handing over" else 2))
        assert b.submits[-1].ticket is None
        assert b.submits[-1].request_id != before
        playing.release()
        await ended(session)
        check_whole(playing, session)
        assert playing.cluster.router.migrations == {"recomputed": 1}
        assert (session.migrations, session.failovers) == (1, 0)


async def test_another_target_than_was_asked_for_must_know_the_source(tmp_path: Path) -> None:
    async with moving(tmp_path, "handing over") as (playing, session):
        await playing.scene.join("c", movable=True, meeting_error="no route")
        playing.act("c")
        await playing.scene.lose("b")
        playing.release()
        await ended(session)
        check_whole(playing, session)
        assert [submit.ticket for submit in playing.actors["c"].submits] == [None]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_the_reader_wants_no_more(tmp_path: Path, stage: str, how: str) -> None:
    async with moving(tmp_path, stage) as (playing, session):
        if how == "cancel":
            playing.service.cancel(session)
        else:
            await playing.service.delete(session.response_id, "")
        holder = playing.actors["a" if stage == "handing over" else "b"]
        await until(lambda: holder.cancelled)
        playing.release()
        await ended(session)
        assert session.incomplete_reason == "cancelled"
        check_clean(playing, session)
        assert playing.cluster.router.migrations == {"cancelled": 1}
        if how == "delete":
            with pytest.raises(NotFound):
                playing.service.find(session.response_id, "")


@pytest.mark.parametrize("stage", STAGES)
async def test_a_cancelled_request_needs_no_other_instance(tmp_path: Path, stage: str) -> None:
    async with moving(tmp_path, stage) as (playing, session):
        holder = "a" if stage == "handing over" else "b"
        await playing.scene.lose("b" if holder == "a" else "a")
        playing.service.cancel(session)
        await playing.scene.lose(holder)
        await ended(session)
        assert session.incomplete_reason == "cancelled"
        check_clean(playing, session)


@pytest.mark.parametrize("stage", STAGES)
async def test_the_reader_pauses_on_the_way(tmp_path: Path, stage: str) -> None:
    async with moving(tmp_path, stage) as (playing, session):
        playing.service.set_pace(session, 0.001, True)
        b = playing.actors["b"]
        holder = playing.actors["a" if stage == "handing over" else "b"]
        await until(lambda: holder.paces)
        playing.release()
        await until(lambda: len(session.token_ids) == LENGTH)
        told = [pace.pace for pace in b.paces] + [submit.pace for submit in b.submits]
        assert any((pace.tau_s, pace.paused) == (0.001, True) for pace in told)
        assert not session.finished
        playing.service.set_pace(session, None, False)
        await ended(session)
        check_whole(playing, session)


@pytest.mark.parametrize("valid_s", [None, 0.0])
async def test_without_a_good_ticket_it_goes_all_the_same(
    tmp_path: Path, valid_s: float | None
) -> None:
    async with moving(tmp_path, "handing over") as (playing, session):
        playing.actors["a"].ticket_valid_s = valid_s
        playing.release()
        await ended(session)
        check_whole(playing, session)
        assert [submit.ticket for submit in playing.actors["b"].submits] == [None]
        assert playing.cluster.router.migrations == {"recomputed": 1}


async def test_a_request_that_ends_before_it_is_let_go_does_not_move(tmp_path: Path) -> None:
    async with play(tmp_path, "a", "b") as playing:
        a = playing.actors["a"]
        a.holding |= {"hand over", "generate"}
        a.until_place = LENGTH - 1
        session = await playing.start()
        await until(lambda: a.asked_for)
        a.until_place = LENGTH
        a.wake()
        await ended(session)
        check_whole(playing, session)
        assert a.asked_for == [session.response_id]
        assert playing.actors["b"].submits == []
        assert playing.cluster.router.migrations == {"finished": 1}
        assert session.migrations == 0


async def test_a_target_that_refuses_the_ticket_computes(tmp_path: Path) -> None:
    async with moving(tmp_path, "submitted") as (playing, session):
        b = playing.actors["b"]
        rejected = Rejected(
            request_id=b.submits[0].request_id, code="invalid_value", message="bad ticket"
        )
        await playing.scene.workers["b"].say(rejected)
        await until(lambda: len(b.submits) == 2)
        assert b.submits[1].ticket is None
        playing.release()
        await ended(session)
        check_whole(playing, session)


async def test_a_claim_that_is_refused_inside_the_target_is_no_move(tmp_path: Path) -> None:
    async with moving(tmp_path, "pulling") as (playing, session):
        playing.actors["b"].refuses_tickets = True
        with capture_logs() as logs:
            playing.release()
            await ended(session)
        check_whole(playing, session)
        assert playing.actors["b"].submits[0].ticket is not None
        assert playing.cluster.router.migrations == {"recomputed": 1}
        metrics = playing.service.metrics.render().decode()
        assert 'pascal_migrations_total{outcome="recomputed"} 1.0' in metrics
        assert 'pascal_migrations_total{outcome="moved"} 0.0' in metrics
        assert 'pascal_boundary_blocking_seconds_count{how="recomputed"} 1.0' in metrics
        (finished,) = [line for line in logs if line["event"] == "migration_finished"]
        assert (finished["outcome"], finished["kv_tokens"]) == ("recomputed", 0)
        assert (finished["source_id"], finished["instance_id"]) == ("a", "b")


async def test_few_requests_move_at_once(tmp_path: Path) -> None:
    placement = replace(MOVE, max_migrations_per_instance=1, reserve_memory=False)
    async with play(tmp_path, "a", "b", placement=placement) as playing:
        a, b = playing.actors["a"], playing.actors["b"]
        a.holding |= {"hand over", "generate"}
        a.until_place = LENGTH - 1
        playing.cluster.drain("b")  # both begin at "a"
        first = await playing.start()
        second = await playing.start()
        await until(lambda: len(first.token_ids) == BOUNDARY or second.token_ids)
        playing.cluster.undrain("b")
        await until(lambda: len(first.token_ids) + len(second.token_ids) == 2 * (LENGTH - 1))
        assert len(a.asked_for) <= 1
        playing.release()
        await ended(first)
        await ended(second)
        check_whole(playing, first)
        assert len(b.submits) == len(a.asked_for)


async def test_few_requests_move_at_once_between_any_instances(tmp_path: Path) -> None:
    placement = replace(MOVE, max_migrations=1, max_migrations_per_instance=0, reserve_memory=False)
    async with play(tmp_path, "a", "b", "c", placement=placement) as playing:
        sources = [playing.actors["a"], playing.actors["b"]]
        for source in sources:
            source.holding |= {"generate", "hand over"}
            source.until_place = BOUNDARY
        playing.cluster.drain("c")
        sessions = [await playing.start() for _ in range(2)]  # one at each
        await until(lambda: all(len(session.token_ids) == BOUNDARY for session in sessions))
        playing.cluster.undrain("c")
        for source in sources:
            source.until_place = BOUNDARY + 1
            source.wake()
        await until(lambda: all(len(session.token_ids) > BOUNDARY for session in sessions))
        assert len(playing.cluster.router.migrating) == 1
        playing.release()
        for session in sessions:
            await ended(session)
            assert session.answer_text == ANSWER


@pytest.mark.parametrize("reserve", [True, False])
async def test_boundaries_that_come_at_once_do_not_all_choose_the_same(
    tmp_path: Path, reserve: bool
) -> None:
    placement = PlacementConfig(
        boundary="balance", headroom=0.0, reserve_memory=reserve, max_migrations=0
    )
    async with play(tmp_path, "a", "b", placement=placement) as playing:
        a = playing.actors["a"]
        a.holding |= {"generate", "hand over"}
        a.until_place = BOUNDARY
        playing.cluster.drain("b")  # all begin at "a", with two blocks each
        sessions = [await playing.start() for _ in range(4)]
        await until(lambda: all(len(session.token_ids) == BOUNDARY for session in sessions))
        playing.cluster.undrain("b")
        a.until_place = BOUNDARY + 1
        a.wake()
        await until(lambda: all(len(session.token_ids) > BOUNDARY for session in sessions))
        # 8 and 0 blocks: the first move makes it 6 and 2, a gap of no more than twice its own.
        assert len(playing.cluster.router.migrating) == (1 if reserve else 4)
        playing.release()
        for session in sessions:
            await ended(session)
            assert session.answer_text == ANSWER


def test_a_request_that_is_being_cancelled_does_not_move() -> None:
    a, b = make_instance("a"), make_instance("b")
    table = RouteTable()
    route = add(table, "a", "at-boundary", thoughts=160)
    add(table, "a", "thinks", thoughts=160)
    members: Any = SimpleNamespace(targets=lambda here, now: [b], drained=set())
    chooser = Chooser(members, table, Rules(boundary="always"), ViewRules())
    assert chooser.at_boundary(route, a, 0.0) == "b"
    route.session.cancelling = True
    assert chooser.at_boundary(route, a, 0.0) is None
