"""Clients as ServeGen publishes them (Xiang et al., NSDI '26), and the DeepSeek-R1 ones we ship.

There are two forms. Both list windows of time in which a client has a rate and a fitted
distribution of gaps:

    a folder    ServeGen's own: chunk-N-trace.csv without a header (start in s, rate per s, CV of
                gaps, Gamma or Weibull, shape, scale; a silent window has no family), and
                chunk-N-dataset.json (by start in s: input_tokens, output_tokens, reason_ratio, each
                the text of a Python dict from value to probability)
    a table     one CSV of client, window_start_s, rate_rps, family, shape, without silent windows

Decides how the files are interpreted. It must not know how arrivals are drawn. Scales are not read:
the rate of a window defines the mean gap. Where both differ, ServeGen follows the rate too.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import msgspec

from bench.workloads.client_mixture import (
    LEAST_SHAPE,
    MOST_SHAPE,
    Client,
    ClientMixture,
    Family,
    Window,
)
from bench.workloads.distributions import TABLES, Probabilities, quantiles_of
from bench.workloads.lengths import LengthSource, SharedLengths
from bench.workloads.table_reader import MOST_TOKENS, Row, TraceError, rows

WINDOW_S = 600.0  # of a table with only one window

_MOST_RATE = 1e6
_TRACE_COLUMNS = ("window_start_s", "rate_rps", "iat_cv", "family", "shape", "scale")
_FIELDS = ("input_tokens", "output_tokens", "reason_ratio")

# From a client's name and the start of a window.
_LengthsOf = Callable[[str, float], LengthSource]


@functools.cache
def deepseek_r1() -> ClientMixture:
    """DeepSeek-R1's clients in the busiest 20 minutes of a day (tables/README.md)."""
    path = TABLES / "servegen_r1_client_lengths.csv"
    by_client: dict[str, list[Row]] = defaultdict(list)
    for row in rows(path):
        by_client[row.text("client")].append(row)
    columns = ("prompt_tokens", "output_tokens", "reason_ratio")
    lengths = {
        client: SharedLengths(*quantiles_of(table, path, *columns))
        for client, table in by_client.items()
    }
    return _table(TABLES / "servegen_r1_clients.csv", lambda client, _: lengths[client])


def read_clients(path: Path, lengths: LengthSource | None = None) -> ClientMixture:
    """Clients of a folder or a table.

    :param lengths: of all requests of a table, which has no lengths. A folder has its own.
    :raises TraceError: if they cannot be read; names file, line and column.
    """
    if path.is_dir():
        return _folder(path)
    if lengths is None:
        if is_table(path):
            raise TraceError("is a table of clients, which has no lengths", path)
        raise TraceError("is neither a folder nor a table of clients", path)
    return _table(path, lambda _, __: lengths)


def is_table(path: Path) -> bool:
    """Whether a file's columns are those of a table of clients.

    :raises TraceError: if it cannot be read.
    """
    first = next(rows(path), None)
    return first is not None and "window_start_s" in first.values


def _table(path: Path, lengths_of: _LengthsOf) -> ClientMixture:
    windows: dict[str, dict[float, Window]] = defaultdict(dict)
    for row in rows(path):
        client = row.text("client")
        start_s = row.number("window_start_s")
        if start_s in windows[client]:
            raise row.error(f"client {client} has this window twice", "window_start_s")
        windows[client][start_s] = _window(row, lengths_of(client, start_s))
    starts = sorted({start_s for by_start in windows.values() for start_s in by_start})
    if not starts:
        raise TraceError("holds no client below its header", path)
    width_s = min((b - a for a, b in pairwise(starts)), default=WINDOW_S)
    clients = (
        Client(name, _filled(by_start, starts[0], starts[-1] + width_s, width_s))
        for name, by_start in windows.items()
    )
    try:
        return ClientMixture(tuple(clients), starts[0], starts[-1] + width_s)
    except ValueError as error:
        raise TraceError(str(error), path) from error


def _filled(
    by_start: Mapping[float, Window], start_s: float, end_s: float, width_s: float
) -> tuple[Window, ...]:
    """Windows by start, with silent ones added in the gaps, which a table leaves out."""
    some = next(iter(by_start.values()))
    windows: list[Window] = []
    until_s = start_s
    for window_start_s in [*sorted(by_start), end_s]:
        if window_start_s > until_s:
            windows.append(Window(until_s, 0.0, some.family, some.shape, some.lengths))
        if window_start_s < end_s:
            windows.append(by_start[window_start_s])
            until_s = window_start_s + width_s
    return tuple(windows)


def _window(row: Row, lengths: LengthSource) -> Window:
    name = row.text("family")
    family: Family
    if name == "Gamma":
        family = "Gamma"
    elif name == "Weibull":
        family = "Weibull"
    else:
        raise row.error(f"{name!r} is neither Gamma nor Weibull", "family")
    return Window(
        start_s=row.number("window_start_s"),
        rate=row.number("rate_rps", 0, _MOST_RATE),
        family=family,
        shape=row.number("shape", LEAST_SHAPE, MOST_SHAPE),
        lengths=lengths,
    )


def _folder(folder: Path) -> ClientMixture:
    traces = sorted(folder.glob("chunk-*-trace.csv"), key=lambda path: _chunk(path.name))
    if not traces:
        raise TraceError("holds no chunk-*-trace.csv", folder)
    read = [(path, list(rows(path, _TRACE_COLUMNS))) for path in traces]
    starts = [row.number("window_start_s") for row in read[0][1]]
    width_s = min((b - a for a, b in pairwise(starts)), default=WINDOW_S)
    clients = []
    for path, table in read:
        if [row.number("window_start_s") for row in table] != starts:
            raise TraceError(f"has other windows than {traces[0].name}", path)
        name = str(_chunk(path.name))
        if any(row.number("rate_rps") > 0 for row in table):
            dataset = _dataset(path.with_name(f"chunk-{name}-dataset.json"))
            windows = (_chunk_window(row, dataset) for row in table)
            clients.append(Client(name, tuple(windows)))
    try:
        return ClientMixture(tuple(clients), starts[0], starts[-1] + width_s)
    except ValueError as error:
        raise TraceError(str(error), folder) from error


def _chunk(name: str) -> int:
    match = re.match(r"chunk-(\d+)-", name)
    return int(match[1]) if match else -1


def _chunk_window(row: Row, dataset: Mapping[float, LengthSource]) -> Window:
    start_s = row.number("window_start_s")
    # As in ServeGen: lengths of the last span that has begun, or else of the first span.
    begun = [span_s for span_s in dataset if span_s <= start_s]
    lengths = dataset[max(begun) if begun else min(dataset)]
    if row.number("rate_rps") > 0:
        return _window(row, lengths)
    return Window(start_s, 0.0, "Gamma", 1.0, lengths)


def _dataset(path: Path) -> dict[float, LengthSource]:
    """Lengths by start in seconds; spans without requests are omitted."""
    try:
        spans = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, str]])
    except OSError as error:
        raise TraceError(error.strerror or str(error), path) from error
    except msgspec.DecodeError as error:
        raise TraceError(str(error), path) from error
    lengths: dict[float, LengthSource] = {}
    for start, fields in spans.items():
        missing = [field for field in _FIELDS if field not in fields]
        if missing:
            raise TraceError(f"span {start} has no {missing[0]}", path)
        try:
            laws = [_law(fields[field]) for field in _FIELDS]
            if all(laws):
                lengths[float(start)] = SharedLengths(*map(Probabilities.of, laws))
        except (SyntaxError, TypeError, ValueError) as error:
            raise TraceError(f"span {start}: {error}", path) from error
    if not lengths:
        raise TraceError("has no lengths", path)
    return lengths


def _law(text: str) -> dict[float, float]:
    """Probabilities by value; :raises ValueError: if the text is not a dict of numbers."""
    law = ast.literal_eval(text)
    if not isinstance(law, dict):
        raise ValueError("is not a dict from value to probability")
    probabilities = {float(value): float(probability) for value, probability in law.items()}
    if not all(0 <= value <= MOST_TOKENS for value in probabilities):
        raise ValueError("has a value that is not a number of tokens")
    return probabilities
