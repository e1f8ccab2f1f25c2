"""The flags of ``pascal load``, and what they mean.

Names follow ``vllm bench serve``. A flag that cannot be read is an argparse error; flags that do
not fit together raise `OptionError`. Neither touches the network.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from bench.measure import GOODPUT_METRICS, METRICS

API_KEY_VARIABLE = "PASCAL_API_KEY"

T = TypeVar("T")


class OptionError(Exception):
    """The flags cannot be used; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Length:
    """A length in tokens, at least 1: ``80`` exactly, ``50-200`` uniform, ``100:30`` normal."""

    text: str
    kind: Literal["exact", "uniform", "normal"]
    first: float  # the length; the low end; the mean
    second: float = 0.0  # unused; the high end; the standard deviation

    @classmethod
    def parse(cls, text: str) -> Length:
        """:raises ValueError: if it has none of the three forms, or could not be positive."""
        if match := re.fullmatch(r"\d+", text):
            length = cls(text, "exact", int(text))
        elif match := re.fullmatch(r"(\d+)-(\d+)", text):
            length = cls(text, "uniform", int(match[1]), int(match[2]))
            if length.second < length.first:
                raise ValueError(f"{text!r} ends before it begins")
        elif match := re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", text):
            length = cls(text, "normal", float(match[1]), float(match[2]))
        else:
            raise ValueError(f"{text!r} is neither N, nor LOW-HIGH, nor MEAN:SD, in tokens")
        if length.first < 1:
            raise ValueError(f"{text!r} is below one token")
        return length

    def draw(self, rng: random.Random) -> int:
        """One length, at least 1."""
        match self.kind:
            case "exact":
                return int(self.first)
            case "uniform":
                return rng.randint(int(self.first), int(self.second))
            case "normal":
                return max(1, round(rng.gauss(self.first, self.second)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run, checked."""

    base_url: str  # without a trailing slash or /v1
    model: str | None  # None: the server's first
    api_key: str | None
    num_prompts: int
    request_rate: float  # requests per second; inf: all at once
    burstiness: float
    max_concurrency: int | None
    connections: int | None
    seed: int
    prompt_file: Path | None
    families: tuple[str, ...]  # empty: all
    reasoning_len: Length | None
    answer_len: Length | None
    tpot_s: float
    pacing: bool
    max_tokens: int | None
    percentile_metrics: tuple[str, ...]
    metric_percentiles: tuple[float, ...]
    goodput: dict[str, float]
    save_result: bool
    result_dir: Path
    result_filename: str | None
    timeout_s: float
    ready_check_timeout_s: float

    @property
    def ws_url(self) -> str:
        """Where the Responses API listens."""
        return "ws" + self.base_url.removeprefix("http") + "/v1/responses"

    def config(self) -> dict[str, Any]:
        """What the result records: everything but the API key, ready for JSON."""
        values = asdict(self)
        del values["api_key"]
        for name in ("reasoning_len", "answer_len"):
            length: Length | None = getattr(self, name)
            values[name] = length.text if length else None
        for name in ("prompt_file", "result_dir"):
            values[name] = str(values[name]) if values[name] is not None else None
        if math.isinf(self.request_rate):
            values["request_rate"] = "inf"  # JSON has no infinity
        return values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal load``."""
    parser.usage = "%(prog)s [flags]"  # all of them before every error would bury it
    add = parser.add_argument
    add(
        "--base-url",
        default="http://127.0.0.1:8080",
        type=_reads(_base_url),
        help="the gateway (default %(default)s)",
    )
    add("--model", help="model name (default: the first that the server lists)")
    add("--api-key", help=f"bearer key (default: ${API_KEY_VARIABLE})")

    _add_load(parser.add_argument_group("load").add_argument)
    _add_requests(parser.add_argument_group("requests").add_argument)
    _add_report(parser.add_argument_group("report").add_argument)


def _add_load(add: Callable[..., Any]) -> None:
    add(
        "--num-prompts",
        default=40,
        type=_reads(_count),
        metavar="N",
        help="requests to send (default %(default)s)",
    )
    add(
        "--request-rate",
        default=2.0,
        type=_reads(_positive),
        metavar="RATE",
        help="arrivals per second, open loop; inf: all at once (default %(default)s)",
    )
    add(
        "--burstiness",
        default=1.0,
        type=_reads(_positive),
        metavar="B",
        help="shape of the gamma-distributed gaps: 1 is Poisson, less is burstier, inf is regular "
        "(default %(default)s)",
    )
    add(
        "--max-concurrency",
        type=_reads(_count),
        metavar="N",
        help="hold arrivals back while N requests are in flight (default: never, an open loop)",
    )
    add(
        "--connections",
        type=_reads(_count),
        metavar="N",
        help="share N sockets between the requests in flight (default: a socket for each of them, "
        "as readers have, used again when it is idle)",
    )
    add(
        "--timeout",
        default="120s",
        type=_reads(_duration),
        metavar="TIME",
        dest="timeout_s",
        help="give a request up after this (default 120s; also 500ms, 2m)",
    )
    add(
        "--ready-check-timeout",
        default="0s",
        type=_reads(_duration),
        metavar="TIME",
        dest="ready_check_timeout_s",
        help="wait so long for the server to be ready (default: do not wait)",
    )
    add(
        "--seed",
        default=0,
        type=int,
        metavar="N",
        help="of arrivals, problems and lengths (default %(default)s)",
    )


def _add_requests(add: Callable[..., Any]) -> None:
    add(
        "--prompt-file",
        type=Path,
        metavar="FILE",
        help='JSON lines with "prompt" or "messages", or plain text, one prompt a line; used '
        "from the top again when it is too short (default: fresh problems of the model)",
    )
    add(
        "--families",
        type=_reads(_names),
        default=(),
        metavar="A,B",
        help="draw problems of these families only",
    )
    add(
        "--reasoning-len",
        type=_reads(Length.parse),
        metavar="LEN",
        help="force the thinking to N tokens, LOW-HIGH (uniform) or MEAN:SD (normal)",
    )
    add(
        "--answer-len",
        type=_reads(Length.parse),
        metavar="LEN",
        help="force the answer likewise; both or neither",
    )
    add(
        "--tpot",
        default=0.1,
        type=_reads(_finite),
        metavar="S",
        dest="tpot_s",
        help="pace of the reader in seconds per token, also of the QoE (default %(default)s)",
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
        help="most output tokens of a request, thinking included",
    )


def _add_report(add: Callable[..., Any]) -> None:
    add(
        "--percentile-metrics",
        default=tuple(METRICS),
        type=_reads(_metrics),
        metavar="A,B",
        help=f"rows of the table (default {','.join(METRICS)})",
    )
    add(
        "--metric-percentiles",
        default=(50.0, 95.0, 99.0),
        type=_reads(_percentiles),
        metavar="P,Q",
        help="columns of the table (default 50,95,99)",
    )
    add(
        "--goodput",
        nargs="+",
        type=_reads(_bound),
        metavar="METRIC:MS",
        default=(),
        help="count requests that meet all of these: ttft, ttfat, tpot, e2el in milliseconds at "
        "most, qoe at least; such as ttft:500 tpot:110",
    )
    add("--save-result", action="store_true", help="write the figures as JSON")
    add(
        "--result-dir",
        type=Path,
        default=Path("bench-results"),
        metavar="DIR",
        help="where to (default %(default)s)",
    )
    add("--result-filename", metavar="NAME", help="default: load-RATEqps-MODEL-TIME.json")


def options_from(args: argparse.Namespace) -> Options:
    """:raises OptionError: if the flags do not fit together."""
    if (args.reasoning_len is None) != (args.answer_len is None):
        raise OptionError("--reasoning-len and --answer-len go together")
    if args.prompt_file is not None and args.families:
        raise OptionError("--families has no effect on --prompt-file: give one of them")
    if args.timeout_s == 0:
        raise OptionError("--timeout must be above 0")
    return Options(
        base_url=args.base_url,
        model=args.model,
        api_key=args.api_key or os.environ.get(API_KEY_VARIABLE) or None,
        num_prompts=args.num_prompts,
        request_rate=args.request_rate,
        burstiness=args.burstiness,
        max_concurrency=args.max_concurrency,
        connections=args.connections,
        seed=args.seed,
        prompt_file=args.prompt_file,
        families=args.families,
        reasoning_len=args.reasoning_len,
        answer_len=args.answer_len,
        tpot_s=args.tpot_s,
        pacing=args.pacing,
        max_tokens=args.max_tokens,
        percentile_metrics=args.percentile_metrics,
        metric_percentiles=args.metric_percentiles,
        goodput=dict(args.goodput),
        save_result=args.save_result,
        result_dir=args.result_dir,
        result_filename=args.result_filename,
        timeout_s=args.timeout_s,
        ready_check_timeout_s=args.ready_check_timeout_s,
    )


def _reads(parse: Callable[[str], T]) -> Callable[[str], T]:
    """For argparse: a ValueError's own message becomes the error of the flag."""

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
        raise ValueError("give only scheme, host, port and path; a key goes into --api-key")
    return text.rstrip("/").removesuffix("/v1")


def _count(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number from 1")
    return int(text)


def _positive(text: str) -> float:
    """Above 0; ``inf`` too."""
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


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 30s, 500ms or 2m")
    return float(match[1]) * {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600}[match[2]]


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _metrics(text: str) -> tuple[str, ...]:
    names = _names(text)
    for name in names:
        if name not in METRICS:
            raise ValueError(f"unknown metric {name!r}; there are {', '.join(METRICS)}")
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
