"""Work that waits is done in order, in slices, and always to its end."""

from __future__ import annotations

import asyncio
import time

from structlog.testing import capture_logs

from gateway.slices import SLICE_S, Slices
from tests.gateway.support.scripted_service import until


async def test_other_events_come_between_the_slices() -> None:
    slices, done, between = Slices(), [], 0

    def work(number: int) -> None:
        done.append(number)
        ends_s = time.monotonic() + SLICE_S
        while time.monotonic() < ends_s:
            pass

    for number in range(5):
        slices.add(lambda number=number: work(number))  # type: ignore[misc]
    assert done == []
    while len(done) < 5:
        await asyncio.sleep(0)
        between += 1
    assert done == [0, 1, 2, 3, 4]
    assert between >= 4


async def test_what_is_added_later_is_done_as_well() -> None:
    slices, done = Slices(), []
    for number in range(3):
        slices.add(lambda number=number: done.append(number))  # type: ignore[misc]
        await until(lambda number=number: done[-1:] == [number])  # type: ignore[misc]
    assert done == [0, 1, 2]


async def test_an_action_that_raises_is_logged_and_the_others_go_on() -> None:
    slices, done = Slices(), []

    def broken() -> None:
        raise ValueError("a bug")

    with capture_logs() as lines:
        slices.add(broken)
        slices.add(lambda: done.append(1))
        await until(lambda: done)
    assert [line["event"] for line in lines] == ["postponed_work_failed"]


async def test_at_the_end_everything_is_done_at_once() -> None:
    slices, done = Slices(), []
    slices.add(lambda: done.append(1))
    slices.finish()
    assert done == [1]
