"""The faults: injects the fault of a cell when a request enters its place.

`Injector` wraps the methods that move requests, and so sees every move; the product has no hook for
it. The damage is done inside the move, before anything else runs.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from gateway.response.lifecycle import FINAL, State
from gateway.response.session import Session
from gateway.routing.instance import Instance
from gateway.routing.route import Route, Stage
from tests.chaos.links import SLOW_S, Proxy
from tests.chaos.table import Cell, Fault, Party, Place, places
from tests.chaos.world import World, until

SLOW_FOR_S = 2.5
_TURN_S = 0.15  # a slow process alternates: stopped for this long, then running
_KV_CUT_S = 2.0
_DIALLED_S = 60.0  # until a lost worker is started or dialled again

# A request that is refused before it starts leaves no session behind.
_REFUSED = Place(State.QUEUED, Stage.OVER)
_ROUTE_MOVES = ("submitted", "waits", "hand_over", "accepted", "progressed", "over")


class Injector:
    """Injects one cell at a time."""

    def __init__(self, world: World) -> None:
        self.wrong: list[str] = []
        self.on_entry: Callable[[Route, Place], None] = lambda route, place: None
        self.fired: asyncio.Event = asyncio.Event()
        self.hit = ""  # the worker that was hit last
        self.before: Instance | None = None  # its instance in the gateway at that time
        self._world = world
        self._cell: Cell | None = None
        self._left: dict[str, str] = {}  # the last instance of each request
        self._at: dict[str, Place] = {}  # the last place of each request
        self._places = frozenset(places())
        self._damage: set[asyncio.Task[None]] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch every move of every request inside the context."""
        originals: list[tuple[type, str, Any]] = []

        def wrap(kind: type, name: str, moved: Callable[[Any], None]) -> None:
            original = getattr(kind, name)
            originals.append((kind, name, original))

            @functools.wraps(original)
            def method(self: Any, *args: Any, **kwargs: Any) -> Any:
                result = original(self, *args, **kwargs)
                moved(self)
                return result

            setattr(kind, name, method)

        for name in _ROUTE_MOVES:
            wrap(Route, name, self._moved)
        wrap(Session, "_advance", self._advanced)
        try:
            yield
        finally:
            for kind, name, original in originals:
                setattr(kind, name, original)

    def arm(self, cell: Cell) -> None:
        """Inject this cell when the next request enters its place."""
        self._cell = cell
        self.fired = asyncio.Event()

    def disarm(self) -> None:
        """Inject nothing."""
        self._cell = None

    async def over(self) -> None:
        """Wait until all damage is over."""
        while self._damage:
            await asyncio.wait(list(self._damage))

    # ---- entries ------------------------------------------------------------------------------

    def _advanced(self, session: Session) -> None:
        route = self._world.cluster.router.routes.get(session.response_id)
        if route is not None:
            self._moved(route)

    def _moved(self, route: Route) -> None:
        name, place = route.session.response_id, Place(route.session.state, route.stage)
        if route.holder is not None:
            self._left[name] = route.holder
        if self._at.get(name) == place:
            return
        self._at[name] = place
        if place.state in FINAL:
            self._left.pop(name, None)
            del self._at[name]
            return
        asyncio.get_running_loop().call_soon(self._check_place, route)
        try:
            self.on_entry(route, place)
            self._inject(route, place)
        except Exception as error:  # noqa: BLE001 (not to be mistaken for a fault of the product)
            self.wrong.append(f"the injector failed at {place}: {error!r}")

    def _check_place(self, route: Route) -> None:
        place = Place(route.session.state, route.stage)
        if place == _REFUSED or place.state in FINAL:
            return
        if place not in self._places:
            self.wrong.append(f"{route!r} is at {place}, which is not in the table")

    def _inject(self, route: Route, place: Place) -> None:
        cell = self._cell
        if cell is None or cell.place != place or route.session.cancelling:
            return
        name = self._party(route, cell)
        there = name in self._world.cluster.instances or place.stage is Stage.WAITING
        if name is None or not there:
            return
        self._cell = None
        self.hit, self.before = name, self._world.cluster.instances.get(name)
        self._damage_now(cell, name)
        self.fired.set()

    def _party(self, route: Route, cell: Cell) -> str | None:
        """The name of the worker to hit; None if the request has no such party."""
        last = self._left.get(route.session.response_id)
        migration, stage = route.migration, cell.place.stage
        if cell.party is Party.LINK or stage in (Stage.WAITING, Stage.OVER):
            return last
        if stage is Stage.HANDING_OVER and migration is not None:
            return migration.source_id if cell.party is Party.SOURCE else migration.target_id
        if stage is Stage.RUNNING or cell.place.state is State.QUEUED:
            return route.holder
        if migration is None or not migration.with_kv or migration.source_id == route.holder:
            return None
        return migration.source_id if cell.party is Party.SOURCE else route.holder

    # ---- damage -------------------------------------------------------------------------------

    def _damage_now(self, cell: Cell, name: str) -> None:
        world = self._world
        link = world.links.of[name]
        waiting = cell.place.stage is Stage.WAITING
        if waiting:
            link.refusing = False  # the other links refuse until this is over
        stop_s = world.config.workers.heartbeat_timeout_s + 2.0
        match cell.party, cell.fault:
            case Party.LINK, Fault.CUT if waiting:
                link.cutting_next = True
                self._lasts(until(lambda: not link.cutting_next, _DIALLED_S))
            case Party.LINK, Fault.CUT:
                link.cut()
            case Party.LINK, Fault.STOP:
                link.stop()
                self._lasts(_then(stop_s, link.go_on, after=link if waiting else None))
            case Party.LINK, Fault.SLOW:
                link.delay_s = SLOW_S
                end = functools.partial(setattr, link, "delay_s", 0.0)
                self._lasts(_then(SLOW_FOR_S, end, after=link if waiting else None))
            case _, Fault.CUT:
                channel = world.links.kv[name]
                _refuse(channel)
                self._lasts(
                    _then(_KV_CUT_S, functools.partial(setattr, channel, "refusing", False))
                )
            case _, fault:
                pid = world.pid_of(name)
                # A gateway that started a worker ends it with its link: hit the next one.
                if pid is None or (waiting and world.config.launcher.kind == "local"):
                    self._lasts(self._damage_the_next(name, pid, fault, stop_s))
                else:
                    self._damage_process(pid, fault, stop_s)

    def _damage_process(self, pid: int, fault: Fault, stop_s: float) -> None:
        match fault:
            case Fault.KILL:
                _signal(pid, signal.SIGKILL)
            case Fault.STOP:
                _signal(pid, signal.SIGSTOP)
                self._lasts(_then(stop_s, lambda: _signal(pid, signal.SIGCONT)))
            case Fault.SLOW:
                _signal(pid, signal.SIGSTOP)
                self._lasts(_half_the_time(pid))

    async def _damage_the_next(
        self, name: str, last: int | None, fault: Fault, stop_s: float
    ) -> None:
        """Damage the process that replaces ``last``, as soon as it exists."""
        if not await until(lambda: self._world.pid_of(name) not in (None, last), _DIALLED_S):
            self.wrong.append(f"{name} was not started again within {_DIALLED_S:g} s")
        elif (pid := self._world.pid_of(name)) is not None:
            self._damage_process(pid, fault, stop_s)

    def _lasts(self, damage: Any) -> None:
        task = asyncio.create_task(damage)
        self._damage.add(task)
        task.add_done_callback(self._damage.discard)


async def _then(seconds: float, end: Callable[[], object], *, after: Proxy | None = None) -> None:
    """Wait, then call ``end``. With ``after``, time starts at its next connection."""
    if after is not None:
        opened = after.opened
        await until(lambda: after.opened > opened, _DIALLED_S)
    await asyncio.sleep(seconds)
    end()


async def _half_the_time(pid: int) -> None:
    until_s = time.monotonic() + SLOW_FOR_S
    while time.monotonic() < until_s:
        _signal(pid, signal.SIGSTOP)
        await asyncio.sleep(_TURN_S)
        _signal(pid, signal.SIGCONT)
        await asyncio.sleep(_TURN_S)


def _refuse(channel: Proxy) -> None:
    channel.refusing = True
    channel.cut()


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # the gateway may have ended it
        os.kill(pid, number)
