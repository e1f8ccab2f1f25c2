"""A cluster in virtual time: modelled devices, everything else the code that serves.

vLLM's scheduler with our plugin decides inside an instance (`bench.simulated_instance`), the
gateway's placement between them, the pacer's QoE says how readers fare. Nothing is re-implemented,
so nothing can drift.

Deterministic: the same settings and arrivals give the same result.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from bench.arrivals import Arrival
from bench.simulated_instance import (
    InstanceTotals,
    Live,
    SimulatedInstance,
)
from bench.simulated_parts import InstanceSettings, SchedulerFactory
from bench.simulated_scheduler import Clock
from bench.timeline import Timeline
from gateway.placement import PAPER, Rules, place_at_boundary, place_new_request

NO_MIGRATION = replace(PAPER, boundary="off")


@dataclass(frozen=True, slots=True)
class Window:
    """What of a run is measured: requests that arrive in it, tokens generated in it."""

    from_s: float
    to_s: float

    def __contains__(self, at_s: float) -> bool:
        return self.from_s <= at_s < self.to_s


@dataclass(frozen=True, slots=True)
class ClusterRun:
    """The outcome of `simulate`."""

    timelines: list[Timeline]  # of the measured requests, in the order of arrival
    totals: list[InstanceTotals]  # from the start to the end of the run
    generated_tokens: int  # in the window
    ended_s: float
    migrations: int


def simulate(
    settings: InstanceSettings,
    instances: int,
    arrivals: Iterable[Arrival],
    window: Window,
    progress: Callable[[float], None] = lambda now: None,
    rules: Rules = NO_MIGRATION,
) -> ClusterRun:
    """Run until every request that arrives in the window is finished, while others still arrive.

    :param arrivals: in order of time; if they end early, the last requests run under less load.
    :param progress: called now and then with the virtual time, seconds.
    :param rules: of placement; requests change instances only with ``settings.migration``.
    """
    return Cluster(settings, instances, window, rules).run(iter(arrivals), progress)


class Cluster:
    """The instances of one simulation, and what happens to them."""

    def __init__(
        self, settings: InstanceSettings, instances: int, window: Window, rules: Rules
    ) -> None:
        self._clock = Clock()
        factory = SchedulerFactory(settings)
        self.instances = {
            name: SimulatedInstance(name, settings, factory, self._clock)
            for name in (f"instance-{index}" for index in range(instances))
        }
        self._rules = rules
        self._moving = settings.migration and rules.boundary != "off"
        self._migrations = 0
        self._window = window
        self._steps: list[tuple[float, int, SimulatedInstance]] = []  # by their ends
        self._valid: dict[str, int] = {}  # of these steps; a leap that was cut has another end
        self._order = itertools.count()  # of events at one moment: the order of their making
        self._measured: list[Timeline] = []
        self._unfinished = 0  # of the measured
        self._generated = 0
        for instance in self.instances.values():
            instance.cut = partial(self._will_end, instance)
            instance.stop_s = window.to_s

    def run(
        self, arrivals: Iterator[Arrival], progress: Callable[[float], None] = lambda now: None
    ) -> ClusterRun:
        """See `simulate`; once only."""
        coming = next(arrivals, None)
        while True:
            if coming is not None and (not self._steps or coming.at_s <= self._steps[0][0]):
                if coming.at_s >= self._window.to_s and not self._unfinished:
                    return self._ended(coming.at_s)
                arrival, coming = coming, next(arrivals, None)
                self._arrive(arrival)
                progress(self._clock.now)
            elif self._steps:
                self._end_step()
                if not self._unfinished and self._clock.now >= self._window.to_s:
                    break
            else:
                break
        return self._ended(self._clock.now)

    def _ended(self, now: float) -> ClusterRun:
        """The outcome, ``now`` being when no event is left to happen before."""
        ended_s, self._clock.now = self._clock.now, now
        totals = [instance.final_totals() for instance in self.instances.values()]
        for instance in self.instances.values():
            tokens = instance.taken_tokens()  # of a leap that is under way
            self._count(tokens)
            ended_s = max([ended_s, *tokens])
        return ClusterRun(
            timelines=self._measured,
            totals=totals,
            generated_tokens=self._generated,
            ended_s=ended_s,
            migrations=self._migrations,
        )

    def _arrive(self, arrival: Arrival) -> None:
        self._clock.now = arrival.at_s
        views = [instance.view() for instance in self.instances.values()]
        chosen = place_new_request(views, self._rules)
        assert chosen is not None
        timeline = Timeline(arrival.at_s, arrival.lengths)
        measured = arrival.at_s in self._window
        if measured:
            self._measured.append(timeline)
            self._unfinished += 1
        instance = self.instances[chosen]
        instance.add(f"request-{next(self._order)}", timeline, measured)
        if not instance.busy:
            self._begin_step(instance)

    def _begin_step(self, instance: SimulatedInstance) -> None:
        end_s = instance.begin_step()
        if end_s is not None:
            self._will_end(instance, end_s)

    def _will_end(self, instance: SimulatedInstance, end_s: float) -> None:
        order = self._valid[instance.name] = next(self._order)
        heapq.heappush(self._steps, (end_s, order, instance))

    def _count(self, tokens: dict[float, int]) -> None:
        for at_s, count in tokens.items():
            if at_s in self._window:
                self._generated += count

    def _end_step(self) -> None:
        end_s, order, instance = heapq.heappop(self._steps)
        if order != self._valid[instance.name]:
            return
        self._clock.now = end_s
        ended = instance.end_step()
        self._count(ended.tokens)
        self._unfinished -= sum(live.measured for live in ended.done)
        if self._moving:
            for live in ended.crossed:
                self._at_boundary(instance, live)
        self._begin_step(instance)

    def _at_boundary(self, here: SimulatedInstance, live: Live) -> None:
        """Decide as the gateway does, and carry it out."""
        views = [
            instance.view(live if instance is here else None)
            for instance in self.instances.values()
        ]
        chosen = place_at_boundary(
            views,
            here.name,
            live.kv_tokens,
            self._rules,
            under_way=sum(view.migrations for view in views) // 2,
        )
        if chosen == here.name:
            return
        self._migrations += 1
        there = self.instances[chosen]
        there.receive(live, f"request-{next(self._order)}", here.hand_over(live))
        if not there.busy:
            self._begin_step(there)
