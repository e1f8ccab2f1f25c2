"""Records when each request of a simulation computes, as `bench.simulator.spans`.

It must not change the simulation: a run without it has the same outcome.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bench.simulator.cluster import Watch
from bench.simulator.instance import Ended, SimulatedInstance
from bench.simulator.migration import Move
from bench.simulator.spans import Spans
from bench.simulator.timeline import Timeline


class SpanWatch(Watch):
    """Records one simulation."""

    def __init__(self) -> None:
        self._spans: dict[int, Spans] = {}  # by the identity of the timeline
        # Requests that compute now, by instance, then by the identity of the timeline.
        self._computing: defaultdict[str, dict[int, Timeline]] = defaultdict(dict)

    def spans(self, timelines: Sequence[Timeline]) -> list[Spans]:
        """Spans of requests of the run, in the order of ``timelines``."""
        return [self._spans[id(timeline)] for timeline in timelines]

    def step_began(self, now: float, instance: SimulatedInstance) -> None:
        """Open spans of requests that were admitted, close those of preempted ones."""
        before = self._computing[instance.name]
        after = {id(timeline): timeline for timeline in instance.computing()}
        if after.keys() == before.keys():
            return
        for gone in before.keys() - after.keys():
            self._spans[gone].moments.append(now)
        for come in after.keys() - before.keys():
            self._spans.setdefault(come, Spans(after[come])).moments.append(now)
        self._computing[instance.name] = after

    def step_ended(self, now: float, instance: SimulatedInstance, ended: Ended) -> None:
        """Close the spans of finished requests."""
        for live in ended.done:
            self._stopped(now, instance.name, live.timeline)

    def moved(self, now: float, there: SimulatedInstance, move: Move) -> None:
        """Close the span of a request that leaves while it computes."""
        if id(move.request.timeline) in self._computing[move.source_id]:
            self._stopped(now, move.source_id, move.request.timeline)

    def _stopped(self, now: float, name: str, timeline: Timeline) -> None:
        del self._computing[name][id(timeline)]
        self._spans[id(timeline)].moments.append(now)
