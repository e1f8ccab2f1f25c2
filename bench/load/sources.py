"""Lengths and arrivals of ``--workload`` and ``--trace``.

Workloads and traces themselves are `bench.workloads.named` and `bench.workloads.traces`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from bench.load.options import NUM_PROMPTS, REQUEST_RATE, OptionError, Options
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths
from bench.workloads.named import Workload, named, of_trace
from bench.workloads.traces import load_trace


def source_of(options: Options) -> Workload | None:
    """The workload of ``--workload`` or ``--trace``; None if neither is given.

    :raises BenchmarkError: if it cannot be read; names the workload, or file, line and column.
    """
    if options.workload is not None:
        return named(options.workload)
    if options.trace is None:
        return None
    trace = load_trace(
        options.trace, options.trace_format, split=options.trace_split, seed=options.seed
    )
    return of_trace(options.trace.name, trace.arrivals, str(options.trace))


def arrivals_of(workload: Workload, options: Options) -> list[Arrival]:
    """The requests to send, by time.

    :raises BenchmarkError: if the workload cannot have that rate.
    :raises OptionError: if it holds fewer requests than ``--num-prompts``.
    """
    rate = options.request_rate
    if rate is None and workload.rate is None:
        rate = REQUEST_RATE
    endless = workload.arrivals(rate, options.seed, burstiness=options.burstiness)
    count = options.num_prompts
    if count is None and not workload.finite:
        count = NUM_PROMPTS
    arrivals = list(islice(endless, count))
    if count is not None and len(arrivals) < count:
        raise OptionError(f"--num-prompts {count}: {workload.name} holds {len(arrivals)} requests")
    return arrivals


def further_lengths(workload: Workload, options: Options) -> Iterator[Lengths]:
    """Lengths of the later turns of conversations, without end."""
    rate = REQUEST_RATE if workload.rate is None else None  # any rate: times are not used
    return (a.lengths for a in workload.arrivals(rate, f"{options.seed}/turns"))
