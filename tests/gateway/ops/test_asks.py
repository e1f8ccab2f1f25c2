"""What a viewer may ask for: the life of one request, and the worst requests behind a figure."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse

from gateway.ops.life import MARKS, MOST_MARKS, Life
from gateway.ops.watch import Watch
from gateway.ops.worst import FIGURES, Worst
from gateway.response.tally import LIVE_STATES
from tests.gateway.ops.test_socket import frames_until, gateway
from tests.gateway.ops.test_watch import STREAM, looked
from tests.gateway.support.scripted_service import ended, scene, serving, start, until
from workers.messages import Finish

FAST: dict[str, Any] = {"stream": True, "pacing": {"tpot_s": 0.01}}


async def followed(socket: ClientWebSocketResponse, what: str) -> dict[str, Any]:
    """The next frame about the request in which something holds."""
    while True:
        frame = (await frames_until(socket, "request"))[-1]
        if any(mark[1] == what for mark in frame["marks"]) or frame["status"] == what:
            return frame


async def test_the_life_of_a_request_up_to_its_end(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path) as (client, service, worker, _),
        client.ws_connect("/admin/ops") as socket,
    ):
        await frames_until(socket, "requests")
        session, name = await start(service, worker, reasoning=True, **FAST)
        await frames_until(socket, "events")
        await socket.send_json({"type": "follow", "number": 1})
        frame = (await frames_until(socket, "request"))[-1]
        assert frame["number"] == 1
        assert frame["response"] == session.response_id
        assert frame["instance"] == "worker-0"
        assert [mark[1:] for mark in frame["marks"]] == [["queued", None], ["queued", "worker-0"]]
        assert (frame["ttft_s"], frame["qoe"], frame["ahead_s"]) == (None, None, None)
        await worker.tokens(name, 0, "a", "b")
        frame = await followed(socket, "reasoning")
        begun_s = session.delivery.first_token_s
        assert begun_s is not None
        # The time of the token itself, and not that of the look at it.
        assert frame["marks"][-1][0] == round(begun_s - session.delivery.submitted_s, 3)
        await worker.tokens(name, 2, "end", boundary=0)
        await worker.tokens(name, 3, "x", "y", "z")
        frame = await followed(socket, "answering")
        assert frame["tokens"] == {
            "prompt": session.prompt_tokens,
            "reasoning": 3,
            "answering": 3,
            "calling": 0,
            "waiting": frame["tokens"]["waiting"],
        }
        assert frame["ttft_s"] == session.delivery.times_to_first()[0]
        assert 0 < frame["qoe"] <= 1
        assert (await followed(socket, "dry"))["ahead_s"] < 0
        await worker.tokens(name, 6, finish=Finish(reason="stop"))
        await ended(session)
        last = await followed(socket, "completed")
        assert last["qoe"] == round(session.measurements()["qoe"]["qoe"], 4)
        age_s = session.measurements()["timing"]["paced"]["e2e_s"]
        assert last["age_s"] == pytest.approx(age_s, abs=1e-3)
        await frames_until(socket, "second")
        after = await frames_until(socket, "second")
        assert [frame for frame in after if frame["type"] == "request"] == []


async def test_one_that_is_gone_is_not_known_and_null_ends_it(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path) as (client, service, worker, _),
        client.ws_connect("/admin/ops") as socket,
        client.ws_connect("/admin/ops") as other,
    ):
        await frames_until(socket, "requests")
        await socket.send_json({"type": "follow", "number": 99})
        assert (await frames_until(socket, "unknown_request"))[-1]["number"] == 99
        session, _ = await start(service, worker, **STREAM)
        await frames_until(socket, "events")
        await socket.send_json({"type": "follow", "number": 1})
        await frames_until(socket, "request")
        await socket.send_json({"type": "follow", "number": None})
        await frames_until(socket, "second")
        later = await frames_until(socket, "second")
        assert not any(frame["type"] == "request" for frame in later)
        await frames_until(other, "second")
        seen = await frames_until(other, "second")
        assert not any(frame["type"] == "request" for frame in seen)  # it did not ask
        service.cancel(session)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("not JSON", None),
        ("[]", None),
        ("{}", "type"),
        ('{"type": "dance"}', "type"),
        ('{"type": "follow", "number": 0}', "number"),
        ('{"type": "follow", "number": 9007199254740992}', "number"),
        ('{"type": "follow", "number": 99999999999999999999999}', "number"),
        ('{"type": "follow", "number": "1"}', "number"),
        ('{"type": "follow", "name": 1}', "name"),
        ('{"type": "rank", "figure": "beauty"}', "figure"),
    ],
)
async def test_a_wrong_message_is_refused_and_named(
    tmp_path: Path, message: str, param: str | None
) -> None:
    async with (
        gateway(tmp_path) as (client, *_),
        client.ws_connect("/admin/ops") as socket,
    ):
        await frames_until(socket, "hello")
        await socket.send_str(message)
        assert (await frames_until(socket, "refused"))[-1]["error"]["param"] == param
        await frames_until(socket, "second")  # it stays open


async def test_a_request_that_was_there_before_the_first_viewer(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        session, name = await start(service, worker, reasoning=True, **STREAM)
        await worker.tokens(name, 0, "a", "end", boundary=1)
        await worker.tokens(name, 2, "x")
        await until(lambda: session.output_tokens == 3)
        watch = Watch(service.tally)
        looked(watch)
        (one,) = watch.seen.values()
        marks = one.life.marks(watch.names)
        assert [mark[1] for mark in marks] == ["queued", "reasoning", "answering"]
        times = [mark[0] for mark in marks]
        assert times == sorted(times)
        boundary_s = session.delivery.boundary_s
        assert boundary_s is not None
        assert times[-1] == round(boundary_s - session.delivery.submitted_s, 3)
        service.cancel(session)


async def test_thoughts_that_begin_and_end_between_two_looks_are_in_the_life(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker, watch = workers["worker-0"], Watch(service.tally)
        session, name = await start(service, worker, reasoning=True, **STREAM)
        looked(watch)
        await worker.tokens(name, 0, "a", "end", boundary=1)
        await worker.tokens(name, 2, "x")
        await until(lambda: session.output_tokens == 3)
        looked(watch)
        (one,) = watch.seen.values()
        marks = [mark[1] for mark in one.life.marks(watch.names)]
        assert marks == ["queued", "queued", "reasoning", "answering"]
        service.cancel(session)


async def test_waits_moves_and_dry_readers_are_in_the_life(tmp_path: Path) -> None:
    async with scene(tmp_path, "worker-0", "worker-1") as built:
        service, watch = built.service, Watch(built.service.tally)
        session, name = await start(service, built.workers["worker-0"], **FAST)
        await built.workers["worker-0"].tokens(name, 0, "a", "b")
        await until(lambda: session.output_tokens == 2 and not session.waiting_tokens)
        looked(watch, thoroughly=True)
        looked(watch, thoroughly=True, after_s=1.5)
        await built.lose("worker-0")
        submit = await built.workers["worker-1"].next_submit()
        await built.workers["worker-1"].accept(submit)
        await until(lambda: session.instance_id == "worker-1")
        await built.workers["worker-1"].tokens(submit.request_id, 2, "c")
        await until(lambda: session.output_tokens == 3)
        looked(watch, thoroughly=True, after_s=2.0)
        (one,) = watch.seen.values()
        found = [tuple(mark[1:]) for mark in one.life.marks(watch.names)]
        assert ("waits", "worker-0") in found
        assert ("goes_on", "worker-1") in found
        assert ("dry", "worker-0") in found
        states = [mark for mark in found if mark[0] in LIVE_STATES]
        assert states[-1] == ("answering", "worker-1")
        service.cancel(session)


async def test_marks_are_bounded_and_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        session, _ = await start(service, workers["worker-0"], **STREAM)
        life = Life(session, 0, 0, session.delivery.submitted_s + 1)
        for second in range(200):
            life.add(session.delivery.submitted_s + second, MARKS.index("waits"), 0)
        marks = life.marks(["worker-0"])
        assert len(marks) == MOST_MARKS
        assert marks[0] == [0.0, "queued", None]
        assert life.dropped == 202 - MOST_MARKS
        assert [mark[0] for mark in marks] == sorted(mark[0] for mark in marks)
        service.cancel(session)


async def test_the_three_worst_behind_each_figure(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker, watch = workers["worker-0"], Watch(service.tally)
        sessions = [await start(service, worker, reasoning=True, **STREAM) for _ in range(5)]
        for session, name in sessions[1:]:
            await worker.tokens(name, 0, "a", "end", boundary=1)
            await worker.tokens(name, 2, "x")
            await until(lambda session=session: session.output_tokens == 3)  # type: ignore[misc]
        for _ in range(5):  # each reader's QoE is looked at once in five passes
            looked(watch, thoroughly=True, after_s=60.0)
        now = time.monotonic() + 60.0

        def worst(figure: Any) -> list[tuple[int, float]]:
            found = Worst(figure)
            for _ in found.look(list(watch.seen.values()), now):
                pass
            return found.rows

        assert [number for number, _ in worst("live")] == [1, 2, 3]
        assert [number for number, _ in worst("queued")] == [1]
        assert worst("reasoning") == []
        assert [number for number, _ in worst("answering")] == [2, 3, 4]
        ttfts = {
            number: session.delivery.times_to_first()[0]
            for number, (session, _) in enumerate(sessions, 1)
            if number > 1
        }
        expected = sorted(ttfts.items(), key=lambda one: -(one[1] or 0.0))[:3]
        assert worst("ttft") == [(number, round(value or 0.0, 4)) for number, value in expected]
        qoes = {one.number: one.qoe for one in watch.seen.values() if one.ahead_s is not None}
        assert [value for _, value in worst("qoe")] == sorted(round(q, 4) for q in qoes.values())[
            :3
        ]
        assert max(qoes.values()) < 1
        assert {number for number, _ in worst("dry")} <= {2, 3, 4, 5}
        assert worst("dry")[0][1] == pytest.approx(55, abs=2)  # 5 s of text, 60 s later
        assert worst("moved") == []
        for figure in FIGURES:
            assert len(worst(figure)) <= 3
        for session, _ in sessions:
            service.cancel(session)


async def test_the_worst_come_at_once_and_then_every_second(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path) as (client, service, worker, _),
        client.ws_connect("/admin/ops") as socket,
    ):
        await frames_until(socket, "requests")
        session, _ = await start(service, worker, **STREAM)
        await frames_until(socket, "events")
        await socket.send_json({"type": "rank", "figure": "queued"})
        frame = (await frames_until(socket, "worst"))[-1]
        assert frame["figure"] == "queued"
        assert [number for number, _ in frame["rows"]] == [1]
        await frames_until(socket, "worst")
        between = await frames_until(socket, "worst")
        assert sum(one["type"] == "instances" for one in between) == 4
        await socket.send_json({"type": "rank"})
        await frames_until(socket, "second")
        later = await frames_until(socket, "second")
        assert not any(one["type"] == "worst" for one in later)
        service.cancel(session)
