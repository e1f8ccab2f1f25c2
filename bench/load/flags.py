"""The flags of ``pascal load``: their names, their forms and their help.

Names follow ``vllm bench serve``. A value that cannot be parsed is an argparse error that names its
flag. `bench.load.options` checks flags against each other. Nothing here touches the network.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bench.load.measure import AGENT_METRICS, GOODPUT_METRICS, METRICS
from bench.load.options import API_KEY_VARIABLE, APIS
from bench.load.ranges import Length, Pause
from bench.workloads.named import NAMES
from bench.workloads.reasoning_split import CHOICES
from models.tools import KINDS
from workers.checked import seconds

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal load``."""
    parser.usage = "%(prog)s [flags]"  # the full list would bury every error message
    add = parser.add_argument
    add(
        "words",
        nargs="*",
        metavar="compare RESULT.json",
        help="instead of a run: compare the results of earlier runs (--html writes a page)",
    )
    add(
        "--base-url",
        default="http://127.0.0.1:8080",
        type=_reads(_base_url),
        help="the gateway (default %(default)s)",
    )
    add("--model", help="model name (default: the first one that the server lists)")
    add("--api-key", help=f"bearer key (default: ${API_KEY_VARIABLE})")
    add(
        "--api",
        choices=APIS,
        default=APIS[0],
        help="the Responses API over WebSocket (default), the same as server-sent events, or chat "
        "completions, which other servers offer too",
    )
    add(
        "--extensions",
        default=None,
        action=argparse.BooleanOptionalAction,
        help="send fields that only pascal-serve accepts: pacing, forced lengths (default: if the "
        "server's list of models names pascal-serve)",
    )

    _add_load(parser.add_argument_group("load").add_argument)
    _add_requests(parser.add_argument_group("requests").add_argument)
    _add_sources(parser.add_argument_group("workloads and conversations").add_argument)
    _add_report(parser.add_argument_group("report").add_argument)


def _add_load(add: Callable[..., Any]) -> None:
    add(
        "--num-prompts",
        type=_reads(_count),
        metavar="N",
        help="requests to send; with --turns conversations, with agents tasks (default: 40, or the "
        "whole --trace)",
    )
    add(
        "--num-warmups",
        default=0,
        type=_reads(_count_or_none),
        metavar="N",
        help="requests to send at once before the run, not measured (default: %(default)s)",
    )
    add(
        "--request-rate",
        type=_reads(_positive),
        metavar="RATE",
        help="arrivals per second; inf: all at once (default: 2, or the trace's own). A trace is "
        "scaled to this rate",
    )
    add(
        "--burstiness",
        type=_reads(_positive),
        metavar="B",
        help="shape of the gamma-distributed gaps between arrivals: 1 is Poisson, less is "
        "burstier, inf is regular (default: 1)",
    )
    add(
        "--max-concurrency",
        type=_reads(_count),
        metavar="N",
        help="send no request while N are in flight (default: no limit, an open loop)",
    )
    add(
        "--connections",
        type=_reads(_count),
        metavar="N",
        help="share N WebSockets between the requests in flight (default: one socket for each, "
        "reused when it is idle)",
    )
    add(
        "--timeout",
        default="120s",
        type=_reads(seconds),
        metavar="TIME",
        dest="timeout_s",
        help="cancel a request after this time: 120s (default), 500ms, 2m",
    )
    add(
        "--ready-check-timeout",
        default="0s",
        type=_reads(seconds),
        metavar="TIME",
        dest="ready_check_timeout_s",
        help="wait at most this time until the server is ready (default: do not wait)",
    )
    add(
        "--seed",
        default=0,
        type=int,
        metavar="N",
        help="seed of arrivals, problems and lengths (default: %(default)s)",
    )


def _add_sources(add: Callable[..., Any]) -> None:
    add(
        "--workload",
        metavar="NAME",
        help=f"take lengths and arrivals from a workload: {', '.join(NAMES)}. Arrivals of "
        "agent are tasks of many turns, with tools",
    )
    add(
        "--trace",
        type=Path,
        metavar="FILE",
        help="take lengths and arrivals from a trace",
    )
    add(
        "--trace-format",
        default="auto",
        metavar="FORMAT",
        help="azure, burstgpt, mooncake or plain (default: %(default)s, by its columns)",
    )
    add(
        "--trace-split",
        metavar="SPLIT",
        help=f"share of reasoning in outputs, for a trace without it: {CHOICES}",
    )
    add(
        "--turns",
        type=_reads(Length.parse_turns),
        metavar="N",
        help="hold conversations of N, LOW-HIGH or MEAN:SD turns (default: single questions)",
    )
    add(
        "--think-time",
        type=_reads(Pause.parse),
        metavar="TIME",
        help="time from the last token of an answer to the next question: 5s, 2s-10s or 8s:3s "
        "(default: 0s)",
    )
    add(
        "--tool-time",
        type=_reads(Pause.parse),
        metavar="TIME",
        help="how long tools take, in the same forms, for --families that need tools (default: 0s)",
    )


def _add_requests(add: Callable[..., Any]) -> None:
    add(
        "--prompt-file",
        type=Path,
        metavar="FILE",
        help='JSON lines with "prompt" or "messages", or plain text, one prompt per line; a file '
        "that is too short is repeated (default: new problems of the embedded model)",
    )
    add(
        "--families",
        type=_reads(_names),
        default=(),
        metavar="A,B",
        help="draw only problems of these families. With those that need tools, the model gets "
        f"tools, which run here: {', '.join(KINDS)}",
    )
    add(
        "--reasoning-len",
        type=_reads(Length.parse),
        metavar="LEN",
        help="force the reasoning to N tokens, LOW-HIGH (uniform) or MEAN:SD (normal)",
    )
    add(
        "--answer-len",
        type=_reads(Length.parse),
        metavar="LEN",
        help="force the answer in the same forms; give both flags or neither",
    )
    add(
        "--tpot",
        default=0.1,
        type=_reads(_finite),
        metavar="S",
        dest="tpot_s",
        help="pace of the reader in seconds per token, also for the QoE (default: %(default)s)",
    )
    add(
        "--pacing",
        default=True,
        action=argparse.BooleanOptionalAction,
        help="let the server pace the answer (default), or take tokens as they come",
    )
    add(
        "--max-tokens",
        type=_reads(_count),
        metavar="N",
        help="limit of the output tokens of a request, reasoning included",
    )


def _add_report(add: Callable[..., Any]) -> None:
    add(
        "--percentile-metrics",
        type=_reads(_metrics),
        metavar="A,B",
        help=f"rows of the tables (default: {','.join(METRICS)}, and with agents "
        f"{','.join(AGENT_METRICS)})",
    )
    add(
        "--metric-percentiles",
        default=(50.0, 95.0, 99.0),
        type=_reads(_percentiles),
        metavar="P,Q",
        help="percentiles in the table (default: 50,95,99)",
    )
    add(
        "--goodput",
        nargs="+",
        type=_reads(_bound),
        metavar="METRIC:MS",
        default=(),
        help="count requests that meet all bounds: ttft, ttfat, tpot, e2el at most, in "
        "milliseconds, qoe at least; for example ttft:500 tpot:110",
    )
    add("--save-result", action="store_true", help="write the results as JSON")
    add(
        "--result-dir",
        type=Path,
        default=Path("bench-results"),
        metavar="DIR",
        help="folder of the result (default: %(default)s)",
    )
    add("--result-filename", metavar="NAME", help="default: load-RATEqps-MODEL-TIME.json")
    add(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write one row per request, and with agents a second file with one row per task",
    )
    add("--html", type=Path, metavar="FILE", help="write a report with plots as one file")


def _reads(parse: Callable[[str], T]) -> Callable[[str], T]:
    """For argparse: the message of a ValueError becomes the error of the flag."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _base_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"{text!r} is not of the form http://HOST:PORT")
    if url.username is not None or url.query or url.fragment:
        raise ValueError("give only scheme, host, port and path; pass a key with --api-key")
    return text.rstrip("/").removesuffix("/v1")


def _count(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number from 1")
    return int(text)


def _count_or_none(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _positive(text: str) -> float:
    """A number above 0, or ``inf``."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise ValueError(f"{text!r} is not a positive number")
    return value


def _finite(text: str) -> float:
    value = _positive(text)
    if math.isinf(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _metrics(text: str) -> tuple[str, ...]:
    names = _names(text)
    for name in names:
        if name not in METRICS and name not in AGENT_METRICS:
            known = ", ".join((*METRICS, *AGENT_METRICS))
            raise ValueError(f"unknown metric {name!r}; known are {known}")
    return names


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in _names(text))
    except ValueError:
        values = (math.nan,)
    if not values or not all(0 <= value <= 100 for value in values):
        raise ValueError(f"{text!r} is not a list of percentiles such as 50,95,99.9")
    return values


def _bound(text: str) -> tuple[str, float]:
    name, _, value = text.partition(":")
    if name not in GOODPUT_METRICS:
        raise ValueError(f"{text!r} does not begin with one of {', '.join(GOODPUT_METRICS)}")
    return name, _finite(value)
