"""The sending side of a connection and its followers, over a transport that the test fills."""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast

import pytest

from gateway.api import outlet as outlet_module
from gateway.api import websocket
from gateway.api.followers import ClientLeft, EventFollower
from gateway.api.outlet import Outbox, Outlet
from gateway.response.event_log import EventLog, LogTruncated
from tests.gateway.support.scripted_service import until

STALL_S = 0.05


class Transport:
    """Takes what is written, up to a bound, and tells the outlet as a real one does."""

    def __init__(self) -> None:
        self.outlet = Outlet(Outbox(), STALL_S)
        self.written: list[bytes] = []
        self.held = 0  # bytes that the client has not taken
        self.bound = 10**9
        self.aborted = False
        self.outlet.open(cast(asyncio.Transport, self))

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.held += len(data)
        if self.held > self.bound and not self.outlet.full:
            self.outlet.pause()

    def get_write_buffer_size(self) -> int:
        return self.held

    def abort(self) -> None:
        self.aborted = True

    def drain(self) -> None:
        """The client takes everything."""
        self.held = 0
        self.outlet.resume()


def frame(_: str, data: bytes) -> bytes:
    return data


def follow(log: EventLog, transport: Transport, after: int = -1) -> EventFollower:
    follower = EventFollower(log, transport.outlet, after, frame)
    log.attach(follower)
    return follower


def sent(transport: Transport) -> list[int]:
    """The numbers of the events that were written."""
    return [
        int(number)
        for number in re.findall(rb'"sequence_number":(\d+)', b"".join(transport.written))
    ]


async def test_a_client_that_is_behind_gets_every_event_once_and_in_order() -> None:
    log, transport = EventLog(10**6), Transport()
    running = asyncio.create_task(follow(log, transport).run())
    await asyncio.sleep(0)
    transport.bound = 150
    for _ in range(4):
        log.append("a", {"x": "y" * 50})
        await asyncio.sleep(0)
    assert transport.outlet.full
    assert sent(transport) == [0, 1]
    transport.bound = 10**9
    transport.held = 0
    transport.outlet.full = False  # it takes more, but the follower has not caught up yet
    log.append("b", {})
    await asyncio.sleep(0)
    assert sent(transport) == [0, 1], "an event that others must precede"
    transport.drain()
    log.append("end", {}, terminal=True)
    await asyncio.wait_for(running, 5)
    assert sent(transport) == list(range(6))


async def test_what_was_sent_in_this_turn_is_written_before_what_is_caught_up() -> None:
    log, transport = EventLog(10**6), Transport()
    log.append("a", {})
    first = asyncio.create_task(follow(log, transport).run())
    await asyncio.sleep(0)
    log.append("b", {})  # held until the end of the turn
    late = EventFollower(log, transport.outlet, 1, frame)
    log.append("c", {})
    late.catch_up()
    assert sent(transport) == [0, 1, 2, 2]
    first.cancel()


async def test_after_the_end_is_announced_nothing_more_is_sent() -> None:
    log, transport = EventLog(10**6), Transport()
    running = asyncio.create_task(follow(log, transport).run())
    await asyncio.sleep(0)
    log.append("a", {})
    transport.outlet.shut()
    assert sent(transport) == [0], "what was sent before must precede the close frame"
    log.append("b", {})
    transport.outlet.resume()
    await asyncio.sleep(0)
    assert sent(transport) == [0]
    running.cancel()


async def test_a_stalled_client_hears_why_and_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet_module, "_GOODBYE_S", 0.02)
    transport, told = Transport(), []
    transport.outlet.on_stall = lambda: told.append(True)
    transport.held = 100
    transport.outlet.pause()
    await until(lambda: told)
    transport.drain()  # too late
    assert transport.outlet.full
    await until(lambda: transport.aborted)


async def test_a_client_that_reads_slowly_is_not_stalled() -> None:
    transport, told = Transport(), []
    transport.outlet.on_stall = lambda: told.append(True)
    transport.held = 1000
    transport.outlet.pause()
    for _ in range(8):
        await asyncio.sleep(STALL_S / 2)
        transport.held -= 10
    assert told == []
    transport.drain()
    await asyncio.sleep(2 * STALL_S)
    assert (told, transport.outlet.full) == ([], False)


@pytest.mark.parametrize("size", [10, 125, 126, 1020, 1021, 5000, 70_000])
async def test_events_of_any_length_are_whole_frames_of_a_socket(size: int) -> None:
    log, transport = EventLog(10**6), Transport()
    follower = websocket.follow(log, transport.outlet, -1)
    log.attach(follower)
    running = asyncio.create_task(follower.run())
    await asyncio.sleep(0)
    events = [b"%d" % number + b"x" * (size - 1) for number in range(3)]
    for number, data in enumerate(events):
        follower.take(number, "", data)
    await asyncio.sleep(0)
    assert b"".join(transport.written) == b"".join(
        websocket.event_frame("", data) for data in events
    )
    transport.outlet.full = True
    follower.take(3, "", events[0])
    transport.outlet.full = False
    follower.take(4, "", events[0])
    await asyncio.sleep(0)
    assert len(transport.written) == 3, "the client is behind"
    running.cancel()


async def test_followers_of_a_client_that_has_left_end() -> None:
    log, transport = EventLog(10**6), Transport()
    running = asyncio.create_task(follow(log, transport).run())
    await asyncio.sleep(0)
    transport.outlet.lose()
    with pytest.raises(ClientLeft):
        await asyncio.wait_for(running, 5)
    assert not cast(Any, transport.outlet)._followers


async def test_a_log_that_keeps_no_events_has_none_to_follow() -> None:
    log, transport = EventLog(0), Transport()
    log.append("a", {})
    for after in (-1, 0):
        with pytest.raises(LogTruncated):
            await EventFollower(log, transport.outlet, after, frame).run()
    assert transport.written == []


@pytest.mark.parametrize(
    ("pieces", "size", "left"),
    [
        (outlet_module._MOST_HELD + 3, 10, 3),  # many
        (5, outlet_module.MOST_SHORT_BYTES + 1, 0),  # large
    ],
)
async def test_what_is_held_is_bounded_and_goes_out_in_order(
    pieces: int, size: int, left: int
) -> None:
    transport = Transport()
    data = [b"%d" % number + bytes(size - len(b"%d" % number)) for number in range(pieces)]
    for one in data:
        transport.outlet.send(one)
    assert transport.written == data[: pieces - left]  # before the end of the turn
    await asyncio.sleep(0)
    assert transport.written == data
