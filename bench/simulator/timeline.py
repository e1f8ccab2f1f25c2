"""What happened to one request inside an engine, and what its reader saw of it.

Pure. Times are seconds on one clock, that of a simulation or of a process that steps an engine. The
reader is the pacer's own code: the same buffer and the same QoE as in the gateway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.workloads.lengths import Lengths
from pacer import TokenBuffer, qoe

TAU_S = 0.1  # per answering token (paper, "Terms")
TTFAT_S = 0.25  # end of thinking to the first answering token


@dataclass(slots=True)
class Timeline:
    """Events of one request, in the order in which they happened."""

    arrival_s: float
    lengths: Lengths
    boundary_s: float | None = None  # when the end-of-thinking token came
    answer_s: list[float] = field(default_factory=list)  # when each answering token came
    # Indexes into answer_s of tokens before which the request was preempted and came back.
    preempted_before: list[int] = field(default_factory=list)
    preemptions: int = 0
    resumes: int = 0  # times that it went on after preemptions
    finished_s: float | None = None

    def produced(self, position: int, now: float, preemptions: int) -> None:
        """A token came.

        :param position: of the token in the output, from 0.
        :param preemptions: of the request so far.
        """
        self.produced_all(position, (now,), preemptions)

    def produced_all(self, position: int, times_s: Sequence[float], preemptions: int) -> None:
        """Tokens came, at least one, without a preemption between them.

        :param position: of the first in the output, from 0.
        :param times_s: when each of them came.
        :param preemptions: of the request so far.
        """
        thoughts = self.lengths.reasoning - position  # of these tokens, if there are so many
        if preemptions != self.preemptions:
            self.preemptions = preemptions
            self.resumes += 1
            if thoughts <= 0:
                self.preempted_before.append(len(self.answer_s))
        if 0 < thoughts <= len(times_s):
            self.boundary_s = times_s[thoughts - 1]
        if thoughts < len(times_s):
            self.answer_s.extend(times_s[thoughts:] if thoughts > 0 else times_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMetrics:
    """One finished request; names as in `bench.load.measure`."""

    reasoning_tokens: int
    ttft_s: float
    ttfat_s: float
    tpot_s: float | None  # as released to the reader; None for a single token
    e2e_s: float  # to the release of the last token
    qoe: float  # from the first answering token
    qoe_ttfat: float  # from the boundary, the first token expected 0.25 s later
    underruns: int  # tokens for which the reader had to wait
    underruns_by_preemption: int  # of these, tokens before which the request had been preempted
    preemptions: int
    resumes: int


def metrics_of(timeline: Timeline, tau_s: float = TAU_S) -> RequestMetrics:
    """What the reader of a finished request saw who reads a token every ``tau_s``."""
    assert timeline.boundary_s is not None
    first_s = timeline.answer_s[0]
    buffer: TokenBuffer[int] = TokenBuffer(tau_s, first_s)
    preempted = set(timeline.preempted_before)
    by_preemption = 0
    for index, arrived_s in enumerate(timeline.answer_s):
        before = buffer.underruns
        buffer.push(index, arrived_s)
        if buffer.underruns > before and index in preempted:
            by_preemption += 1
    count = len(timeline.answer_s)
    slack_s = buffer.slack_s(first_s)
    assert slack_s is not None
    last_s = first_s + slack_s - tau_s  # the plan of the last release
    return RequestMetrics(
        reasoning_tokens=timeline.lengths.reasoning,
        ttft_s=first_s - timeline.arrival_s,
        ttfat_s=first_s - timeline.boundary_s,
        tpot_s=(last_s - first_s) / (count - 1) if count > 1 else None,
        e2e_s=last_s - timeline.arrival_s,
        qoe=qoe(timeline.answer_s, tau_s=tau_s, origin_s=first_s),
        qoe_ttfat=qoe(
            timeline.answer_s, tau_s=tau_s, first_s=TTFAT_S, origin_s=timeline.boundary_s
        ),
        underruns=buffer.underruns,
        underruns_by_preemption=by_preemption,
        preemptions=timeline.preemptions,
        resumes=timeline.resumes,
    )
