"""``python -m bench.workloads NAME|FILE``: rates, bursts and lengths of a workload.

    python -m bench.workloads servegen-r1 --rate 4
    python -m bench.workloads AzureLLMInferenceTrace_conv.csv --split servegen-r1
    python -m bench.workloads data/reason/deepseek-r1 --between 79200-80400

Decides which numbers describe a workload. Pure, except for `main`, which prints.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.reporting.console import INTERRUPTED, OK, REFUSED, give_up, wide_console
from bench.reporting.errors import BenchmarkError
from bench.workloads.arrivals import Arrival
from bench.workloads.distributions import Quantiles
from bench.workloads.named import NAMES, Workload, WorkloadError, of_clients, workload_of
from bench.workloads.traces import FORMATS

T = TypeVar("T")

COUNT = 10_000  # requests that are drawn from a workload without end
SHARES = (0.01, 0.1, 0.5, 0.9, 0.95, 0.99)

_COUNTED_S = (1.0, 10.0)  # widths of the intervals in which bursts are counted
_PROGRESS_EVERY = 1000


@dataclass(frozen=True, slots=True)
class LengthSummary:
    """Lengths of one kind, in tokens."""

    mean: float
    least: int
    quantiles: tuple[float, ...]  # at `SHARES`
    most: int


@dataclass(frozen=True, slots=True)
class Description:
    """Arrivals and lengths of some requests."""

    requests: int
    span_s: float  # from the first to the last
    clients: int  # 0 if senders are unknown
    rate: float | None  # per second; None if they span no time
    gap_cv: float | None  # standard deviation of the gaps in mean gaps; 1 for Poisson arrivals
    dispersion: dict[float, float | None]  # by seconds counted: variance of counts in mean counts
    # prompt, reasoning, answer, output; of agents also call, and tokens of a whole task: context.
    # All but context are those of turns, and a prompt is what a turn adds to the context.
    lengths: dict[str, LengthSummary]
    rounds: LengthSummary | None = None  # turns of a task; None: there are no tasks
    tool_ms: LengthSummary | None = None  # milliseconds of a tool


def describe(arrivals: Sequence[Arrival]) -> Description:
    """Describe requests, sorted by time; :raises ValueError: if there are none."""
    if not arrivals:
        raise ValueError("no requests to describe")
    times = [arrival.at_s - arrivals[0].at_s for arrival in arrivals]
    gaps = [b - a for a, b in pairwise(times)]
    span_s = times[-1]
    rounds = [of for arrival in arrivals for of in arrival.rounds]
    drawn = [of.lengths for of in rounds] or [arrival.lengths for arrival in arrivals]
    lengths = {
        "prompt": _length_summary([each.prompt for each in drawn]),
        "reasoning": _length_summary([each.reasoning for each in drawn]),
        "answer": _length_summary([each.answer for each in drawn]),
        "output": _length_summary([each.output for each in drawn]),
    }
    if rounds:
        lengths["call"] = _length_summary([each.call for each in drawn if each.call])
        lengths["context"] = _length_summary([arrival.longest for arrival in arrivals])
    counts = [len(arrival.rounds) for arrival in arrivals]
    tools = [round(1000 * of.tool_s) for of in rounds if of.lengths.call]
    return Description(
        requests=len(arrivals),
        span_s=span_s,
        clients=len({arrival.client for arrival in arrivals} - {None}),
        rate=len(gaps) / span_s if span_s > 0 else None,
        gap_cv=statistics.pstdev(gaps) / statistics.fmean(gaps) if span_s > 0 else None,
        dispersion={width_s: _dispersion(times, width_s) for width_s in _COUNTED_S},
        lengths=lengths,
        rounds=_length_summary(counts) if rounds else None,
        tool_ms=_length_summary(tools) if tools else None,
    )


def _dispersion(times: Sequence[float], width_s: float) -> float | None:
    """Variance over mean of counts in whole intervals; None if there are fewer than two."""
    intervals = int(times[-1] / width_s)
    if intervals < 2:
        return None
    # Only intervals that are not empty: a sparse workload has too many others to store.
    counts = Counter(int(time_s / width_s) for time_s in times)
    del counts[intervals]
    mean = counts.total() / intervals
    return sum(count * count for count in counts.values()) / intervals / mean - mean


def _length_summary(tokens: list[int]) -> LengthSummary:
    tokens = sorted(tokens)
    if len(tokens) == 1:
        at = dict.fromkeys(SHARES, float(tokens[0]))
    else:
        last = len(tokens) - 1
        law = Quantiles(tuple(index / last for index in range(len(tokens))), tuple(tokens))
        at = {share: law.at(share) for share in SHARES}
    return LengthSummary(statistics.fmean(tokens), tokens[0], tuple(at.values()), tokens[-1])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the description; :return: the exit status."""
    args = _parser().parse_args(argv)
    try:
        described = _described(args)
    except BenchmarkError as error:
        return give_up(REFUSED, error, "workload")
    except KeyboardInterrupt:
        return give_up(INTERRUPTED, "interrupted", "workload")
    _print(*described)
    return OK


def _described(args: argparse.Namespace) -> tuple[Workload, Description]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(f"reading {args.source}")

        def read(lines: int) -> None:
            progress.update(task, description=f"reading {args.source}: {lines} requests")

        workload = workload_of(
            args.source,
            format=args.format,
            split=args.split,
            seed=args.seed,
            limit=args.count,
            progress=read,
        )
        if args.between is not None:
            workload = _part(workload, *args.between)
        rate = args.rate
        if rate is None and workload.rate is None:
            rate = None if workload.finite else 1.0
        arrivals = workload.arrivals(rate, args.seed, burstiness=args.burstiness)
        count = args.count or (None if workload.finite else COUNT)
        drawn: list[Arrival] = []
        for arrival in islice(arrivals, count):
            drawn.append(arrival)
            if len(drawn) % _PROGRESS_EVERY == 0:
                progress.update(task, description=f"{args.source}: {len(drawn)} requests")
        return workload, describe(drawn)


def _part(workload: Workload, start_s: float, end_s: float) -> Workload:
    if workload.clients is None:
        raise WorkloadError(f"--between: {workload.name} has no clients with windows of time")
    try:
        part = workload.clients.between(start_s, end_s)
    except ValueError as error:
        raise WorkloadError(f"--between: {error}") from error
    return of_clients(workload.name, part, f"{workload.description}, {start_s:g}-{end_s:g} s")


def _print(workload: Workload, of_all: Description) -> None:
    console = wide_console(columns=100)
    console.print(f"{workload.name}: {workload.description}", highlight=False, markup=False)
    what = "requests" if of_all.rounds is None else "tasks"
    facts = [f"{of_all.requests} {what} over {of_all.span_s:.1f} s"]
    if of_all.rate is not None:
        facts.append(f"{of_all.rate:.4g} per second")
    if of_all.gap_cv is not None:
        facts.append(f"CV of gaps {of_all.gap_cv:.2f}")
    for width_s, dispersion in of_all.dispersion.items():
        if dispersion is not None:
            facts.append(f"dispersion of counts in {width_s:g} s {dispersion:.2f}")
    if of_all.clients:
        facts.append(f"{of_all.clients} clients")
    console.print(", ".join(facts), highlight=False, markup=False)
    table = Table(box=box.SIMPLE)
    headings = ("tokens", "mean", "least", *(f"p{share * 100:g}" for share in SHARES), "most")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "tokens" else "right")
    rows = dict(of_all.lengths)
    if of_all.rounds is not None:
        rows["rounds of a task"] = of_all.rounds
    if of_all.tool_ms is not None:
        rows["tool, ms"] = of_all.tool_ms
    for name, of in rows.items():
        numbers = (of.mean, of.least, *of.quantiles, of.most)
        table.add_row(name, *(f"{number:.0f}" for number in numbers))
    console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.workloads", description="Rates, bursts and lengths of a workload."
    )
    add = parser.add_argument
    add(
        "source",
        metavar="NAME|FILE",
        help=f"{', '.join(NAMES)}; or a trace ({', '.join(FORMATS)}), a table of clients, or a "
        "folder of ServeGen",
    )
    add(
        "--rate",
        type=_reads(_positive),
        metavar="RATE",
        help="arrivals per second; inf: all at once (default: the workload's own rate, or 1)",
    )
    add("--seed", type=int, default=0, help="seed of all random numbers (default: %(default)s)")
    add(
        "--burstiness",
        type=_reads(_positive),
        default=1.0,
        help="shape of gamma-distributed gaps; 1: Poisson arrivals (default: %(default)s)",
    )
    add(
        "--count",
        type=_reads(_count),
        metavar="N",
        help=f"requests to read or draw (default: a whole trace, or {COUNT})",
    )
    add("--format", default="auto", help=f"auto, {', '.join(FORMATS)} (default: %(default)s)")
    add(
        "--split",
        help="share of reasoning in outputs, for a trace without it: none, servegen-r1, 4:1",
    )
    add(
        "--between",
        type=_reads(_range),
        metavar="START-END",
        help="only these seconds of the clients' time",
    )
    return parser


def _reads(read: Callable[[str], T]) -> Callable[[str], T]:
    """For argparse: the message of a ValueError becomes the error of the flag."""

    def checked(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


def _positive(text: str) -> float:
    value = _number(text)
    if not value > 0:
        raise ValueError(f"{text!r} is not above 0")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number above 0")
    return int(text)


def _range(text: str) -> tuple[float, float]:
    start, _, end = text.partition("-")
    bounds = _number(start), _number(end)
    if not all(map(math.isfinite, bounds)):
        raise ValueError(f"{text!r} is not START-END, in seconds")
    return bounds


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ValueError(f"{text!r} is not a number")
    return value
