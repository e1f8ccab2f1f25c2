"""The spans in which a request computes, and its latency split by them (paper, Figures 4 and 5).

Pure. Must not know how spans are recorded (`bench.simulator.span_watch`).

    executed    in steps that compute for the request
    blocked     from the beginning of a phase until the request first computes in it: it waits for
                memory or, after a move, for its KV
    preempted   all later waiting, for memory that other requests have
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from bench.simulator.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Split:
    """One phase of one request, in seconds."""

    executed_s: float
    blocked_s: float
    preempted_s: float

    @property
    def whole_s(self) -> float:
        """Length of the phase."""
        return self.executed_s + self.blocked_s + self.preempted_s


@dataclass(slots=True)
class Spans:
    """When a request computed: alternating beginnings and ends, ascending."""

    timeline: Timeline
    moments: list[float] = field(default_factory=list)

    def closed(self) -> list[tuple[float, float]]:
        """Beginning and end of each span; the request must be finished."""
        return list(zip(self.moments[::2], self.moments[1::2], strict=True))


def split(spans: Iterable[tuple[float, float]], from_s: float, to_s: float) -> Split:
    """Split the phase from ``from_s`` to ``to_s``.

    :param spans: all spans of the request, ascending.
    """
    inside = [
        (max(begin, from_s), min(end, to_s))
        for begin, end in spans
        if begin < to_s and end > from_s
    ]
    if not inside:
        return Split(0.0, to_s - from_s, 0.0)
    later = sum(begin - end for (_, end), (begin, _) in pairwise(inside))
    return Split(
        executed_s=sum(end - begin for begin, end in inside),
        blocked_s=inside[0][0] - from_s,
        preempted_s=later + to_s - inside[-1][1],
    )


def phases(spans: Spans) -> tuple[Split, Split]:
    """Reasoning, from arrival to boundary, and answering, from boundary to last token."""
    timeline = spans.timeline
    boundary_s, finished_s = timeline.boundary_s, timeline.finished_s
    assert boundary_s is not None
    assert finished_s is not None
    closed = spans.closed()
    return (
        split(closed, timeline.arrival_s, boundary_s),
        split(closed, boundary_s, finished_s),
    )
