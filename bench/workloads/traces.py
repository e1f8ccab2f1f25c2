"""Traces of requests: the public formats, read as they are published, and replayed.

    azure      Azure LLM inference traces (CSV: TIMESTAMP, ContextTokens, GeneratedTokens)
    burstgpt   BurstGPT (CSV: Timestamp, Request tokens, Response tokens, ...)
    mooncake   Mooncake (JSON lines: timestamp in ms, input_length, output_length, ...)
    plain      ours (CSV or JSON lines: t_s, prompt_tokens, and either reasoning_tokens and
               answer_tokens, or output_tokens; client if known)

Decides what a line means, what is an error, and the order of requests. It must not know what the
requests are used for. docs/workloads.md has the rules.
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

_MOST_S = 1e10  # 300 years: what is above it is in another unit
_LEAST_SPAN_S = 1e-9  # no format is finer; much below, a rate would overflow
_NANOSECONDS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Azure's of 2023 has seven decimals and no zone, that of 2024 six, or none, and a zone.
_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?\s*(Z|[+-]\d\d:?\d\d)?"
)


@dataclass(frozen=True, slots=True)
class Trace:
    """What a file holds."""

    arrivals: tuple[Arrival, ...]  # by time, the first at 0
    format: str
    split: str | None  # that was needed; None: the file says itself what is reasoning
    unanswered: int  # requests without a token of output, which are left out


def read_trace(
    path: Path, format: str = "auto", *, split: str | None = None, seed: int | str = 0
) -> list[Arrival]:
    """The requests of a file by time, the first at 0; those of one time stay in the file's order.

    Requests without a token of output are left out: `load_trace` counts them.

    :param format: one of `FORMATS`, or auto: by the columns.
    :param split: what is reasoning (`bench.workloads.reasoning_split`); must be given where the
    file does not say, and
        is not used where it does.
    :param seed: of the split.
    :raises TraceError: if the file cannot be read; names file, line and column.
    :raises SplitError: if there is no such split.
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
    """As `read_trace`, with what there is to know about the file.

    :param limit: read only the first so many requests of the file.
    :param progress: told how many were read, every `PROGRESS_EVERY`.
    """
    chosen = None if split is None else split_named(split)
    lines = rows(path)
    first = next(lines, None)
    if first is None:
        raise TraceError("holds no request below its header", path)
    reader = _format(first, format)
    needed = chosen if _needs_split(first, reader, chosen) else None
    rng = random.Random(f"{seed}/split")
    found: list[tuple[float, Arrival]] = []
    count = 0
    for count, row in enumerate(islice(chain([first], lines), limit), 1):
        at = reader.time(row)  # before the rest: every line must be right, answered or not
        lengths = _lengths(row, reader, needed, rng)
        if lengths is not None:
            found.append((at, Arrival(0.0, lengths, _client(row, reader))))
        if count % PROGRESS_EVERY == 0:
            progress(count)
    if not found:
        raise TraceError(f"none of its requests ({count}) has a token of output", path)
    return Trace(
        arrivals=tuple(_from_zero(found, reader.per_second)),
        format=reader.name,
        split=split if needed else None,
        unanswered=count - len(found),
    )


def replay(
    trace: Sequence[Arrival], *, rate: float | None = None, seed: int | str | None = None
) -> Iterator[Arrival]:
    """The requests of a trace once, in order, faster or slower if a rate is given.

    Time is scaled as a whole: bursts and lulls stay, their lengths change.

    :param trace: by time from 0, as `read_trace` returns it.
    :param rate: mean arrivals per second, inf for all at once; None: as it was.
    :param seed: begin at a request drawn from it and go on from the top at the end, so that seeds
        show different stretches of one trace; None and 0: begin at the first.
    :raises ValueError: if the rate is not above 0, or the trace has none to scale; at once.
    """
    pace = 1.0
    if rate is not None:
        if not rate > 0:
            raise ValueError(f"rate {rate} must be above 0")
        own = mean_rate(trace)
        if own is None and len(trace) > 1 and not math.isinf(rate):
            raise ValueError("all requests of the trace come at once: there is no rate to scale")
        pace = 0.0 if own is None else own / rate
    begin = 0
    if seed not in (None, 0, "0") and trace:
        begin = random.Random(f"{seed}/replay").randrange(len(trace))
    return _turned(trace, begin, pace)


def mean_rate(trace: Sequence[Arrival]) -> float | None:
    """Arrivals per second; None if they span no time to speak of."""
    span_s = trace[-1].at_s if trace else 0.0
    return (len(trace) - 1) / span_s if span_s > _LEAST_SPAN_S else None


def _turned(trace: Sequence[Arrival], begin: int, pace: float) -> Iterator[Arrival]:
    if not trace:
        return
    first_s, last_s = trace[begin].at_s, trace[-1].at_s
    # Between the last request and the first there is no gap in the trace: let it be the mean one.
    turn_s = last_s + last_s / max(1, len(trace) - 1)
    for offset_s, part in ((0.0, trace[begin:]), (turn_s, trace[:begin])):
        for arrival in part:
            yield replace(arrival, at_s=(arrival.at_s - first_s + offset_s) * pace)


@dataclass(frozen=True, slots=True)
class _Format:
    """How to read a line."""

    name: str
    marks: frozenset[str]  # columns that it must have, and by which it is recognised
    time: Callable[[Row], float]
    per_second: int  # units of time
    prompt: str
    output: str
    client: str


def _date_ns(row: Row) -> int:
    """Since 1970; whole, for a float has no room for the date and seven decimals."""
    text = row.text("TIMESTAMP")
    match = _DATE.fullmatch(text)
    if match is None:
        raise row.error(f"{text!r} is no time such as 2023-11-16 18:15:46.6805900", "TIMESTAMP")
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
        client="Session ID",  # of later releases: the conversation, nearest to who sends
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
                raise TraceError(f"is no {name} trace: it lacks {', '.join(lacking)}", first.path)
            return known
        if name == "auto" and known.marks <= columns:
            return known
    if name != "auto":
        raise TraceError(
            f"unknown format {name!r}; there are auto, {', '.join(FORMATS)}", first.path
        )
    if "window_start_s" in columns:
        raise TraceError("is a table of clients, not of requests", first.path)
    wanted = "; ".join(f"{known.name}: {', '.join(sorted(known.marks))}" for known in _KNOWN)
    found = ", ".join(columns)
    raise TraceError(f"has the columns of no known format: {found} ({wanted})", first.path)


def _needs_split(first: Row, reader: _Format, chosen: Split | None) -> bool:
    """:raises TraceError: if it does and none is chosen."""
    if reader.name == "plain" and "reasoning_tokens" in first.values:
        return False
    if chosen is None:
        raise TraceError(f"does not say what is reasoning; choose a split: {CHOICES}", first.path)
    return True


def _lengths(row: Row, reader: _Format, split: Split | None, rng: random.Random) -> Lengths | None:
    """None: the request has no output, because it failed or nobody waited for it."""
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


def _from_zero(found: list[tuple[float, Arrival]], per_second: int) -> Iterator[Arrival]:
    found.sort(key=lambda timed: timed[0])  # stable
    first = found[0][0]
    return (replace(arrival, at_s=(at - first) / per_second) for at, arrival in found)
