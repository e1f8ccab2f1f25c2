"""A fixed number of places, each taken by random readers, one after another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Protocol

import aiohttp
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.soak.clients import garbage, http_readers, websocket_readers
from tests.soak.clients.stage import Enough, Stage
from tests.soak.clients.stream import Refused, Violation


class Reader(Protocol):
    """A coroutine function of `websocket_readers`, `http_readers` or `garbage`."""

    __name__: str

    def __call__(self, stage: Stage, rng: random.Random, /) -> Awaitable[None]:
        """Make one visit. Raises `Violation` or `Refused`."""


# How often each kind comes. Kinds that cost the gateway little, or are rare in practice, have a
# small share.
SHARES: tuple[tuple[float, Reader], ...] = (
    (10, websocket_readers.reads_to_the_end),
    (6, websocket_readers.stalls),
    (1, websocket_readers.stalls_forever),
    (4, websocket_readers.pauses),
    (8, websocket_readers.stops),
    (10, websocket_readers.vanishes_and_comes_back),
    (3, websocket_readers.comes_back_late),
    (3, websocket_readers.resumes_wrongly),
    (5, websocket_readers.has_many_lanes),
    (8, websocket_readers.goes_on_and_forgets),
    (4, websocket_readers.deletes_while_it_runs),
    (3, websocket_readers.says_nothing),
    (10, http_readers.reads_events),
    (8, http_readers.reads_chunks),
    (8, http_readers.waits_for_the_whole),
    (4, http_readers.stops_by_post),
    (1, http_readers.stalls),
    (6, garbage.sends_garbage),
    (3, garbage.breaks_the_frame),
    (6, garbage.asks_wrongly),
    (4, garbage.speaks_no_http),
    (4, garbage.never_finishes),
    (4, garbage.upgrades_and_vanishes),
)
# Refusals that even a correct reader may get.
_MAY_BE = ("events_expired", "server_overloaded", "no_instance")
_LONGEST_S = 600.0  # guards against a reader that hangs
_PAUSE_S = 2.0  # between two readers of a place, on average


async def fill(stage: Stage, count: int, seed: int) -> None:
    """Run readers until cancelled."""
    async with asyncio.TaskGroup() as places:
        for number in range(count):
            places.create_task(_place(stage, random.Random(f"{seed} {number}")))


async def _place(stage: Stage, rng: random.Random) -> None:
    weights, kinds = zip(*SHARES, strict=True)
    while True:
        await asyncio.sleep(rng.expovariate(1 / _PAUSE_S))
        reader = rng.choices(kinds, weights)[0]
        await one(stage, reader, random.Random(rng.getrandbits(64)))


async def one(stage: Stage, reader: Reader, rng: random.Random) -> None:
    """Run one reader, and count its failures."""
    name = f"{reader.__module__.rsplit('.', 1)[1]}.{reader.__name__}"
    tally = stage.tally
    try:
        async with asyncio.timeout(_LONGEST_S):
            await reader(stage, rng)
    except Enough:
        return
    except Refused as refused:
        tally.refused[refused.code] += 1
        if refused.code not in _MAY_BE:
            tally.wrong(f"{name}: {refused}")
    except Violation as violation:
        tally.wrong(f"{name}: {violation}")
    except InvalidStatus as error:
        tally.wrong(f"{name}: the upgrade was answered with {error.response.status_code}")
    except (ConnectionClosed, aiohttp.ClientError, OSError, TimeoutError) as error:
        tally.wrong(f"{name}: {type(error).__name__}: {error}")
    tally.readers[name] += 1
