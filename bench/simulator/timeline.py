"""The events of one request inside an engine, and what its reader or its agent experiences of it.

Pure. Times are seconds on one clock: that of a simulation, or of a process that steps an engine.
Buffer and QoE are the pacer's, as in the gateway.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.workloads.agents import next_turn
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths, Round
from pacer import TokenBuffer, qoe

TAU_S = 0.1  # expected seconds per answering token (paper, "Terms")
TTFAT_S = 0.25  # expected seconds from the end of reasoning to the first answering token


@dataclass(slots=True)
class Timeline:
    """Events of one request, in order."""

    arrival_s: float
    lengths: Lengths
    boundary_s: float | None = None  # time of the end-of-reasoning token
    answer_s: list[float] = field(default_factory=list)  # time of each answering token
    call_s: list[float] = field(default_factory=list)  # time of each token of a call
    # As in `bench.workloads.arrivals.Arrival`.
    conversation: str | None = None
    rounds: tuple[Round, ...] = ()
    # Indexes into answer_s of tokens before which the request was preempted and resumed.
    preempted_before: list[int] = field(default_factory=list)
    preemptions: int = 0
    resumes: int = 0  # after one or several preemptions
    finished_s: float | None = None

    @property
    def read(self) -> bool:
        """Whether its answer has a reader: what comes before a call is for an agent."""
        return self.lengths.answer > 0 and not self.lengths.call

    def produced(self, position: int, now: float, preemptions: int) -> None:
        """Record a token.

        :param position: of the token in the output, from 0.
        :param preemptions: of the request so far.
        """
        self.produced_all(position, (now,), preemptions)

    def produced_all(self, position: int, times_s: Sequence[float], preemptions: int) -> None:
        """Record one or more tokens, without a preemption between them.

        :param position: of the first in the output, from 0.
        :param times_s: of each token.
        :param preemptions: of the request so far.
        """
        thoughts = (
            self.lengths.reasoning - position
        )  # how many of these tokens, at most, are reasoning
        if preemptions != self.preemptions:
            self.preemptions = preemptions
            self.resumes += 1
            if thoughts <= 0:
                self.preempted_before.append(len(self.answer_s))
        if 0 < thoughts <= len(times_s):
            self.boundary_s = times_s[thoughts - 1]
        if thoughts < len(times_s):
            rest = times_s[thoughts:] if thoughts > 0 else times_s
            if not self.lengths.call:
                self.answer_s.extend(rest)
                return
            answers = self.lengths.answer - len(self.answer_s)
            self.answer_s.extend(rest[:answers])
            self.call_s.extend(rest[answers:])


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMetrics:
    """Metrics of one finished request; names as in `bench.load.measure`."""

    reasoning_tokens: int
    ttft_s: float
    ttfat_s: float
    tpot_s: float | None  # of the paced delivery; None for one token
    e2e_s: float  # to the delivery of the last token
    qoe: float  # counted from the first answering token
    qoe_ttfat: float  # counted from the boundary; the first token is expected TTFAT_S later
    underruns: int  # tokens for which the reader had to wait
    underruns_by_preemption: int  # of these, directly after a preemption
    preemptions: int
    resumes: int


def metrics_of(timeline: Timeline, tau_s: float = TAU_S) -> RequestMetrics:
    """Metrics of a finished request for a reader of one token every ``tau_s`` seconds.

    It must have an answer. A call behind the answer does not count: nobody reads it.
    """
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
    last_s = first_s + slack_s - tau_s  # the planned delivery of the last token
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


def call_end_s(timeline: Timeline, tau_s: float | None = None) -> float:
    """When an agent has the whole call of a finished request.

    :param tau_s: seconds per token of a gateway that paces calls behind the answer like prose;
        None: it delivers them at once, and the answer before them with them.
    """
    if tau_s is None:
        return timeline.call_s[-1]
    released_s = -math.inf
    for arrived_s in (*timeline.answer_s, *timeline.call_s):
        released_s = max(arrived_s, released_s + tau_s)
    return released_s


def call_wait_s(timeline: Timeline, tau_s: float | None = None) -> float:
    """Seconds from the end of thoughts until an agent has the whole call.

    :param tau_s: as in `call_end_s`.
    """
    assert timeline.boundary_s is not None
    return call_end_s(timeline, tau_s) - timeline.boundary_s


def following(timeline: Timeline, tau_s: float | None = None) -> Arrival | None:
    """The turn that an agent sends after a finished one; None if there is none.

    :param tau_s: as in `call_end_s`.
    """
    if len(timeline.rounds) < 2:
        return None
    turn = Arrival(
        timeline.arrival_s,
        timeline.lengths,
        conversation=timeline.conversation,
        rounds=timeline.rounds,
    )
    return next_turn(turn, call_end_s(timeline, tau_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMetrics:
    """Metrics of one finished task of an agent."""

    rounds: int
    answered_s: float  # to the first token of the final answer
    e2e_s: float  # to the delivery of its last token
    tools_s: float  # part of it in which tools ran
    calls_s: float  # part of it from the end of thoughts to the whole call
    preemptions: int


def tasks_of(timelines: Iterable[Timeline], tau_s: float | None = None) -> list[TaskMetrics]:
    """Metrics of the tasks whose turns are all there, in the order of their beginnings.

    :param timelines: of finished requests, in the order of arrival.
    :param tau_s: as in `call_end_s`.
    """
    turns: defaultdict[str, list[Timeline]] = defaultdict(list)
    for timeline in timelines:
        if timeline.rounds and timeline.conversation is not None:
            turns[timeline.conversation].append(timeline)
    return [_task(of, tau_s) for of in turns.values() if len(of) == len(of[0].rounds)]


def _task(turns: Sequence[Timeline], tau_s: float | None) -> TaskMetrics:
    begun_s, last = turns[0].arrival_s, turns[-1]
    answer = metrics_of(last)
    return TaskMetrics(
        rounds=len(turns),
        answered_s=last.arrival_s + answer.ttft_s - begun_s,
        e2e_s=last.arrival_s + answer.e2e_s - begun_s,
        tools_s=sum(turn.rounds[0].tool_s for turn in turns),
        calls_s=sum(call_wait_s(turn, tau_s) for turn in turns[:-1]),
        preemptions=sum(turn.preemptions for turn in turns),
    )
