"""Workloads by name: when requests come, and how long they are.

Decides what is behind each name, and which choices a workload leaves: its rate, its seed, and where
it has no bursts of its own, how bursty it is. It must not know who is going to serve the requests.
Means are the paper's ("The paper's evaluation"); docs/workloads.md has sources and our choices.

``python -m bench.workloads NAME|FILE`` prints what a workload is like.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.reporting.errors import BenchmarkError
from bench.workloads.arrivals import LEAST_BURSTINESS, Arrival, LengthSource, gamma
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

LEAST_RATE = 1e-9  # a request in 30 years: below, times lose their meaning


class WorkloadError(BenchmarkError):
    """There is no such workload, or it cannot be had like that; the message is for people."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests to come."""

    name: str
    lengths: LengthSource
    description: str
    clients: ClientMixture | None = None  # who send them, with bursts of their own
    trace: tuple[Arrival, ...] = ()  # or the requests themselves, as many as there are

    @property
    def rate(self) -> float | None:
        """Requests per second in the mean, of itself; None: it has none, any will do."""
        return self.clients.rate if self.clients else mean_rate(self.trace)

    @property
    def finite(self) -> bool:
        """Whether arrivals end."""
        return bool(self.trace)

    def arrivals(
        self, rate: float | None, seed: int | str, *, burstiness: float = 1.0
    ) -> Iterator[Arrival]:
        """The requests by time from 0, without end unless it is a trace.

        :param rate: per second in the mean, inf for all at once; None: the workload's own.
        :param seed: the same seed gives the same requests; a trace begins at its first only with 0.
        :param burstiness: shape of the gaps, as in ``vllm bench serve``; 1: Poisson arrivals.
        :raises WorkloadError: if the workload cannot be had so; at once.
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
        return gamma(rate, burstiness, self.lengths, seed)


@dataclass(frozen=True, slots=True)
class TraceLengths:
    """Lengths of requests that have been: one of them, drawn evenly."""

    requests: Sequence[Lengths]

    @property
    def longest_output(self) -> int:
        """Most tokens of reasoning and answer together."""
        return max(request.reasoning + request.answer for request in self.requests)

    def draw(self, chance: random.Random) -> Lengths:
        """One request."""
        return chance.choice(self.requests)


def named(name: str) -> Workload:
    """The workload of that name, one of `NAMES`.

    :raises WorkloadError: if there is none.
    """
    make = _NAMED.get(name)
    if make is None:
        raise WorkloadError(_unknown(name))
    return make()


def _unknown(name: str) -> str:
    near = closest(name, NAMES)
    hint = f"did you mean {near}? There are" if near else "there are"
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
    """A workload by name, else a trace of requests, a table of clients, or a folder of ServeGen's.

    A table has no lengths: its clients get those of `servegen-r1`. The other parameters are
    `bench.workloads.traces.load_trace`'s.

    :raises WorkloadError: if there is neither such a name nor such a file.
    :raises TraceError: if the file cannot be read; names file, line and column.
    :raises SplitError: if there is no such split.
    """
    if split is not None:
        split_named(split)  # a mistake is one, needed or not
    path = Path(source)
    if source in NAMES:
        return named(source)
    if not path.exists():
        raise WorkloadError(f"{_unknown(source)}; nor is there such a file")
    if path.is_dir():
        return of_clients(path.name, read_clients(path), f"ServeGen's clients of {path}")
    if format == "auto" and is_table(path):
        clients = read_clients(path, deepseek_r1())
        return of_clients(path.name, clients, f"clients of {path}, with lengths of servegen-r1")
    trace = load_trace(path, format, split=split, seed=seed, limit=limit, progress=progress)
    told = [f"{len(trace.arrivals)} requests of {path} ({trace.format})"]
    if trace.split:
        told.append(f"outputs split by {trace.split}")
    if trace.unanswered:
        told.append(f"{trace.unanswered} without output left out")
    return of_trace(path.name, trace.arrivals, ", ".join(told))


def of_trace(name: str, trace: Sequence[Arrival], description: str) -> Workload:
    """A workload of requests that have been, such as `bench.workloads.traces.read_trace` returns.

    :raises WorkloadError: if there are none.
    """
    if not trace:
        raise WorkloadError(f"workload {name} has no requests")
    lengths = TraceLengths([arrival.lengths for arrival in trace])
    return Workload(name, lengths, description, trace=tuple(trace))


def of_clients(name: str, clients: ClientMixture, description: str) -> Workload:
    """A workload of clients, such as `bench.workloads.servegen.read_clients` returns."""
    return Workload(name, clients, description, clients=clients)


def _of_clients(clients: ClientMixture, rate: float | None, seed: int | str) -> Iterator[Arrival]:
    if rate is not None and math.isinf(rate):
        return (replace(arrival, at_s=0.0) for arrival in clients.arrivals(None, seed))
    return clients.arrivals(rate, seed)


def _alpacaeval() -> Workload:
    return Workload(
        "alpacaeval",
        ALPACA_EVAL,
        "AlpacaEval 2.0: short thoughts and answers alike, 558 and 566 tokens in the mean",
    )


def _arena_hard() -> Workload:
    return Workload(
        "arena-hard",
        ARENA_HARD,
        "Arena-Hard: 950 tokens of reasoning and 824 of answer in the mean",
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
        "Azure's conversations of 2023, their outputs split as DeepSeek-R1's are in production",
    )


_NAMED: dict[str, Callable[[], Workload]] = {
    "alpacaeval": _alpacaeval,
    "arena-hard": _arena_hard,
    "reasoning-heavy": _reasoning_heavy,
    "servegen-r1": _servegen_r1,
    "azure-conv": _azure_conv,
}

NAMES = tuple(_NAMED)
