"""Workloads by name: arrivals and lengths of requests.

Decides what each name means, and which parameters a workload has: a rate, a seed and, if it has no
bursts of its own, a burstiness. It must not know what serves the requests. Means are the paper's
("The paper's evaluation"); docs/reference/workloads.md lists sources and our choices.

``python -m bench.workloads NAME|FILE`` describes a workload (`bench.workloads.describe`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.reporting.errors import BenchmarkError
from bench.workloads import agents
from bench.workloads.arrivals import LEAST_BURSTINESS, Arrival, LengthSource, gamma, under_way
from bench.workloads.client_mixture import ClientMixture
from bench.workloads.distributions import TABLES, read_quantiles
from bench.workloads.lengths import (
    ALPACA_EVAL,
    ARENA_HARD,
    REASONING_HEAVY,
    Lengths,
    SharedLengths,
)
from bench.workloads.reasoning_split import r1_shares, split_named
from bench.workloads.servegen import deepseek_r1, is_table, read_clients
from bench.workloads.traces import load_trace, mean_rate, replay
from workers.checked import closest

LEAST_RATE = 1e-9  # a request in 30 years; below this, times lose their meaning


class WorkloadError(BenchmarkError):
    """The workload does not exist, or does not support the parameters; the message says which."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Arrivals and lengths under a name."""

    name: str
    lengths: LengthSource
    description: str
    clients: ClientMixture | None = None  # senders, with bursts of their own
    trace: tuple[Arrival, ...] = ()  # or all requests of a trace
    tasks: bool = False  # of agents: each arrival is the first turn of a task

    @property
    def rate(self) -> float | None:
        """Its own requests per second, on average; None if any rate will do."""
        return self.clients.rate if self.clients else mean_rate(self.trace)

    @property
    def finite(self) -> bool:
        """Whether arrivals end."""
        return bool(self.trace)

    def arrivals(
        self, rate: float | None, seed: int | str, *, burstiness: float = 1.0
    ) -> Iterator[Arrival]:
        """The requests by time from 0, without end unless it is a trace.

        Of agents' tasks these are the first turns; `bench.workloads.agents.next_turn` gives the
        others.

        :param rate: per second on average, inf for all at once; None: the workload's own.
        :param seed: the same seed gives the same requests; 0 begins a trace at its first request.
        :param burstiness: shape of the gaps, as in ``vllm bench serve``; 1: Poisson arrivals.
        :raises WorkloadError: if the workload does not support the parameters; raised by the call.
        """
        if rate is None and self.rate is None:
            raise WorkloadError(f"workload {self.name} has no rate of its own: give one (--rate)")
        if rate is not None and not rate >= LEAST_RATE:
            raise WorkloadError(f"rate {rate:g} is not {LEAST_RATE:g} per second or more")
        if not burstiness >= LEAST_BURSTINESS:
            raise WorkloadError(f"burstiness {burstiness:g} is not {LEAST_BURSTINESS:g} or more")
        if burstiness != 1 and (self.clients or self.trace):
            raise WorkloadError(
                f"workload {self.name} has bursts of its own: burstiness {burstiness:g} has no use"
            )
        if self.clients:
            return _of_clients(self.clients, rate, seed)
        if self.trace:
            try:
                return replay(self.trace, rate=rate, seed=seed)
            except ValueError as error:
                raise WorkloadError(f"workload {self.name}: {error}") from error
        assert rate is not None
        if self.tasks:
            tasks = agents.agent_tasks(rate, seed, burstiness=burstiness)
            return (agents.first_turn(task, f"task-{n}") for n, task in enumerate(tasks))
        return gamma(rate, burstiness, self.lengths, seed)

    def under_way(self, rate: float, token_s: float, seed: int | str) -> Iterator[Arrival]:
        """Requests in progress at time 0, see `bench.workloads.arrivals.under_way`."""
        if self.tasks:
            return agents.under_way(rate, token_s, seed)
        return under_way(rate, self.lengths, token_s, seed)


@dataclass(frozen=True, slots=True)
class TraceLengths:
    """Lengths of a trace, each drawn with the same probability."""

    requests: Sequence[Lengths]

    @property
    def longest_output(self) -> int:
        """Maximum of reasoning and answer together, in tokens."""
        return max(request.reasoning + request.answer for request in self.requests)

    def draw(self, rng: random.Random) -> Lengths:
        """Draw the lengths of one request."""
        return rng.choice(self.requests)


def named(name: str) -> Workload:
    """The workload of that name, one of `NAMES`.

    :raises WorkloadError: if it does not exist.
    """
    make = _NAMED.get(name)
    if make is None:
        raise WorkloadError(_unknown(name))
    return make()


def _unknown(name: str) -> str:
    near = closest(name, NAMES)
    hint = f"did you mean {near}? Known are" if near else "known are"
    return f"unknown workload {name!r}; {hint} {', '.join(NAMES)}"


def workload_of(
    source: str,
    *,
    format: str = "auto",
    split: str | None = None,
    seed: int | str = 0,
    limit: int | None = None,
    progress: Callable[[int], None] = lambda lines: None,
) -> Workload:
    """A workload by name, or from a trace of requests, a table of clients, or a ServeGen folder.

    A table has no lengths: its clients get those of `servegen-r1`. The other parameters are those
    of `bench.workloads.traces.load_trace`.

    :raises WorkloadError: if neither a workload nor a file has that name.
    :raises TraceError: if the file cannot be read; names file, line and column.
    :raises SplitError: if the split does not exist.
    """
    if split is not None:
        split_named(split)  # a wrong name is an error even if it is not needed
    path = Path(source)
    if source in NAMES:
        return named(source)
    if not path.exists():
        raise WorkloadError(f"{_unknown(source)}; and no file has that name")
    if path.is_dir():
        return of_clients(path.name, read_clients(path), f"ServeGen's clients of {path}")
    if format == "auto" and is_table(path):
        clients = read_clients(path, deepseek_r1())
        return of_clients(path.name, clients, f"clients of {path}, with lengths of servegen-r1")
    trace = load_trace(path, format, split=split, seed=seed, limit=limit, progress=progress)
    facts = [f"{len(trace.arrivals)} requests of {path} ({trace.format})"]
    if trace.split:
        facts.append(f"outputs split by {trace.split}")
    if trace.unanswered:
        facts.append(f"{trace.unanswered} without output omitted")
    return of_trace(path.name, trace.arrivals, ", ".join(facts))


def of_trace(name: str, trace: Sequence[Arrival], description: str) -> Workload:
    """A workload from a trace, such as `bench.workloads.traces.read_trace` returns.

    :raises WorkloadError: if the trace is empty.
    """
    if not trace:
        raise WorkloadError(f"workload {name} has no requests")
    lengths = TraceLengths([arrival.lengths for arrival in trace])
    return Workload(name, lengths, description, trace=tuple(trace))


def of_clients(name: str, clients: ClientMixture, description: str) -> Workload:
    """A workload from clients, such as `bench.workloads.servegen.read_clients` returns."""
    return Workload(name, clients, description, clients=clients)


def _of_clients(clients: ClientMixture, rate: float | None, seed: int | str) -> Iterator[Arrival]:
    if rate is not None and math.isinf(rate):
        return (replace(arrival, at_s=0.0) for arrival in clients.arrivals(None, seed))
    return clients.arrivals(rate, seed)


def _alpacaeval() -> Workload:
    return Workload(
        "alpacaeval",
        ALPACA_EVAL,
        "AlpacaEval 2.0: short reasoning and answers, 558 and 566 tokens on average",
    )


def _arena_hard() -> Workload:
    return Workload(
        "arena-hard",
        ARENA_HARD,
        "Arena-Hard: 950 tokens of reasoning and 824 of answer on average",
    )


def _reasoning_heavy() -> Workload:
    return Workload(
        "reasoning-heavy",
        REASONING_HEAVY,
        "half Arena-Hard, half hard problems with 4 to 8 times as much reasoning as answer",
    )


def _servegen_r1() -> Workload:
    return of_clients(
        "servegen-r1",
        deepseek_r1(),
        "DeepSeek-R1 in production: ServeGen's clients in the busiest 20 minutes of a day",
    )


def _azure_conv() -> Workload:
    table = TABLES / "azure_2023_conv.csv"
    prompt, output = read_quantiles(table, "prompt_tokens", "output_tokens")
    return Workload(
        "azure-conv",
        SharedLengths(prompt, output, r1_shares()),
        "Azure's conversations of 2023, with outputs split as DeepSeek-R1's in production",
    )


def _agent() -> Workload:
    return Workload(
        "agent",
        agents.FirstTurns(),
        "agents: 3 to 20 rounds of thoughts, a call and its tool, then an answer; arrivals are "
        "tasks",
        tasks=True,
    )


_NAMED: dict[str, Callable[[], Workload]] = {
    "alpacaeval": _alpacaeval,
    "arena-hard": _arena_hard,
    "reasoning-heavy": _reasoning_heavy,
    "servegen-r1": _servegen_r1,
    "azure-conv": _azure_conv,
    "agent": _agent,
}

NAMES = tuple(_NAMED)
