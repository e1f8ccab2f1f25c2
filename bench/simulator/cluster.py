"""A cluster in virtual time: modelled devices, everything else the code that serves.

Inside an instance, vLLM's own scheduler decides, with our plugin (`bench.simulator.instance`).
Between instances, `gateway.policy.cluster_view.Placer` decides, as in the gateway. The pacer's QoE
says how readers fare. Nothing of these is re-implemented here: the simulator supplies the facts
that a gateway learns from its workers, and carries the decisions out.

Deterministic: the same settings and arrivals give the same result. A recorder, such as
`bench.simulator.run.chrome_trace`, is a `Watch`.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from bench.simulator.defaults import RULES
from bench.simulator.instance import Ended, InstanceTotals, Live, SimulatedInstance
from bench.simulator.migration import Move
from bench.simulator.scheduler import Clock
from bench.simulator.scheduler_factory import InstanceSettings, SchedulerFactory
from bench.simulator.timeline import TTFAT_S, Timeline, following
from bench.workloads.arrivals import Arrival
from gateway.policy.affinity import Place, key_of
from gateway.policy.cluster_view import Placer, blocks_of, view_rules
from gateway.policy.placement import Rules
from workers.policy.settings import PolicySettings

NO_MIGRATION = RULES["off"]


@dataclass(frozen=True, slots=True)
class Window:
    """The measured part of a run: requests that arrive in it, tokens generated in it."""

    from_s: float
    to_s: float

    def __contains__(self, at_s: float) -> bool:
        return self.from_s <= at_s < self.to_s


@dataclass(frozen=True, slots=True)
class ClusterRun:
    """The result of `simulate`."""

    timelines: list[Timeline]  # of the measured requests, in the order of arrival
    totals: list[InstanceTotals]  # from the start to the end of the run
    generated_tokens: int  # in the window
    ended_s: float
    migrations: int


class Watch:
    """Observes a simulation, in the order of virtual time. This base class ignores all calls."""

    def arrived(self, now: float, instance: SimulatedInstance, live: Live) -> None:
        """A new request was placed."""

    def step_began(self, now: float, instance: SimulatedInstance) -> None:
        """A step or a leap began; `SimulatedInstance.computing` has the requests that take part."""

    def step_ended(self, now: float, instance: SimulatedInstance, ended: Ended) -> None:
        """A step ended. Its tokens are counted, and nothing was decided about them yet.

        Also called for a leap that is still under way, before something is decided elsewhere. Then
        ``ended`` has the tokens of the steps that have ended, and no request that is done or has
        crossed its boundary.
        """

    def decided(self, now: float, here: SimulatedInstance, live: Live, chosen: str) -> None:
        """Placement chose where a request at its boundary answers."""

    def moved(self, now: float, there: SimulatedInstance, move: Move) -> None:
        """A request left its instance and is queued at another."""

    def closed(self, now: float) -> None:
        """The simulation is over; unfinished requests stay unfinished."""


_NO_WATCH = Watch()

# The next request of a conversation, once this one has finished; None: there is none.
Follow: TypeAlias = Callable[[Timeline], Arrival | None]


def simulate(
    settings: InstanceSettings,
    instances: int,
    arrivals: Iterable[Arrival],
    window: Window,
    progress: Callable[[float], None] = lambda now: None,
    rules: Rules = NO_MIGRATION,
    watch: Watch = _NO_WATCH,
    follow: Follow = following,
) -> ClusterRun:
    """Run until every request that arrives in the window is finished, while others still arrive.

    Requests that follow one that arrived in the window count as arrived in it, whenever they come.

    :param arrivals: in order of time. If they end early, the last requests run under less load.
    :param progress: called now and then with the virtual time, seconds.
    :param rules: placement's rules. Requests change instances only with ``settings.migration``.
    :param follow: called for every request when it has finished. What it returns arrives then,
        or later. By default, the next turn of an agent to whom calls are delivered at once.
    """
    cluster = Cluster(settings, instances, window, rules, watch, follow)
    return cluster.run(iter(arrivals), progress)


class Cluster:
    """The instances of one simulation, and the events among them."""

    def __init__(
        self,
        settings: InstanceSettings,
        instances: int,
        window: Window,
        rules: Rules,
        watch: Watch = _NO_WATCH,
        follow: Follow = following,
    ) -> None:
        self._clock = Clock()
        factory = SchedulerFactory(settings)
        self.network = factory.network
        self.instances = {
            name: SimulatedInstance(name, settings, factory, self._clock)
            for name in (f"instance-{index}" for index in range(instances))
        }
        numbers = PolicySettings.of({"policy": settings.policy, **settings.policy_numbers})
        self._placer = Placer(
            rules,
            view_rules(numbers.policy, numbers.quantum_tokens, numbers.demotion_tokens),
        )
        self._block_size = settings.profile.kv.block_size
        self._watch = watch
        self._follow = follow
        self._homes: dict[str, Place] = {}  # where the KV of a conversation is
        # By their times; the last says whether it is measured.
        self._following: list[tuple[float, int, Arrival, bool]] = []
        self._moving = settings.migration and rules.boundary != "off"
        self._migrations = 0
        self._moves: list[Move] = []  # under way
        self._staying: list[tuple[Live, SimulatedInstance]] = []  # until the first token
        self._window = window
        self._steps: list[tuple[float, int, SimulatedInstance]] = []  # by their ends
        self._valid: dict[str, int] = {}  # each instance's entry there; a cut leap's is stale
        self._follows = itertools.count()
        self._order = itertools.count()  # events at one moment happen in the order of their making
        self._measured: list[Timeline] = []
        self._unfinished = 0  # of the measured, those that are still to follow included
        self._generated = 0
        for instance in self.instances.values():
            instance.cut = partial(self._will_end, instance)
            instance.window_to_s = window.to_s

    def run(
        self, arrivals: Iterator[Arrival], progress: Callable[[float], None] = lambda now: None
    ) -> ClusterRun:
        """Run the simulation, see `simulate`. To be called once."""
        coming = next(arrivals, None)
        while True:
            follower = self._following[0][2] if self._following else None
            first = coming
            if follower is not None and (coming is None or follower.at_s < coming.at_s):
                first = follower
            if first is not None and (not self._steps or first.at_s <= self._steps[0][0]):
                if first.at_s >= self._window.to_s and not self._unfinished:
                    self._end_before(first.at_s)
                    break
                if first is follower:
                    measured = heapq.heappop(self._following)[3]
                else:
                    coming = next(arrivals, None)
                    measured = first.at_s in self._window
                    self._unfinished += measured
                self._arrive(first, measured)
                progress(self._clock.now)
            elif self._steps:
                self._end_step()
                if not self._unfinished and self._clock.now >= self._window.to_s:
                    break
            else:
                break
        self._catch_up()
        self._watch.closed(self._clock.now)
        return ClusterRun(
            timelines=self._measured,
            totals=[instance.final_totals() for instance in self.instances.values()],
            generated_tokens=self._generated,
            ended_s=self._clock.now,
            migrations=self._migrations,
        )

    def _arrive(self, arrival: Arrival, measured: bool) -> None:
        self._clock.now = arrival.at_s
        self._catch_up()
        candidates = [instance.occupancy() for instance in self.instances.values()]
        home = None if arrival.conversation is None else self._homes.get(arrival.conversation)
        chosen = self._placer.place_new(
            candidates,
            self._moves,
            self._clock.now,
            held_tokens={} if home is None else {home.instance_id: home.tokens},
            prefixes=_prefixes_of(arrival.conversation),
        )
        assert chosen is not None
        if arrival.conversation is not None:
            self._homes[arrival.conversation] = Place(chosen, arrival.lengths.prompt)
        timeline = Timeline(
            arrival.at_s, arrival.lengths, conversation=arrival.conversation, rounds=arrival.rounds
        )
        if measured:
            self._measured.append(timeline)
        instance = self.instances[chosen]
        live = instance.add(f"request-{next(self._order)}", timeline, measured)
        self._watch.arrived(self._clock.now, instance, live)
        if not instance.busy:
            self._begin_step(instance)

    def _begin_step(self, instance: SimulatedInstance) -> None:
        end_s = instance.begin_step()
        if end_s is not None:
            self._watch.step_began(self._clock.now, instance)
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
        for live in ended.done:
            prefixes = _prefixes_of(live.timeline.conversation)
            self._placer.turn_ended(prefixes, instance.name, live.kv_tokens, end_s)
            arrival = self._follow(live.timeline)
            if arrival is not None:
                assert arrival.at_s >= end_s, "it follows"
                follower = (arrival.at_s, next(self._follows), arrival, live.measured)
                heapq.heappush(self._following, follower)
                self._unfinished += live.measured
        if self._moving and ended.crossed:
            self._catch_up()  # what is decided next depends on the others
        self._watch.step_ended(self._clock.now, instance, ended)
        if self._moving:
            self._note_first_tokens(instance)
        for live in ended.crossed:
            if self._moving:
                self._at_boundary(instance, live)
            else:
                self._watch.decided(self._clock.now, instance, live, instance.name)
        self._begin_step(instance)

    def _catch_up(self) -> None:
        """Count and report the steps of leaps that have ended by now."""
        now = self._clock.now
        for instance in self.instances.values():
            tokens = instance.catch_up(now)
            if tokens:
                self._count(tokens)
                self._watch.step_ended(now, instance, Ended(tokens, [], []))
                if self._moving:
                    self._note_first_tokens(instance)

    def _end_before(self, at_s: float) -> None:
        """The simulation ends with the last step that has ended by then."""
        last_s, self._clock.now = self._clock.now, at_s
        self._catch_up()
        ended_s = [instance.step_ended_s for instance in self.instances.values()]
        self._clock.now = max(last_s, *ended_s)

    def _at_boundary(self, here: SimulatedInstance, live: Live) -> None:
        """Let placement decide where a request answers, and carry it out."""
        now = self._clock.now
        chosen = self._placer.place_at_boundary(
            live,
            here.occupancy(),
            [one.occupancy() for one in self.instances.values() if one is not here],
            self._moves,
            now,
            unnoticed_s=TTFAT_S,
        )
        self._watch.decided(now, here, live, chosen)
        if chosen == here.name:
            if self._placer.rules.cost_check:
                self._staying.append((live, here))
            return
        self._migrations += 1
        there, held = self.instances[chosen], here.hand_over(live)
        kv_blocks = blocks_of(live.kv_tokens, self._block_size)
        move = Move(live, here.name, chosen, live.generated, kv_blocks, now, held)
        self._moves.append(move)
        there.receive(live, f"request-{next(self._order)}", held)
        self._watch.moved(now, there, move)
        if not there.busy:
            self._begin_step(there)

    def _note_first_tokens(self, instance: SimulatedInstance) -> None:
        """Let placement learn from requests that now have their first answering token."""
        for move in [move for move in self._moves if move.target_id == instance.name]:
            if move.request.generated > move.generated:
                self._moves.remove(move)
                self._placer.note_first_answer(
                    "moved" if move.held.claimed else "recomputed",
                    move.source_id,
                    move.kv_blocks,
                    move.boundary_s,
                    move.request.timeline.answer_s[0],
                )
        left = []
        for live, here in self._staying:
            boundary_s, answer_s = live.timeline.boundary_s, live.timeline.answer_s
            if not answer_s:
                left.append((live, here))
            elif boundary_s is not None:
                self._placer.note_first_answer("stayed", here.name, 0, boundary_s, answer_s[0])
        self._staying = left


def _prefixes_of(conversation: str | None) -> tuple[int, ...]:
    """One number for all its beginnings: nothing else begins like it."""
    key = key_of("", conversation)
    return () if key is None else (key,)
