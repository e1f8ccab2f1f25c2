"""Traces of requests in their published formats, and their replay.

    azure      Azure LLM inference traces (CSV: TIMESTAMP, ContextTokens, GeneratedTokens)
    burstgpt   BurstGPT (CSV: Timestamp, Request tokens, Response tokens, ...)
    mooncake   Mooncake (JSON lines: timestamp in ms, input_length, output_length, ...)
    plain      ours (CSV or JSON lines: t_s, prompt_tokens, and either reasoning_tokens and
               answer_tokens, or output_tokens; client if known)

Decides how lines are interpreted, what is an error, and the order of requests. It must not know
the use of the requests. docs/reference/workloads.md lists the rules.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path

from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths, divided
from bench.workloads.reasoning_split import CHOICES, Split, split_named
from bench.workloads.table_reader import Row, rows
from bench.workloads.table_reader import TraceError as TraceError

PROGRESS_EVERY = 10_000  # lines

_MOST_S = 1e10  # 300 years; a larger number is in another unit
_LEAST_SPAN_S = 1e-9  # no format is finer; far below this, a rate would overflow
_NANOSECONDS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Azure's trace of 2023 has seven decimals and no zone; that of 2024 has six or none, and a zone.
_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?\s*(Z|[+-]\d\d:?\d\d)?"
)


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests of a file."""

    arrivals: tuple[Arrival, ...]  # by time, the first at 0
    format: str
    split: str | None  # that was used; None if the file has reasoning lengths
    unanswered: int  # requests without output, which are omitted


def read_trace(
    path: Path, format: str = "auto", *, split: str | None = None, seed: int | str = 0
) -> list[Arrival]:
    """The requests of a file by time, the first at 0; requests of one time keep the file's order.

    Requests without output are omitted; `load_trace` counts them.

    :param format: one of `FORMATS`, or auto: by the columns.
    :param split: of outputs into reasoning and answer (`bench.workloads.reasoning_split`).
        Required if the file has no reasoning lengths; otherwise it is not used.
    :param seed: of the split.
    :raises TraceError: if the file cannot be read; names file, line and column.
    :raises SplitError: if the split does not exist.
    """
    return list(load_trace(path, format, split=split, seed=seed).arrivals)


def load_trace(
    path: Path,
    format: str = "auto",
    *,
    split: str | None = None,
    seed: int | str = 0,
    limit: int | None = None,
    progress: Callable[[int], None] = lambda lines: None,
) -> Trace:
    """As `read_trace`, with facts about the file.

    :param limit: read only that many requests from the top of the file.
    :param progress: called with the number of requests read, after every `PROGRESS_EVERY`.
    """
    chosen = None if split is None else split_named(split)
    lines = rows(path)
    first = next(lines, None)
    if first is None:
        raise TraceError("holds no request below its header", path)
    reader = _format(first, format)
    needed = chosen if _needs_split(first, reader, chosen) else None
    rng = random.Random(f"{seed}/split")
    timed: list[tuple[float, Arrival]] = []
    count = 0
    for count, row in enumerate(islice(chain([first], lines), limit), 1):
        at = reader.time(row)  # first, because every line must be valid, with output or without
        lengths = _lengths(row, reader, needed, rng)
        if lengths is not None:
            timed.append((at, Arrival(0.0, lengths, _client(row, reader))))
        if count % PROGRESS_EVERY == 0:
            progress(count)
    if not timed:
        raise TraceError(f"none of its requests ({count}) has a token of output", path)
    return Trace(
        arrivals=tuple(_from_zero(timed, reader.per_second)),
        format=reader.name,
        split=split if needed else None,
        unanswered=count - len(timed),
    )


def replay(
    trace: Sequence[Arrival], *, rate: float | None = None, seed: int | str | None = None
) -> Iterator[Arrival]:
    """The requests of a trace once, in order, faster or slower if a rate is given.

    All times are scaled by the same factor: bursts and lulls stay, their durations change.

    :param trace: by time from 0, as `read_trace` returns it.
    :param rate: mean arrivals per second, inf for all at once; None: the trace's own.
    :param seed: begin at a request drawn from it, and continue from the top after the last one. So
        seeds give different parts of one trace. None and 0 begin at the first request.
    :raises ValueError: if the rate is not above 0, or the trace has no rate to scale; raised by
        the call, not by the iterator.
    """
    pace = 1.0
    if rate is not None:
        if not rate > 0:
            raise ValueError(f"rate {rate} must be above 0")
        recorded_rate = mean_rate(trace)
        if recorded_rate is None and len(trace) > 1 and not math.isinf(rate):
            raise ValueError("all requests of the trace come at once: there is no rate to scale")
        pace = 0.0 if recorded_rate is None else recorded_rate / rate
    begin = 0
    if seed not in (None, 0, "0") and trace:
        begin = random.Random(f"{seed}/replay").randrange(len(trace))
    return _turned(trace, begin, pace)


def mean_rate(trace: Sequence[Arrival]) -> float | None:
    """Arrivals per second; None if they span almost no time."""
    span_s = trace[-1].at_s if trace else 0.0
    return (len(trace) - 1) / span_s if span_s > _LEAST_SPAN_S else None


def _turned(trace: Sequence[Arrival], begin: int, pace: float) -> Iterator[Arrival]:
    if not trace:
        return
    first_s, last_s = trace[begin].at_s, trace[-1].at_s
    # The trace has no gap between its last request and its first: use the mean gap.
    lap_s = last_s + last_s / max(1, len(trace) - 1)
    for offset_s, part in ((0.0, trace[begin:]), (lap_s, trace[:begin])):
        for arrival in part:
            yield replace(arrival, at_s=(arrival.at_s - first_s + offset_s) * pace)


@dataclass(frozen=True, slots=True)
class _Format:
    """How to read a line."""

    name: str
    marks: frozenset[str]  # required columns, which identify the format
    time: Callable[[Row], float]
    per_second: int  # units of time
    prompt: str
    output: str
    client: str


def _date_ns(row: Row) -> int:
    """Nanoseconds since 1970; an integer, because a float cannot hold date and seven decimals."""
    text = row.text("TIMESTAMP")
    match = _DATE.fullmatch(text)
    if match is None:
        raise row.error(f"{text!r} is not a time such as 2023-11-16 18:15:46.6805900", "TIMESTAMP")
    *numbers, fraction, zone = match.groups()
    try:
        year, month, day, hour, minute, second = map(int, numbers)
        date = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise row.error(f"{text!r}: {error}", "TIMESTAMP") from error
    seconds = (date - _EPOCH) // timedelta(seconds=1)
    if zone not in (None, "Z"):
        offset = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds * _NANOSECONDS + int((fraction or "").ljust(9, "0"))


def _number(column: str, per_second: int = 1) -> Callable[[Row], float]:
    return lambda row: row.number(column, 0, _MOST_S * per_second)


_KNOWN = (
    _Format(
        name="azure",
        marks=frozenset(("TIMESTAMP", "ContextTokens", "GeneratedTokens")),
        time=_date_ns,
        per_second=_NANOSECONDS,
        prompt="ContextTokens",
        output="GeneratedTokens",
        client="",
    ),
    _Format(
        name="burstgpt",
        marks=frozenset(("Timestamp", "Request tokens", "Response tokens")),
        time=_number("Timestamp"),
        per_second=1,
        prompt="Request tokens",
        output="Response tokens",
        client="Session ID",  # of later releases: the conversation, the closest to a sender
    ),
    _Format(
        name="mooncake",
        marks=frozenset(("timestamp", "input_length", "output_length")),
        time=_number("timestamp", 1000),
        per_second=1000,
        prompt="input_length",
        output="output_length",
        client="",
    ),
    _Format(
        name="plain",
        marks=frozenset(("t_s", "prompt_tokens")),
        time=_number("t_s"),
        per_second=1,
        prompt="prompt_tokens",
        output="output_tokens",
        client="client",
    ),
)

FORMATS = tuple(known.name for known in _KNOWN)


def _format(first: Row, name: str) -> _Format:
    columns = first.values.keys()
    for known in _KNOWN:
        if name == known.name:
            lacking = sorted(known.marks - columns)
            if lacking:
                raise TraceError(
                    f"is not a trace of format {name}: it lacks {', '.join(lacking)}", first.path
                )
            return known
        if name == "auto" and known.marks <= columns:
            return known
    if name != "auto":
        raise TraceError(
            f"unknown format {name!r}; known are auto, {', '.join(FORMATS)}", first.path
        )
    if "window_start_s" in columns:
        raise TraceError("is a table of clients, not of requests", first.path)
    wanted = "; ".join(f"{known.name}: {', '.join(sorted(known.marks))}" for known in _KNOWN)
    present = ", ".join(columns)
    raise TraceError(f"has the columns of no known format: {present} ({wanted})", first.path)


def _needs_split(first: Row, reader: _Format, chosen: Split | None) -> bool:
    """Whether outputs must be split; :raises TraceError: if so and no split is chosen."""
    if reader.name == "plain" and "reasoning_tokens" in first.values:
        return False
    if chosen is None:
        raise TraceError(f"has no reasoning lengths; choose a split: {CHOICES}", first.path)
    return True


def _lengths(row: Row, reader: _Format, split: Split | None, rng: random.Random) -> Lengths | None:
    """The lengths of a row; None if the request has no output: it failed or was cancelled."""
    prompt = row.tokens(reader.prompt)
    if split is None:
        reasoning = row.tokens("reasoning_tokens")
        output = reasoning + row.tokens("answer_tokens")
        return divided(prompt, output, reasoning) if output else None
    output = row.tokens(reader.output)
    return split(prompt, output, rng) if output else None


def _client(row: Row, reader: _Format) -> str | None:
    value = row.values.get(reader.client)
    return None if value is None else str(value).strip() or None


def _from_zero(timed: list[tuple[float, Arrival]], per_second: int) -> Iterator[Arrival]:
    timed.sort(key=lambda entry: entry[0])  # stable
    first = timed[0][0]
    return (replace(arrival, at_s=(at - first) / per_second) for at, arrival in timed)
