"""What the watch tells about requests, and that it agrees with the counts of the metrics."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from gateway.ops.history import COLUMNS, History
from gateway.ops.watch import SLICE, Watch
from gateway.response.tally import LIVE_STATES
from tests.gateway.support.scripted_service import ended, scene, serving, start, until
from workers.messages import Finish

STREAM: dict[str, Any] = {"stream": True, "pacing": {"tpot_s": 5.0}}
QUEUED, REASONING, ANSWERING, DELIVERING = (
    LIVE_STATES.index(state) for state in ("queued", "reasoning", "answering", "delivering")
)


def looked(watch: Watch, *, thoroughly: bool = False, after_s: float = 0.0) -> list[list[Any]]:
    now = time.monotonic() + after_s
    for _ in watch.look_thoroughly(now) if thoroughly else watch.look(now):
        pass
    return watch.events


async def test_the_life_of_a_request(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker, watch = workers["worker-0"], Watch(service.tally)
        assert looked(watch) == []
        session, name = await start(service, worker, reasoning=True, **STREAM)
        assert looked(watch) == [["placed", 1, QUEUED, 0]]
        assert watch.names == ["worker-0"]
        await worker.tokens(name, 0, "a")
        await until(lambda: session.output_tokens == 1)
        assert looked(watch) == [["changed", 1, REASONING, 0]]
        assert looked(watch) == []
        await worker.tokens(name, 1, "end", boundary=0)
        await worker.tokens(name, 2, "x", "y", "z")
        await until(lambda: session.output_tokens == 5)
        assert looked(watch, thoroughly=True) == [["changed", 1, ANSWERING, 0]]
        ((number, ahead_s),) = watch.readers
        assert number == 1
        assert 14 < ahead_s <= 15  # three tokens of 5 s
        assert looked(watch, thoroughly=True) == []
        assert watch.readers == []  # as expected: nothing to tell
        assert looked(watch, thoroughly=True, after_s=1.5) == [["waits", 1]]
        ((row,),) = watch.rows(time.monotonic(), 10)
        assert row[:4] == [1, ANSWERING, 0, 1]
        await worker.tokens(name, 5, finish=Finish(reason="stop"))
        await until(lambda: session.state.value == "delivering")
        assert looked(watch, thoroughly=True, after_s=2.0) == [
            ["changed", 1, DELIVERING, 0],
            ["goes_on", 1],
        ]
        service.cancel(session)
        await ended(session)
        assert looked(watch) == [["ended", 1, "incomplete"]]
        assert watch.seen == {}


async def test_a_request_that_moves_says_from_where(tmp_path: Path) -> None:
    async with scene(tmp_path, "worker-0", "worker-1") as built:
        watch = Watch(built.service.tally)
        session, name = await start(built.service, built.workers["worker-0"], **STREAM)
        await built.workers["worker-0"].tokens(name, 0, "a", "b")
        await until(lambda: session.output_tokens == 2)
        looked(watch)
        await built.lose("worker-0")
        submit = await built.workers["worker-1"].next_submit()
        await built.workers["worker-1"].accept(submit)
        await until(lambda: session.instance_id == "worker-1")
        assert ["moved", 1, 0, 1, 22] in looked(watch)
        service = built.service
        service.cancel(session)


async def test_sums_are_those_of_the_metrics(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker, watch = workers["worker-0"], Watch(service.tally)
        sessions = [await start(service, worker, **STREAM) for _ in range(3)]
        for count, (_, name) in enumerate(sessions):
            await worker.tokens(name, 0, *("word " * (count + 1)).split())
        await until(lambda: [s.output_tokens for s, _ in sessions] == [1, 2, 3])
        looked(watch, thoroughly=True)
        live = service.tally.live(time.monotonic())
        assert watch.sums.tokens == live.tokens
        assert watch.sums.tokens.answering == 6
        assert watch.sums.states == [live.states[state] for state in LIVE_STATES]
        assert (watch.sums.buffered, watch.sums.dry) == (live.buffered_tokens, live.dry_readers)
        for session, _ in sessions:
            service.cancel(session)


async def test_one_that_ends_in_the_middle_of_a_pass_counts_once(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker, watch = workers["worker-0"], Watch(service.tally)
        session, name = await start(service, worker, **STREAM)
        await worker.tokens(name, 0, "a", "b", "c")
        await until(lambda: session.output_tokens == 3)
        others = dict.fromkeys((f"other-{n}" for n in range(SLICE)), session)
        service.tally.running.update(others)  # type: ignore[attr-defined]
        passing = watch.look_thoroughly(time.monotonic())
        next(passing)
        service.cancel(session)
        await worker.tokens(name, 3, finish=Finish(reason="cancelled"))
        await ended(session)
        for _ in passing:
            pass
        assert watch.sums.tokens.answering == 3 * (SLICE + 1)
        for other in others:
            del service.tally.running[other]  # type: ignore[attr-defined]


def test_the_history_is_a_ring_of_bounded_size() -> None:
    history = History(length=5)
    for second in range(12):
        history.add(1e9 + second, {"queued": second, "qoe_p5": None})
    rows = [row for part in history.parts(2) for row in part]
    assert [len(part) for part in history.parts(2)] == [2, 2, 1]
    assert [row[0] for row in rows] == [1e9 + second for second in range(7, 12)]
    assert [row[1 + COLUMNS.index("queued")] for row in rows] == [7, 8, 9, 10, 11]
    assert all(row[1 + COLUMNS.index("qoe_p5")] != 0 for row in rows)
    assert len(history) == 5
