"""Full collections: when the rule asks for one, and that Python's own never walk much."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway import app
from gateway import collector as module
from gateway.collector import CollectionPauses, CollectionRule, FullCollections, Heap
from gateway.config import Config, LauncherConfig, ServerConfig
from tests.gateway.support.scripted_service import until

MIB = 2**20
RULE = CollectionRule()
QUIET = Heap(
    collected_s=1000.0,
    pause_s=0.05,
    aged=True,
    resident_then_bytes=200 * MIB,
    resident_bytes=200 * MIB,
    unfinished=0,
    gap_s=0.0,
)
BUSY = replace(QUIET, unfinished=4000)
AT_ONCE = CollectionRule(least_s=0.0)

HEAPS = st.builds(
    Heap,
    collected_s=st.just(1000.0),
    pause_s=st.floats(0.0, 1.0),
    aged=st.booleans(),
    resident_then_bytes=st.integers(0, 2**36),
    resident_bytes=st.integers(0, 2**36),
    unfinished=st.integers(0, 10_000),
    gap_s=st.floats(0.0, 10.0) | st.just(math.inf),
)


# ---- the rule ---------------------------------------------------------------------------------


def test_a_quiet_moment_is_used_but_not_too_often() -> None:
    assert RULE.reason(1029.9, QUIET) is None
    assert RULE.reason(1030.0, QUIET) == "quiet"


@pytest.mark.parametrize(
    "heap",
    [
        replace(QUIET, unfinished=3, gap_s=math.inf),
        replace(QUIET, unfinished=1, gap_s=0.05),  # a token would be late
        replace(QUIET, aged=False),  # there is nothing to find
    ],
)
def test_what_is_no_quiet_moment(heap: Heap) -> None:
    assert RULE.reason(4599.9, heap) is None
    assert RULE.reason(4600.0, heap) == "overdue"


def test_few_readers_are_quiet_if_no_token_is_due_soon() -> None:
    assert RULE.reason(1030.0, replace(QUIET, unfinished=2, gap_s=0.06)) == "quiet"


def test_growing_memory_does_not_wait_for_a_quiet_moment() -> None:
    for then_bytes, now_bytes in ((200 * MIB, 712 * MIB), (1024 * MIB, 2048 * MIB)):
        grown = replace(BUSY, resident_then_bytes=then_bytes, resident_bytes=now_bytes)
        assert RULE.reason(1030.0, grown) == "grown"
        assert RULE.reason(1029.9, grown) is None
        assert RULE.reason(1030.0, replace(grown, resident_bytes=now_bytes - 1)) is None


@given(HEAPS, st.floats(0.0, 10_000.0))
def test_never_before_the_shortest_and_always_after_the_longest_time(
    heap: Heap, passed_s: float
) -> None:
    reason = RULE.reason(1000.0 + passed_s, heap)
    if passed_s < RULE.least_s:
        assert reason is None
    if passed_s > RULE.most_s:
        assert reason == "overdue"


@given(HEAPS, st.floats(0.0, 1000.0), st.floats(0.0, 1000.0))
def test_waiting_longer_takes_no_reason_away(heap: Heap, first_s: float, more_s: float) -> None:
    if RULE.reason(1000.0 + first_s, heap) is not None:
        assert RULE.reason(1000.0 + first_s + more_s, heap) is not None


# ---- the collector of this process ------------------------------------------------------------


class Node:
    """Refers to itself, so that only a collection can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def frozen() -> Iterator[None]:
    """Collections see only what a test makes."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def old_cycle() -> weakref.ref[Node]:
    """Make a cycle that a collection has set aside before it became garbage."""
    node = Node()
    gc.collect()
    return weakref.ref(node)


def many_new_objects() -> list[list[object]]:
    """More than call for a full collection by Python's own thresholds."""
    return [[] for _ in range(800_000)]


@contextmanager
def walked() -> Iterator[list[int]]:
    """Count the objects that each collection of the last generation walks."""
    counts: list[int] = []

    def note(phase: str, info: dict[str, Any]) -> None:
        if phase == "start" and info["generation"] == module.GENERATIONS - 1:
            counts.append(len(gc.get_objects()))

    gc.callbacks.append(note)
    try:
        yield counts
    finally:
        gc.callbacks.remove(note)


@pytest.mark.usefixtures("frozen")
def test_no_collection_walks_more_however_many_objects_there_are() -> None:
    kept = [many_new_objects()]
    pauses = CollectionPauses()
    collections = FullCollections(pauses, lambda: 0, rule=AT_ONCE)
    with collections.taking_over(), walked() as counts:
        kept.append(many_new_objects())
        for collect in (collections.freeze, lambda: collections.look(1e9)):
            collect()
            counts.clear()
            kept.append(many_new_objects())
            assert len(counts) >= 10
            assert max(counts) <= 70_000
    assert sum(pauses.counts[0]) >= 10
    assert sum(pauses.counts[1]) >= 10
    assert sum(pauses.counts[2]) >= 10


@pytest.mark.usefixtures("frozen")
def test_python_collects_as_before_afterwards() -> None:
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    collections = FullCollections(CollectionPauses(), lambda: 0, rule=AT_ONCE)
    with collections.taking_over():
        kept = [many_new_objects()]
        assert gc.get_freeze_count() >= 700_000
    assert (gc.get_threshold(), gc.callbacks) == (thresholds, callbacks)
    assert gc.get_freeze_count() == 0
    with walked() as counts:
        kept.append(many_new_objects())
    assert max(counts) >= 800_000


def test_python_takes_over_again_whatever_happens() -> None:
    def fail() -> None:
        with FullCollections(CollectionPauses(), lambda: 0).taking_over():
            assert gc.get_threshold() == module._THRESHOLDS
            gc.collect()
            assert gc.get_freeze_count() > 0
            raise KeyError

    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    with pytest.raises(KeyError):
        fail()
    assert (gc.get_threshold(), gc.callbacks) == (thresholds, callbacks)
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("frozen")
def test_what_is_frozen_is_walked_no_more_and_its_collection_is_no_pause() -> None:
    kept = many_new_objects()
    pauses = CollectionPauses()
    collections = FullCollections(pauses, lambda: 0, rule=AT_ONCE)
    with collections.taking_over():
        counted = sum(pauses.counts[2])
        frozen_before = gc.get_freeze_count()
        collections.freeze()
        assert gc.get_freeze_count() >= frozen_before + 800_000
        assert len(gc.get_objects()) <= 1000
        assert sum(pauses.counts[2]) == counted
        collections.look(1e9)
        assert sum(pauses.counts[2]) == counted + 1
    del kept


@pytest.mark.usefixtures("frozen")
def test_an_old_cycle_goes_with_the_next_full_collection() -> None:
    pauses = CollectionPauses()
    collections = FullCollections(pauses, lambda: 0, rule=AT_ONCE)
    with collections.taking_over(), capture_logs() as lines:
        cycle = old_cycle()
        many_new_objects()
        assert cycle() is not None  # no collection of Python's own walks it again
        counted = sum(pauses.counts[2])
        collections.look(time.monotonic() + 1)
        assert cycle() is None
    assert sum(pauses.counts[2]) == counted + 1
    assert 0.0 < pauses.sums_s[2] <= pauses.longest_s[2] * sum(pauses.counts[2])
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("full_collection_finished", "debug")
    assert (line["reason"], line["found"] >= 1, line["unfinished"]) == ("quiet", True, 0)
    assert line["resident_bytes"] > MIB


@pytest.mark.usefixtures("frozen")
def test_a_quiet_moment_is_used_once_until_objects_have_become_old_again() -> None:
    collections = FullCollections(CollectionPauses(), lambda: 0, rule=AT_ONCE)
    with collections.taking_over(), capture_logs() as lines:
        kept = many_new_objects()
        for finished in (1, 1):
            collections.look(time.monotonic() + 1)
            assert len(lines) == finished
        kept.clear()  # fewer objects are set aside than before, and one of them is new
        old_cycle()
        collections.look(time.monotonic() + 1)
        assert len(lines) == 2


@pytest.mark.usefixtures("frozen")
async def test_the_task_collects_and_outlives_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def unfinished() -> int:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise KeyError("a bug")
        return 0

    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.001)
    collections = FullCollections(CollectionPauses(), unfinished, rule=AT_ONCE)
    with collections.taking_over(), capture_logs() as lines:
        cycle = old_cycle()
        task = asyncio.create_task(collections.run())
        await until(lambda: cycle() is None)
        task.cancel()
        await asyncio.wait([task])
    assert lines[0]["event"] == "full_collection_failed"
    assert {line["event"] for line in lines[1:]} == {"full_collection_finished"}


def test_memory_is_that_of_the_process() -> None:
    before = module.resident_bytes()
    kept = bytearray(b"x" * (50 * MIB))
    assert 40 * MIB <= module.resident_bytes() - before <= 200 * MIB
    del kept


async def test_the_gateway_takes_over_while_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runners: list[web.AppRunner] = []
    make_site = app.make_site

    def site(runner: web.AppRunner, host: str, port: int) -> web.TCPSite:
        runners.append(runner)
        return make_site(runner, host, port)

    monkeypatch.setattr(app, "make_site", site)
    before = gc.get_threshold()
    config = Config(
        server=ServerConfig(port=0, state_dir=str(tmp_path)),
        launcher=LauncherConfig(kind="static", addresses=(f"unix:{tmp_path}/none.sock",)),
    )
    serving = asyncio.create_task(app.serve(config, announce=lambda _: None))
    try:
        await until(lambda: runners and runners[0].addresses)
        assert gc.get_threshold() == module._THRESHOLDS
        gc.collect()
        address = f"http://127.0.0.1:{runners[0].addresses[0][1]}/metrics"
        async with aiohttp.ClientSession() as client, client.get(address) as answer:
            text = await answer.text()
    finally:
        serving.cancel()
        await asyncio.wait([serving])
    assert gc.get_threshold() == before
    assert 'pascal_gc_pause_seconds_bucket{generation="2",le="+Inf"} 1.0\n' in text
    assert 'pascal_gc_longest_pause_seconds{generation="2"} 0.0\n' not in text
