"""Cluster, link and service against workers that follow a script, over real sockets."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from websockets.asyncio.server import ServerConnection, unix_serve

from gateway.config import ClusterConfig, LimitsConfig, SessionConfig
from gateway.policy.cluster_view import ViewRules, view_of
from gateway.policy.prefixes import prefixes_of
from gateway.routing import worker_link as link_module
from gateway.routing.instance import Totals
from gateway.routing.worker_link import LinkError, open_link
from gateway.schemas.errors import ApiError, InvalidRequest, NotFound, Overloaded, Unavailable
from tests.gateway.support.scripted_service import ended, generation, scene, serving, start, until
from tests.gateway.support.scripted_worker import IDLE, scripted_worker
from workers.messages import (
    Accepted,
    Cancel,
    DeviceStats,
    Finish,
    Heartbeat,
    MigrationStats,
    Prefixes,
    Rejected,
    SetPace,
)


async def test_a_response_from_submit_to_store(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker, instructions="Be brief.")
        await worker.tokens(request_id, 0, "Hel", "lo", finish=Finish(reason="stop"))
        await ended(session)
        assert session.answer_text == "Hello"
        assert service.cluster.router.routes_of("worker-0") == []
        assert service.cluster.totals() == {"worker-0": Totals(3, 40, 5)}
        response = await service.response_object(request_id, "")
        assert response["status"] == "completed"
        await service.close()  # waits for the store
        stored = await service.store.get(request_id, "")
        assert stored is not None
        assert stored.response == orjson.loads(orjson.dumps(response))
        assert [m.content for m in stored.conversation] == ["hi", "Hello"]
        follow_up = await generation(service, previous_response_id=request_id)
        assert [m.content for m in follow_up.messages] == ["hi", "Hello", "hi"]


async def test_new_requests_go_where_the_kv_footprint_is_smaller(tmp_path: Path) -> None:
    async with serving(tmp_path, "a", "b") as (service, workers):
        await start(service, workers["a"], input="one")
        await start(service, workers["b"], input="two")
        session, _ = await start(service, workers["a"], input="three")
        assert session.instance_id == "a"
        long = "x" * 4000
        await start(service, workers["b"], input=long)
        await start(service, workers["a"], input="four")


async def test_a_conversation_goes_on_where_its_kv_is(tmp_path: Path) -> None:
    async with serving(tmp_path, "a", "b") as (service, workers):
        first, first_id = await start(service, workers["a"])
        await workers["a"].tokens(first_id, 0, "Hello", finish=Finish(reason="stop"))
        await ended(first)
        prefix = prefixes_of(first.generation.messages)[-1]
        await workers["a"].say(Prefixes(tokens={prefix: 48}))
        await until(lambda: service.cluster.instances["a"].prefixes.tokens_of((prefix,)) == 48)
        await start(service, workers["a"], input="other")  # now "b" has less
        follow_up = await generation(service, previous_response_id=first_id)
        starting = asyncio.create_task(service.start(follow_up, ""))
        await workers["a"].accept(await workers["a"].next_submit())
        await starting
        await start(service, workers["b"], input="without history")


async def test_a_conversation_between_two_turns_counts_where_it_will_go_on(tmp_path: Path) -> None:
    async with serving(tmp_path, "a", "b") as (service, workers):
        fields: dict[str, Any] = {"input": "turn after turn"}
        for _ in range(3):
            session, request_id = await start(service, workers["a"], **fields)
            await workers["a"].tokens(request_id, 0, "Hello", finish=Finish(reason="stop"))
            await ended(session)
            fields["previous_response_id"] = session.response_id
        # No instance has a request now. In a tie, "a" would be taken.
        await start(service, workers["b"], input="another conversation")


async def test_every_gateway_learns_from_the_workers_where_a_conversation_is(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "a", "b") as (service, workers):
        # A client of chat completions sends the whole conversation; another gateway had the rest.
        conversation = [{"role": "user", "content": "word " * 200}]
        earlier = await generation(service, input=conversation)
        later = [*conversation, {"role": "assistant", "content": "b"}, conversation[0]]
        (prefix,) = prefixes_of(earlier.messages)
        await workers["b"].say(Prefixes(tokens={prefix: 208}))
        await until(lambda: service.cluster.instances["b"].prefixes.tokens_of((prefix,)))
        await start(service, workers["b"], input=later)
        await workers["b"].say(Prefixes(tokens={prefix: 0}))
        await until(lambda: not service.cluster.instances["b"].prefixes.tokens_of((prefix,)))
        await start(service, workers["a"], input=[*later[:-1], {"role": "user", "content": "c"}])


async def test_a_refusal_of_the_worker_names_the_field_of_the_api(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        starting = asyncio.create_task(service.start(await generation(service), ""))
        submit = await workers["worker-0"].next_submit()
        await workers["worker-0"].say(
            Rejected(
                request_id=submit.request_id,
                code="context_length_exceeded",
                message="too long",
                param="messages",
            )
        )
        with pytest.raises(InvalidRequest) as caught:
            await starting
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
        with pytest.raises(NotFound):
            service.find(submit.request_id, "")


async def test_a_bug_in_a_worker_is_not_the_fault_of_the_client(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        starting = asyncio.create_task(service.start(await generation(service), ""))
        submit = await workers["worker-0"].next_submit()
        refusal = Rejected(request_id=submit.request_id, code="internal_error", message="a bug")
        await workers["worker-0"].say(refusal)
        with pytest.raises(ApiError) as caught:
            await starting
        assert (caught.value.status, caught.value.code) == (500, "internal_error")


async def test_a_client_that_leaves_before_acceptance_is_cancelled(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        starting = asyncio.create_task(service.start(await generation(service), ""))
        submit = await worker.next_submit()
        starting.cancel()
        assert await worker.next() == Cancel(request_id=submit.request_id)
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert (service._sessions, service._running) == ({}, {})
        assert service._admission.in_engines == 0


AT_ONCE = {"cluster": ClusterConfig(failover_timeout_s=0)}


async def test_without_any_instance_requests_fail_after_a_while(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0", **AT_ONCE) as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker)
        await worker.tokens(request_id, 0, "half")
        starting = asyncio.create_task(service.start(await generation(service), ""))
        await worker.next_submit()
        await worker.hang_up()
        with pytest.raises(Unavailable) as caught:
            await starting
        assert caught.value.code == "no_instance"
        await ended(session)
        assert session.status == "failed"
        assert session.answer_text == "half"
        assert session.error is not None
        assert (session.error.code, session.failovers) == ("no_instance", 0)
        assert not service.ready
        with pytest.raises(Unavailable):
            await service.start(await generation(service), "")
        assert service.cluster.totals() == {"worker-0": Totals(3, 40, 5)}


@pytest.mark.parametrize("what", ["gap", "garbage", "foreign"])
async def test_a_worker_that_breaks_the_protocol_is_dropped(tmp_path: Path, what: str) -> None:
    async with serving(tmp_path, "worker-0", **AT_ONCE) as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker)
        if what == "gap":
            worker._sequence = 5
            await worker.tokens(request_id, 0, "x")
        else:
            await worker.say_raw(b"\x00" if what == "garbage" else b'{"type":"dance"}')
        await ended(session)
        assert session.status == "failed"
        assert service.cluster.instances == {}


async def test_tokens_that_do_not_follow_are_generated_again(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        broken, broken_id = await start(service, worker)
        sound, sound_id = await start(service, worker)
        await worker.tokens(broken_id, 0, "a ")
        await worker.tokens(broken_id, 3, "x")
        assert await worker.next_cancel() == broken_id
        again = await worker.next_submit()
        assert again.known_token_ids == (0,)
        assert again.request_id != broken_id
        await worker.tokens(broken_id, 4, "late", finish=Finish(reason="cancelled"))
        await worker.accept(again)
        await worker.tokens(again.request_id, 1, "b", finish=Finish(reason="stop"))
        await worker.tokens(sound_id, 0, "fine", finish=Finish(reason="stop"))
        await ended(broken)
        await ended(sound)
        assert (broken.answer_text, sound.answer_text) == ("a b", "fine")
        assert (broken.failovers, sound.failovers) == (1, 0)


async def test_cancel_and_pace_reach_the_worker(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker)
        service.set_pace(session, 0.05, True)
        message = await worker.next()
        assert isinstance(message, SetPace)
        assert (message.pace.tau_s, message.pace.paused) == (0.05, True)
        service.cancel(session)
        assert await worker.next() == Cancel(request_id=request_id)
        await worker.tokens(request_id, 0, finish=Finish(reason="cancelled"))
        await ended(session)
        assert session.incomplete_reason == "cancelled"
        service.cancel(session)  # again: nothing happens


async def test_a_paused_reader_that_never_comes_back_is_read_on(tmp_path: Path) -> None:
    tables = {"session": SessionConfig(ttl_s=0.05)}
    async with serving(tmp_path, "worker-0", **tables) as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker, pacing={"tpot_s": 0.001})
        service.set_pace(session, None, True)
        await worker.next()
        await worker.tokens(request_id, 0, "a", "b", finish=Finish(reason="stop"))
        await ended(session)
        assert session.answer_text == "ab"


async def test_finished_responses_are_kept_for_their_time_and_then_gone(tmp_path: Path) -> None:
    tables = {"session": SessionConfig(ttl_s=0.05)}
    async with serving(tmp_path, "worker-0", **tables) as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker, store=False)
        await worker.tokens(request_id, 0, "a", finish=Finish(reason="stop"))
        await ended(session)
        assert service.find(request_id, "") is session
        with pytest.raises(NotFound):
            service.find(request_id, "somebody else")
        while True:
            try:
                service.find(request_id, "")
            except NotFound:
                break
            await asyncio.sleep(0.01)


async def test_delete_forgets_a_running_response(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker)
        await service.delete(request_id, "")
        # At once, though its engine has not confirmed yet.
        for again in (service.delete(request_id, ""), service.response_object(request_id, "")):
            with pytest.raises(NotFound):
                await again
        with pytest.raises(NotFound):
            service.find(request_id, "")
        assert await worker.next() == Cancel(request_id=request_id)
        await worker.tokens(request_id, 0, finish=Finish(reason="cancelled"))
        await ended(session)
        with pytest.raises(NotFound):
            await service.response_object(request_id, "")


async def test_delete_forgets_a_finished_response(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        session, request_id = await start(service, workers["worker-0"])
        await workers["worker-0"].tokens(request_id, 0, "a", finish=Finish(reason="stop"))
        await ended(session)
        await service.delete(request_id, "")
        assert (service._sessions, len(service._kept)) == ({}, 0)
        with pytest.raises(NotFound):
            await service.response_object(request_id, "")


async def test_admission_limits_all_and_each_user(tmp_path: Path) -> None:
    tables = {"limits": LimitsConfig(max_requests=3, max_requests_per_user=1)}
    async with serving(tmp_path, "worker-0", **tables) as (service, workers):
        worker = workers["worker-0"]
        await start(service, worker, user="ann")
        with pytest.raises(Overloaded) as caught:
            await service.start(await generation(service, user="ann"), "")
        assert caught.value.code == "rate_limit_exceeded"
        first, first_id = await start(service, worker)
        await start(service, worker)  # without key or user no limit counts it
        with pytest.raises(Overloaded) as caught:
            await service.start(await generation(service), "")
        assert (caught.value.code, caught.value.retry_after_s) == ("server_overloaded", 2)
        await worker.tokens(first_id, 0, "x", finish=Finish(reason="stop"))
        await ended(first)
        await start(service, worker)


async def test_drain_refuses_new_requests_and_waits_for_the_running(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        session, request_id = await start(service, worker)
        draining = asyncio.create_task(service.drain(10))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await service.start(await generation(service), "")
        assert not draining.done()
        await worker.tokens(request_id, 0, "x", finish=Finish(reason="stop"))
        await ended(session)
        await asyncio.wait_for(draining, 10)
        assert session.status == "completed"


async def test_a_silent_instance_gets_no_new_requests(tmp_path: Path) -> None:
    async with serving(tmp_path, "a", "b") as (service, workers):
        service.cluster.instances["a"].link.last_heard_s -= 1000
        for _ in range(3):
            session, _ = await start(service, workers["b"])
            assert session.instance_id == "b"


async def test_a_request_that_was_not_accepted_is_placed_again(tmp_path: Path) -> None:
    async with serving(tmp_path, "a", "b") as (service, workers):
        starting = asyncio.create_task(service.start(await generation(service), ""))
        await workers["a"].next_submit()
        await workers["a"].hang_up()
        await workers["b"].accept(await workers["b"].next_submit())
        assert (await starting).instance_id == "b"


async def test_a_request_that_is_being_cancelled_ends_with_its_instance(tmp_path: Path) -> None:
    async with scene(tmp_path, "a", "b") as built:
        session, request_id = await start(built.service, built.workers["a"])
        built.service.cancel(session)
        assert await built.workers["a"].next_cancel() == request_id
        await built.lose("a")
        assert (session.finished, session.incomplete_reason) == (True, "cancelled")
        assert built.workers["b"].unread() == 0


async def test_whatever_a_worker_says_shows_that_it_lives(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        link = service.cluster.instances["worker-0"].link
        link.last_heard_s = 0.0
        await workers["worker-0"].say(Heartbeat(since_step_s=0.0, stats=IDLE))
        await until(lambda: link.last_heard_s)
        assert time.monotonic() - link.last_heard_s < 10


async def test_drain_cancels_what_takes_too_long(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        session, request_id = await start(service, workers["worker-0"])
        draining = asyncio.create_task(service.drain(0.01))
        assert await workers["worker-0"].next() == Cancel(request_id=request_id)
        await workers["worker-0"].tokens(request_id, 0, finish=Finish(reason="cancelled"))
        await ended(session)
        await asyncio.wait_for(draining, 10)


async def test_the_end_waits_neither_for_engines_nor_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(_: object) -> bool:
        return await asyncio.Event().wait()

    monkeypatch.setattr("gateway.service._CONFIRM_S", 0.01)
    monkeypatch.setattr("gateway.service._STORE_S", 0.01)
    async with serving(tmp_path, "worker-0") as (service, workers):
        monkeypatch.setattr(service.store, "put", hangs)
        session, _ = await start(service, workers["worker-0"])
        await asyncio.wait_for(service.drain(0.01), 5)
        assert session.status == "in_progress"  # its engine says nothing
        service.fail_all()
        assert session.status == "failed"
        await until(lambda: service._background)
        await asyncio.wait_for(service.close(), 5)


async def test_heartbeats_update_the_statistics(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        await workers["worker-0"].say(Heartbeat(since_step_s=4.5, stats=IDLE))
        await start(service, workers["worker-0"])  # comes after it on the link
        instance = service.cluster.instances["worker-0"]
        assert (instance.since_step_s, instance.stats) == (4.5, IDLE)
        metrics = service.metrics.render().decode()
        assert 'pascal_kv_blocks{instance="worker-0"} 100.0' in metrics
        assert "pascal_kv_blocks_held{" not in metrics  # its KV cannot move


async def test_memory_that_waits_for_its_reader_is_a_metric(tmp_path: Path) -> None:
    migration = MigrationStats(
        held_blocks=7,
        tickets_total=3,
        expired_total=0,
        read_requests_total=0,
        read_s_total=0.0,
        failed_total=0,
    )
    stats = msgspec.structs.replace(IDLE, migration=migration)
    async with serving(tmp_path, "worker-0") as (service, workers):
        await workers["worker-0"].say(Heartbeat(since_step_s=0.0, stats=stats))
        await start(service, workers["worker-0"])  # comes after it on the link
        assert b'pascal_kv_blocks_held{instance="worker-0"} 7.0' in service.metrics.render()


async def test_figures_of_an_emulated_device_are_metrics_of_its_own(tmp_path: Path) -> None:
    device = DeviceStats(
        passed_s=9.0, steps=7, busy_s=2.0, starved_s=0.5, late_s=0.25, stalled_s=0.125
    )
    emulated = msgspec.structs.replace(IDLE, device=device)
    async with serving(tmp_path, "real", "other") as (service, workers):
        await workers["real"].say(Heartbeat(since_step_s=0.0, stats=IDLE))
        await start(service, workers["real"], input="one")
        assert b"emulated" not in service.metrics.render()
        await workers["other"].say(Heartbeat(since_step_s=0.0, stats=emulated))
        await start(service, workers["other"], input="two")
        text = service.metrics.render().decode()
    lines = [line for line in text.splitlines() if line.startswith("pascal_emulated")]
    assert lines == [
        'pascal_emulated_seconds_total{instance="other"} 9.0',
        'pascal_emulated_steps_total{instance="other"} 7.0',
        'pascal_emulated_busy_seconds_total{instance="other"} 2.0',
        'pascal_emulated_starved_seconds_total{instance="other"} 0.5',
        'pascal_emulated_stalled_seconds_total{instance="other"} 0.125',
        'pascal_emulated_late_seconds_total{instance="other"} 0.25',
    ]


async def test_another_protocol_version_is_refused(tmp_path: Path) -> None:
    async with scripted_worker(tmp_path, protocol=99) as (worker, address):
        with pytest.raises(LinkError, match="does not speak protocol"):
            await open_link(address, None, "test")
        assert worker._socket is not None
        await asyncio.wait_for(worker._socket.wait_closed(), 10)


async def test_a_worker_that_never_welcomes_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = asyncio.Event()

    async def silent(socket: ServerConnection) -> None:
        await socket.wait_closed()
        closed.set()

    monkeypatch.setattr(link_module, "_WELCOME_S", 0.05)
    path = tmp_path / "silent.sock"
    async with unix_serve(silent, str(path)):
        with pytest.raises(LinkError, match="no welcome"):
            await asyncio.wait_for(open_link(f"unix:{path}", None, "test"), 10)
        await asyncio.wait_for(closed.wait(), 10)


async def test_a_link_lost_right_after_acceptance_loses_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, "a", "b") as (service, workers):
        starting = asyncio.create_task(service.start(await generation(service), ""))
        submit = await workers["a"].next_submit()
        instance = service.cluster.instances["a"]
        accepted = Accepted(request_id=submit.request_id, prompt_tokens=20, reasoning=False)
        service.cluster._handle(instance, accepted)  # and before the waiting task runs again:
        service.cluster._lose(instance)
        session = await starting
        again = await workers["b"].next_submit()
        await workers["b"].accept(again)
        await workers["b"].tokens(again.request_id, 0, "x", finish=Finish(reason="stop"))
        await ended(session)
        assert (session.status, session.instance_id) == ("completed", "b")


async def test_the_footprint_counts_whole_blocks(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        await start(service, workers["worker-0"])  # 20 prompt tokens, blocks of 16
        instance = service.cluster.instances["worker-0"]
        here = service.cluster.router._table.occupancy(instance)
        view = view_of(here, (), ViewRules(), 0.0)
        assert (view.kv_footprint_blocks, view.requests) == (2, 1)


async def test_an_absent_worker_is_a_link_error(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="cannot connect"):
        await open_link(f"unix:{tmp_path / 'nobody.sock'}", None, "test")
