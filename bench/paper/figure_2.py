"""The paper's Figure 2: three requests, room for two, and a device with steps of one unit of time.

The scheduler is the real one, in `bench.simulator.instance`. The paper says that A, B and C arrive
at 0, 1 and 2. First come, first served, C has its first token 7 units after its arrival. By
round-robin with a quantum of 4, C joins at 4 and is preempted at 8.

Only one reading fits. By round-robin, another request must wait at 8 for the room of C. So requests
have 8 tokens or more, and first come, first served, C joins at 8 at the earliest. Then its very
first token, at 9, is the one that counts. The figure is about requests of 8 tokens without a
reasoning phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import structs

from bench.simulator.cluster import Window, simulate
from bench.simulator.defaults import PROFILE
from bench.simulator.results import ORACLE
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.span_watch import SpanWatch
from bench.simulator.spans import Spans
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths
from workers.emulation.device import StepTimes
from workers.emulation.profile import load_profile

NAMES = ("A", "B", "C")
ROOM = 2
QUANTUM = 4
_TOKENS = 8
_UNIT = StepTimes(
    base_s=1.0,
    per_request_s=0.0,
    per_kv_token_s=0.0,
    prefill_base_s=0.0,
    prefill_per_token_s=0.0,
    prefill_per_token2_s=0.0,
)


@dataclass(frozen=True, slots=True)
class UnitLine:
    """One request. Times are in units."""

    arrival: int
    spans: tuple[tuple[int, int], ...]  # in which it computes: from, to
    ttft: int

    def drawn(self, units: int) -> str:
        """One character per unit: ``#`` if it computes, ``.`` if it waits, else a space."""
        ended = self.spans[-1][1]
        return "".join(
            "#"
            if any(begin <= unit < end for begin, end in self.spans)
            else "."
            if self.arrival <= unit < ended
            else " "
            for unit in range(units)
        )


def timelines(policy: str) -> Mapping[str, UnitLine]:
    """A, B and C under a policy. Under the oracle there is room for all three."""
    settings = InstanceSettings(
        profile=structs.replace(load_profile(PROFILE), step=_UNIT),
        policy="fcfs" if policy == ORACLE else policy,
        policy_numbers={"quantum_tokens": QUANTUM},
        max_num_seqs=len(NAMES) if policy == ORACLE else ROOM,
        offload=False,
    )
    watch = SpanWatch()
    arrivals = [Arrival(float(index), Lengths(1, 0, _TOKENS)) for index in range(len(NAMES))]
    run = simulate(settings, 1, arrivals, Window(0.0, 1.0 + len(NAMES)), watch=watch)
    return {
        name: _line(spans) for name, spans in zip(NAMES, watch.spans(run.timelines), strict=True)
    }


def _line(spans: Spans) -> UnitLine:
    timeline = spans.timeline
    return UnitLine(
        arrival=round(timeline.arrival_s),
        spans=tuple((round(begin), round(end)) for begin, end in spans.closed()),
        ttft=round(timeline.answer_s[0] - timeline.arrival_s),
    )
