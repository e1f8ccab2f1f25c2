"""A bug in one request ends that request, not its instance, its socket or the shutdown."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.api.websocket import WebSocketConnection
from gateway.app import _close_sockets
from gateway.response.session import Session
from gateway.routing import worker_link as link_module
from gateway.routing.route import Route, RouteTimeouts
from gateway.schemas.errors import InvalidRequest, Overloaded
from gateway.service import ResponseService
from gateway.store import ResponseStore
from tests.gateway.api.test_apis import accepted, api, create, receive
from tests.gateway.support.override import override
from tests.gateway.support.scripted_service import (
    TARGETS,
    ended,
    generation,
    scene,
    serving,
    start,
    until,
)
from tests.gateway.support.scripted_worker import IDLE, ScriptedWorker
from tests.gateway.support.sessions import events_of
from workers import messages
from workers.messages import Finish, PeerMet, Rejected, SetPace, Step, TokenRun

STOP = Finish(reason="stop")


class Bug(Exception):
    """The exception of a bug in a handler."""


def broken(*_: object, **__: object) -> Any:
    raise Bug


def run_of(request_id: str, position: int, *texts: str, finish: Finish | None = None) -> TokenRun:
    ids = tuple(range(position, position + len(texts)))
    return TokenRun(
        request_id=request_id, position=position, token_ids=ids, texts=texts, finish=finish
    )


async def step(worker: ScriptedWorker, *runs: TokenRun) -> None:
    """Tokens of several requests in one frame."""
    await worker.say(Step(sequence=worker._sequence, runs=runs, stats=IDLE))
    worker._sequence += 1


def break_tokens(_: ResponseService, session: Session, __: Route) -> None:
    override(session.delivery, arrived=broken)


def break_transcript(_: ResponseService, session: Session, __: Route) -> None:
    """`Session.fail` raises too."""
    override(session.delivery, arrived=broken)
    override(session.transcript, close=broken)


def break_everything(_: ResponseService, session: Session, __: Route) -> None:
    """The text of the response cannot be read either."""
    session.transcript = None  # type: ignore[assignment]


def break_end(_: ResponseService, session: Session, __: Route) -> None:
    """`Session.fail` works, but its event cannot be built."""
    override(session.delivery, arrived=broken)
    override(session, response_object=broken)


def break_response_object(_: ResponseService, session: Session, __: Route) -> None:
    override(session.delivery, arrived=broken)
    override(session.transcript, output=broken)


def break_route(_: ResponseService, __: Session, route: Route) -> None:
    route.boundary_s = 0.0  # it waits for its first answering token
    override(route, progressed=broken)


def break_decision(service: ResponseService, _: Session, route: Route) -> None:
    router, decide = service.cluster.router, service.cluster.router._decide

    def decide_or_break(instance: Any, taken: Any, now: float) -> None:
        (broken if taken.route is route else decide)(instance, taken, now)

    route.boundary_s = 0.0
    router._decide = decide_or_break  # type: ignore[method-assign]


def break_timer(_: ResponseService, session: Session, __: Route) -> None:
    override(session, next_release_s=broken)


BUGS = (
    break_tokens,
    break_transcript,
    break_everything,
    break_end,
    break_response_object,
    break_route,
    break_decision,
    break_timer,
)


@pytest.mark.parametrize("bug", BUGS)
async def test_a_bug_in_one_request_of_a_step_ends_that_request_alone(
    tmp_path: Path, bug: Callable[[ResponseService, Session, Route], None]
) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        first, first_id = await start(service, worker)
        second, second_id = await start(service, worker)
        bug(service, first, service.cluster.router.routes[first_id])
        await step(worker, run_of(first_id, 0, "a"), run_of(second_id, 0, "b"))
        await asyncio.wait_for(first.log.ended(), 10)
        assert first.error is not None
        assert (first.status, first.error.code) == ("failed", "internal_error")
        assert await worker.next_cancel() == first_id
        await worker.tokens(second_id, 1, "c", finish=STOP)
        await ended(second)
        assert (second.status, second.answer_text) == ("completed", "bc")
        # Nothing is left of either, and the instance serves on.
        assert (service.cluster.router.routes, service.cluster.router._deadlines.timers) == ({}, {})
        assert service._admission.in_engines == 0
        third, third_id = await start(service, worker)
        await worker.tokens(third_id, 0, "d", finish=STOP)
        await ended(third)


@pytest.mark.parametrize("pacing", [False, {"tpot_s": 0.01}])
async def test_a_bug_at_the_very_end_of_a_response_ends_it_all_the_same(
    tmp_path: Path, pacing: Any
) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker, pacing=pacing)
        override(session.transcript, output=broken)
        await worker.tokens(request_id, 0, "a", "b", finish=STOP)
        await asyncio.wait_for(session.log.ended(), 10)
        last = events_of(session)[-1]
        assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
        assert last["response"]["error"]["code"] == "internal_error"
        assert isinstance(last["response"]["created_at"], int)
        assert (service.cluster.router.routes, service._running) == ({}, {})
        assert service._admission.in_engines == 0


async def test_a_bug_in_a_cancel_leaves_no_response_behind(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        session, request_id = await start(service, workers["worker-0"], pacing={"tpot_s": 60})
        await workers["worker-0"].tokens(request_id, 0, "a", "b", "c", finish=STOP)
        await until(lambda: service._admission.in_engines == 0)
        override(session.transcript, output=broken)
        service.cancel(session)
        assert (session.status, session.log.closed) == ("failed", True)
        assert (service._running, service._admission._admitted) == ({}, {})


@pytest.mark.parametrize("answer", ["accepted", "rejected"])
async def test_a_bug_while_a_request_is_answered_answers_its_client(
    tmp_path: Path, answer: str
) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        starting = asyncio.create_task(service.start(await generation(service), ""))
        submit = await worker.next_submit()
        session = next(iter(service._sessions.values()))
        if answer == "accepted":
            override(session, accepted=broken)
            await worker.accept(submit)
        else:
            session.generation = None  # type: ignore[assignment]
            await worker.say(Rejected(request_id=submit.request_id, code="no", message="No."))
        with pytest.raises(Exception, match="Internal error"):
            await asyncio.wait_for(starting, 10)
        assert service._sessions == {}
        if answer == "accepted":
            await worker.next_cancel()
        other, other_id = await start(service, worker)
        await worker.tokens(other_id, 0, "b", finish=STOP)
        await ended(other)


async def test_a_bug_met_by_one_message_does_not_end_the_link(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker)
        override(service.cluster, _peer_met=broken)
        await worker.say(PeerMet(engine_id="other"))
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await ended(session)
        assert session.failovers == 0


@pytest.mark.parametrize("part", ["session", "delivery"])
async def test_a_bug_in_the_release_of_one_response_ends_that_response(
    tmp_path: Path, part: str
) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        first, first_id = await start(service, worker, pacing={"tpot_s": 0.5})
        second, second_id = await start(service, worker, pacing={"tpot_s": 0.01})
        for request_id in (first_id, second_id):
            await worker.tokens(request_id, 0, "a", "b", "c", finish=STOP)
        await until(lambda: first.answer_text)
        if part == "session":
            override(first, release=broken)
        else:
            override(first.delivery, next_release_s=broken)
        await asyncio.wait_for(first.log.ended(), 10)
        await ended(second)
        assert (first.status, second.status) == ("failed", "completed")


async def test_a_bug_under_one_request_does_not_keep_the_others_on_a_lost_instance(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, "a") as built:
        service, worker = built.service, built.workers["a"]
        first, first_id = await start(service, worker)
        second, second_id = await start(service, worker)
        waiting, waiting_id = await start(service, worker)
        override(service.cluster.router.routes[first_id], lost=broken)
        await built.lose("a")
        assert first.status == "failed"
        # The same when an instance comes for those that wait, one of which is broken.
        override(service.cluster.router.routes[second_id], submitted=broken)
        worker = await built.join("b")
        assert second.status == "failed"
        again = await worker.next_submit()
        assert again.request_id.startswith(waiting_id)
        await worker.accept(again)
        await worker.tokens(again.request_id, 0, "x", finish=STOP)
        await ended(waiting)
        assert waiting.status == "completed"


async def test_a_bug_under_one_request_does_not_keep_the_others_on_a_drained_instance(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, "a") as built:
        service = built.service
        first, first_id = await start(service, built.workers["a"])
        second, second_id = await start(service, built.workers["a"])
        override(service.cluster.router.routes[first_id], withdraw=broken)
        b = await built.join("b")
        service.cluster.drain("a")
        assert first.status == "failed"
        again = await b.next_submit()
        assert again.request_id.startswith(second_id)
        assert not second.finished


async def test_a_bug_in_one_response_does_not_hold_up_the_end_of_the_gateway(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        first, first_id = await start(service, worker)
        second, second_id = await start(service, worker)
        override(first, cancel=broken)
        draining = asyncio.create_task(service.drain(0.01))
        assert {await worker.next_cancel(), await worker.next_cancel()} == {first_id, second_id}
        await worker.tokens(second_id, 0, finish=Finish(reason="cancelled"))
        await asyncio.wait_for(draining, 10)
        third, _ = await _started_by_force(service, worker)
        override(third, fail=broken)
        service.fail_all()
        codes = [session.error and session.error.code for session in (first, second, third)]
        assert codes == ["internal_error", "draining", "internal_error"]


async def test_a_bug_in_one_request_that_waits_does_not_keep_others_waiting_at_the_end(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, "a") as built:
        service, worker = built.service, built.workers["a"]
        sessions = [(await start(service, worker))[0] for _ in range(2)]
        await built.lose("a")
        override(sessions[0], fail=broken)
        service.cluster.close()
        codes = [session.error and session.error.code for session in sessions]
        assert codes == ["internal_error", "draining"]
        assert (service.cluster.router.routes, service.cluster.router._deadlines.timers) == ({}, {})


async def test_the_end_of_the_gateway_leaves_no_deadline_behind(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        session, _ = await start(service, workers["worker-0"])
        service.cancel(session)
        assert service.cluster.router._deadlines.timers
        service.fail_all()
        assert (service.cluster.router.routes, service.cluster.router._deadlines.timers) == ({}, {})


async def _started_by_force(
    service: ResponseService, worker: ScriptedWorker
) -> tuple[Session, str]:
    service.draining = False
    return await start(service, worker)


async def test_a_response_that_cannot_be_counted_is_ended_and_stored_all_the_same(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        override(service.metrics, response_ended=broken)
        session, request_id = await start(service, worker)
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await ended(session)
        await service.close()
        assert service._admission.in_engines == 0
        assert await service.store.get(request_id, "") is not None


async def test_a_lane_answers_each_request_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def locked(*_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    async with (
        api(tmp_path) as (client, worker, _),
        client.ws_connect("/v1/responses") as socket,
    ):
        monkeypatch.setattr(ResponseStore, "get", locked)
        await create(socket, stream_id="lane")
        await create(socket, stream_id="lane", previous_response_id="resp_x")
        await create(socket, stream_id="lane")
        await worker.tokens(await accepted(worker), 0, "a", finish=STOP)
        await receive(socket, "response.completed")
        error = await receive(socket, "error")
        assert (error["stream_id"], error["error"]["code"]) == ("lane", "internal_error")
        await worker.tokens(await accepted(worker), 0, "b", finish=STOP)
        await receive(socket, "response.completed")


async def test_an_instance_that_never_confirms_a_cancel_holds_up_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        service.cluster.router._timeouts = RouteTimeouts(cancel_timeout_s=0.05)
        session, _ = await start(service, workers["worker-0"])
        service.cancel(session)
        await ended(session)
        assert session.incomplete_reason == "cancelled"
        assert service.cluster.router.routes == {}


async def test_prompts_that_come_faster_than_a_worker_takes_them_are_refused_or_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path, "a") as built:
        service, worker = built.service, built.workers["a"]
        long = await generation(service, input="x" * 3000)
        running = []
        for _ in range(8):
            asked = asyncio.create_task(service.start(long, ""))
            await worker.accept(await worker.next_submit())
            running.append(await asked)
        monkeypatch.setattr(link_module, "_FULL_BYTES", 5000)
        monkeypatch.setattr(link_module, "_MAX_UNSENT_BYTES", 10_000)
        burst = [asyncio.create_task(service.start(long, "")) for _ in range(9)]
        taken = [await worker.next_submit() for _ in range(2)]
        await asyncio.wait(burst[2:])
        assert {type(task.exception()) for task in burst[2:]} == {Overloaded}
        for submit in taken:
            await worker.accept(submit)
        running += [await task for task in burst[:2]]
        # What has begun waits instead: an instance that joins is not drowned in it.
        await built.lose("a")
        worker = await built.join("b")
        for _ in running:
            submit = await worker.next_submit()
            await worker.accept(submit)
            await worker.tokens(submit.request_id, 0, "x", finish=STOP)
        for session in running:
            await ended(session)
        assert {session.failovers for session in running} == {1}


async def test_a_worker_that_does_not_read_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path, "a") as built:
        monkeypatch.setattr(link_module, "_MAX_UNSENT_BYTES", 2000)
        starting = asyncio.create_task(
            built.service.start(await generation(built.service, input="x" * 3000), "")
        )
        await until(lambda: "a" not in built.service.cluster.instances)
        monkeypatch.undo()
        worker = await built.join("b")
        await worker.accept(await worker.next_submit())
        assert (await starting).instance_id == "b"


async def test_a_worker_that_reads_may_be_sent_any_amount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_MAX_UNSENT_BYTES", 2000)
    async with serving(tmp_path, "worker-0") as (service, workers):
        session, request_id = await start(service, workers["worker-0"])
        for _ in range(100):
            service.cluster.set_pace(session)
            assert isinstance(await workers["worker-0"].next(), SetPace)
        await workers["worker-0"].tokens(request_id, 0, "a", finish=STOP)
        await ended(session)
        assert session.failovers == 0


async def test_a_conversation_too_long_for_the_link_is_refused_and_the_link_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MAX_TO_WORKER_BYTES", 2000)
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker)
        with pytest.raises(InvalidRequest) as caught:
            await service.start(await generation(service, input="x" * 3000), "")
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
        (route,) = service.cluster.router.routes_of("worker-0")
        assert list(service.cluster.router.routes) == [route.wire_id] == [request_id]
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await ended(session)


class Socket:
    """A client's socket at shutdown."""

    def __init__(self, closing: Callable[[], Any]) -> None:
        self.close = closing


async def test_every_client_is_told_of_the_end_though_others_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.app._GOODBYE_S", 0.05)
    told = []

    async def sound() -> None:
        told.append("sound")

    async def never() -> None:
        await asyncio.Event().wait()

    async def raises() -> None:
        raise RuntimeError("Call .prepare() first")

    sockets: Any = {Socket(raises), Socket(never), Socket(sound)}
    await asyncio.wait_for(_close_sockets(sockets), 10)
    assert told == ["sound"]
    await _close_sockets(set())


async def test_a_lane_whose_client_has_gone_starts_nothing_more(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _):
        connection = WebSocketConnection(service, "", TARGETS)
        begun: list[Any] = []

        async def gone(body: Any, _: str | None) -> None:
            begun.append(body)
            raise ConnectionResetError

        connection._run = gone  # type: ignore[method-assign, assignment]
        bodies: Any = [("first", 10), ("second", 20)]  # with their sizes
        connection._waiting_bytes = 30
        connection._lanes["lane"] = deque(bodies)
        await connection._guarded(lambda: connection._run_lane("lane"), "lane")
        assert (begun, connection._lanes) == (["first"], {})
