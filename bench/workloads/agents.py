"""Tasks of agents: the model thinks and calls a tool, round after round, and answers at the end.

Decides how many rounds a task has, how long its turns are and how long its tools take. Pure: all
randomness comes from seeds. It must not know what serves the turns, or how clients send them.

Sources are published statistics of TraceLab (University of Washington, 2026; CC BY 4.0), 4300
sessions of coding agents. docs/reference/workloads.md gives them, and the reason for every choice.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.workloads.arrivals import LEAST_BURSTINESS, Arrival, times
from bench.workloads.distributions import Quantiles
from bench.workloads.lengths import Lengths
from bench.workloads.lengths import Round as Round

ROUNDS = (3, 20)  # least and most
CONTEXT = 30_000  # most tokens of a task, with the final answer

# Seconds of a tool: 61% of TraceLab's calls took less than 1 s, 88% less than 10 s, 96% less than
# 60 s. Between these, and to the ends that we chose, the logarithm is evenly distributed.
_TOOL_LOG_S = Quantiles(
    (0.0, 0.61, 0.88, 0.96, 1.0), tuple(map(math.log, (0.02, 1.0, 10.0, 60.0, 120.0)))
)
_EDITS = 0.11  # share of TraceLab's calls that write a file or change one: long arguments


@dataclass(frozen=True, slots=True)
class AgentTask:
    """A task and the time at which it begins."""

    at_s: float
    rounds: tuple[Round, ...]  # the last one answers a reader; all others end with a call

    @property
    def context(self) -> int:
        """Tokens at its end: all that its turns have added and generated."""
        return sum(of.lengths.prompt + of.lengths.output for of in self.rounds)


class FirstTurns:
    """Lengths of the first turns of tasks."""

    @property
    def longest_output(self) -> int:
        """Maximum of reasoning, prose and call together, in tokens."""
        return CONTEXT

    def draw(self, rng: random.Random) -> Lengths:
        """Draw the lengths of one turn."""
        return _task(rng)[0].lengths


def agent_tasks(rate: float, seed: int | str, *, burstiness: float = 1.0) -> Iterator[AgentTask]:
    """Tasks by time, without end. The same seed gives the same tasks; a rate moves their times.

    :param rate: tasks per second, on average; inf: all at once.
    :param burstiness: shape of the gaps between tasks; 1: Poisson arrivals.
    :raises ValueError: if the rate is not above 0, or the burstiness below `LEAST_BURSTINESS`;
        raised by the call, not by the iterator.
    """
    if not (rate > 0 and burstiness >= LEAST_BURSTINESS):
        least = f"rate must be above 0 and burstiness {LEAST_BURSTINESS:g} or more"
        raise ValueError(f"{least}: {rate:g} and {burstiness:g}")
    rng = random.Random(seed)
    return (AgentTask(at_s, _task(rng)) for at_s in times(rate, burstiness, rng))


def first_turn(task: AgentTask, name: str) -> Arrival:
    """The request that begins a task; `next_turn` gives the others.

    :param name: of the task; no other task has it.
    """
    return Arrival(task.at_s, task.rounds[0].lengths, conversation=name, rounds=task.rounds)


def next_turn(turn: Arrival, called_s: float) -> Arrival | None:
    """The request that follows when the tool of ``turn`` has its result; None after the last turn.

    Its prompt is the whole context: a client sends back all that the model wrote, its thoughts
    included.

    :param called_s: when the agent had the whole call.
    """
    if len(turn.rounds) < 2:
        return None
    ended, *later = turn.rounds
    lengths = later[0].lengths
    context = turn.lengths.prompt + turn.lengths.output + lengths.prompt
    return replace(
        turn,
        at_s=called_s + ended.tool_s,
        lengths=replace(lengths, prompt=context),
        rounds=tuple(later),
    )


def under_way(rate: float, token_s: float, seed: int | str) -> Iterator[Arrival]:
    """Turns of the tasks in progress at time 0, after a long time of tasks at ``rate``.

    A task goes on with the turn that it has reached, from that turn's beginning, or when the tool
    that it waits for has its result.

    :param token_s: the time that each token has taken so far.
    """
    rng = random.Random(f"under way {seed}")
    running: list[Arrival] = []
    longest_s = CONTEXT * token_s + ROUNDS[1] * math.exp(_TOOL_LOG_S.most)
    for age_s in times(rate, 1.0, rng):
        if age_s >= longest_s:
            break
        name = f"under-way-{len(running)}"
        turn: Arrival | None = first_turn(AgentTask(-age_s, _task(rng)), name)
        while turn is not None:
            ended_s = turn.at_s + turn.lengths.output * token_s
            if ended_s > 0:
                running.append(replace(turn, at_s=max(0.0, turn.at_s)))
                break
            turn = next_turn(turn, ended_s)
    running.reverse()  # the oldest first
    running.sort(key=lambda turn: turn.at_s)
    return iter(running)


def _task(rng: random.Random) -> tuple[Round, ...]:
    """The rounds of one task."""
    while True:
        least, most = (math.log(bound) for bound in (ROUNDS[0], ROUNDS[1] + 1))
        count = math.floor(math.exp(rng.uniform(least, most)))
        rounds = [_round(rng, first=index == 0) for index in range(count - 1)]
        rounds.append(_last_round(rng))
        # An agent whose context is full comes to its end.
        while len(rounds) > ROUNDS[0] and AgentTask(0.0, tuple(rounds)).context > CONTEXT:
            del rounds[-2]
        if AgentTask(0.0, tuple(rounds)).context <= CONTEXT:
            return tuple(rounds)


def _round(rng: random.Random, *, first: bool) -> Round:
    added = _drawn(rng, 4000, 0.5, 1000, 16_000) if first else _result(rng)
    prose = _drawn(rng, 40, 0.7, 1, 400) if rng.random() < 0.5 else 0
    edits = rng.random() < _EDITS
    call = _drawn(rng, 500, 0.9, 50, 4000) if edits else _drawn(rng, 60, 0.5, 20, 400)
    lengths = Lengths(prompt=added, reasoning=_thoughts(rng), answer=prose, call=call)
    return Round(lengths, math.exp(_TOOL_LOG_S.draw(rng)))


def _last_round(rng: random.Random) -> Round:
    answer = _drawn(rng, 325, 0.65, 16, 4000)
    return Round(Lengths(prompt=_result(rng), reasoning=_thoughts(rng), answer=answer), 0.0)


def _result(rng: random.Random) -> int:
    return _drawn(rng, 300, 1.4, 16, 8000)


def _thoughts(rng: random.Random) -> int:
    return _drawn(rng, 160, 1.3, 8, 8000)


def _drawn(rng: random.Random, median: float, sigma: float, least: int, most: int) -> int:
    """Draw tokens from a log-normal distribution."""
    return max(least, min(most, round(median * math.exp(sigma * rng.gauss(0.0, 1.0)))))
