"""Goes through the schedule, one fault at a time, and waits for recovery after each.

Requests enter most places by themselves. The driver brings them into the others: it drains an
instance so that requests leave it with their KV, cuts all links so that they wait, or slows readers
down so that tokens remain to be delivered after the engine's last one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.response.lifecycle import GENERATING, State
from gateway.response.session import Session
from gateway.routing.route import Route, Stage
from tests.chaos.faults import Injector
from tests.chaos.table import Cell, Fault, Party, Place
from tests.chaos.world import World, until

_ENTERED_S = 90.0  # until a request enters the place
_NOTICED_S = 10.0  # until the gateway knows that a worker or its link is gone
_WELL_S = 120.0  # until all workers are back
_DRAINED_S = 2.0  # how long an instance is drained before another one is tried
_SLOW_TPOT_S, _USUAL_TPOT_S = 0.5, 0.01  # of readers
_LEAVING = frozenset({Stage.HANDING_OVER, Stage.PULLING})


@dataclass(frozen=True, slots=True)
class Injected:
    """One fault of the schedule."""

    cell: Cell
    worker: str  # empty: no request entered the place
    ready_s: float  # until all workers could read each other's KV, if needed
    entered_s: float  # until a request was in the place
    over_s: float  # from then until the system had recovered


class Driver:
    """Runs the schedule in one world."""

    def __init__(self, world: World, injector: Injector) -> None:
        self.injected: list[Injected] = []
        self.wrong: list[str] = []
        self._world = world
        self._injector = injector

    async def run(self, schedule: Sequence[Cell], report: Callable[[Injected], None]) -> None:
        """Inject all cells.

        :param report: called after each.
        """
        for cell in schedule:
            began_s = time.monotonic()
            await self._well(met=_moves(cell.place))
            injected = await self._run(cell, round(time.monotonic() - began_s, 2))
            self.injected.append(injected)
            report(injected)
        await self._well(met=False)

    async def _run(self, cell: Cell, ready_s: float) -> Injected:
        began_s = time.monotonic()
        self._injector.arm(cell)
        bringing = asyncio.create_task(self._bring(cell.place))
        try:
            async with asyncio.timeout(_ENTERED_S):
                await self._injector.fired.wait()
        except TimeoutError:
            self.wrong.append(f"{cell}: no request entered the place within {_ENTERED_S:g} s")
        finally:
            fired_s = time.monotonic()
            self._injector.disarm()
            bringing.cancel()
            await asyncio.wait([bringing])
            self._injector.on_entry = lambda route, place: None
            for name in list(self._world.cluster.drained):
                self._world.cluster.undrain(name)
        fired = self._injector.fired.is_set()
        await self._injector.over()
        self._world.connect()
        if fired and _ends_the_link(cell):
            await self._noticed(cell)
        await self._well(met=False)
        return Injected(
            cell,
            self._injector.hit if fired else "",
            ready_s,
            round(fired_s - began_s, 2),
            round(time.monotonic() - fired_s, 2),
        )

    async def _noticed(self, cell: Cell) -> None:
        """Check that the gateway noticed: a worker that comes back is a new instance to it."""
        name, before = self._injector.hit, self._injector.before
        if before is not None and not await until(
            lambda: self._world.cluster.instances.get(name) is not before, _NOTICED_S
        ):
            self.wrong.append(f"{cell}: the gateway did not notice within {_NOTICED_S:g} s")

    async def _well(self, *, met: bool) -> None:
        if not await until(lambda: self._world.sound(met=met), _WELL_S):
            there = sorted(self._world.cluster.instances)
            self.wrong.append(f"not recovered after {_WELL_S:g} s: the instances are {there}")

    # ---- bringing requests into a place -------------------------------------------------------

    def _bring(self, place: Place) -> Coroutine[Any, Any, None]:
        match place.stage:
            case Stage.WAITING if place.state is State.QUEUED:
                return self._lose_new_ones()
            case Stage.WAITING:
                return self._lose_running_ones()
            case Stage.OVER:
                return self._read_slowly()
            case _ if _moves(place):
                return self._move(place)
        return asyncio.sleep(0)

    async def _lose_new_ones(self) -> None:
        """Cut all links as soon as the next new request has been sent to an instance."""

        def entered(route: Route, place: Place) -> None:
            if place == Place(State.QUEUED, Stage.SUBMITTED):
                self._world.isolate()

        self._injector.on_entry = entered

    async def _lose_running_ones(self) -> None:
        routes = self._world.cluster.router.routes
        await until(lambda: any(r.stage is Stage.RUNNING for r in routes.values()), _ENTERED_S)
        self._world.isolate()

    async def _read_slowly(self) -> None:
        """Slow readers down, so that generated tokens remain to be delivered."""
        service, slowed = self._world.service, set[Session]()
        try:
            while True:
                for route in list(self._world.cluster.router.routes.values()):
                    session = route.session
                    if session.state is State.ANSWERING and session.delivery.paced:
                        slowed.add(session)
                        service.set_pace(session, _SLOW_TPOT_S, None)
                await asyncio.sleep(0.05)
        finally:
            for session in slowed:
                if not session.finished:
                    service.set_pace(session, _USUAL_TPOT_S, None)

    async def _move(self, place: Place) -> None:
        """Drain one instance after another, first those with requests that must move."""
        cluster = self._world.cluster
        before = {place.state} if place.stage in _LEAVING else set(GENERATING)

        def fitting(name: str) -> int:
            held = cluster.router.routes_of(name)
            return sum(r.stage is Stage.RUNNING and r.session.state in before for r in held)

        while True:
            name = max(self._world.names, key=fitting)
            if fitting(name):
                cluster.drain(name)
                await asyncio.sleep(_DRAINED_S)
                cluster.undrain(name)
            await asyncio.sleep(0.05)


def _ends_the_link(cell: Cell) -> bool:
    """Whether the gateway loses the link to the worker that is hit."""
    if cell.fault is Fault.CUT:
        return cell.party is Party.LINK
    return cell.fault in (Fault.KILL, Fault.STOP)


def _moves(place: Place) -> bool:
    """Whether a request in this place is moving between two instances."""
    return place.stage in _LEAVING or place == Place(State.BETWEEN_INSTANCES, Stage.SUBMITTED)
