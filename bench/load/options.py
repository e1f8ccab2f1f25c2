"""The options of a run of ``pascal load``: its flags, checked against each other.

`bench.load.flags` parses single flags. Nothing here touches the network.
"""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from bench.load.measure import AGENT_METRICS, METRICS
from bench.load.ranges import Length, Pause
from models.tools import KINDS

API_KEY_VARIABLE: Final = "PASCAL_API_KEY"
Api: TypeAlias = Literal["responses-ws", "responses-sse", "chat-sse"]
APIS: Final[tuple[Api, ...]] = get_args(Api)

NUM_PROMPTS: Final = 40
REQUEST_RATE: Final = 2.0  # per second
AGENT: Final = "agent"  # the workload whose requests are tasks


class OptionError(Exception):
    """The flags cannot be used; the message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Checked options of a run."""

    base_url: str  # without a trailing slash or /v1
    model: str | None  # None: the server's first
    api_key: str | None
    api: Api
    extensions: bool | None  # whether the server accepts our fields; None: ask it
    num_prompts: int | None  # requests, conversations or tasks; None: all of a trace, or 40
    num_warmups: int
    request_rate: float | None  # per second; inf: all at once; None: the source's rate
    burstiness: float
    max_concurrency: int | None
    connections: int | None
    seed: int
    prompt_file: Path | None
    families: tuple[str, ...]  # empty: all
    reasoning_len: Length | None
    answer_len: Length | None
    workload: str | None
    trace: Path | None
    trace_format: str
    trace_split: str | None  # for traces that do not tell reasoning from answer
    turns: Length | None  # None: no conversations
    think_time: Pause
    tool_time: Pause
    tpot_s: float
    pacing: bool
    max_tokens: int | None
    percentile_metrics: tuple[str, ...]
    metric_percentiles: tuple[float, ...]
    goodput: dict[str, float]
    save_result: bool
    result_dir: Path
    result_filename: str | None
    csv: Path | None
    html: Path | None
    timeout_s: float
    ready_check_timeout_s: float

    @property
    def ws_url(self) -> str:
        """WebSocket address of the Responses API."""
        return "ws" + self.base_url.removeprefix("http") + "/v1/responses"

    @property
    def forces_lengths(self) -> bool:
        """Whether requests ask for exact lengths, which only pascal-serve can force."""
        sources = (self.reasoning_len, self.workload, self.trace)
        return any(source is not None for source in sources)

    @property
    def agents(self) -> bool:
        """Whether the requests are those of agents."""
        return self.workload == AGENT or _need_tools(self.families)

    def config(self) -> dict[str, Any]:
        """The options as the result records them: all but the API key, ready for JSON."""
        values = asdict(self)
        del values["api_key"]
        for name in ("reasoning_len", "answer_len", "turns", "think_time", "tool_time"):
            drawn: Length | Pause | None = getattr(self, name)
            values[name] = drawn.text if drawn else None
        for name in ("prompt_file", "trace", "result_dir", "csv", "html"):
            values[name] = str(values[name]) if values[name] is not None else None
        for name in ("request_rate", "burstiness"):
            if values[name] is not None and math.isinf(values[name]):
                values[name] = "inf"  # JSON has no infinity
        return values


def options_from(args: argparse.Namespace) -> Options:
    """Check the flags; :raises OptionError: if they contradict each other."""
    _check_together(args)
    sourced = args.workload is not None or args.trace is not None
    return Options(
        base_url=args.base_url,
        model=args.model,
        api_key=args.api_key or os.environ.get(API_KEY_VARIABLE) or None,
        api=cast(Api, args.api),
        extensions=args.extensions,
        num_prompts=args.num_prompts or (None if sourced else NUM_PROMPTS),
        num_warmups=args.num_warmups,
        request_rate=args.request_rate or (None if sourced else REQUEST_RATE),
        burstiness=args.burstiness or 1.0,
        max_concurrency=args.max_concurrency,
        connections=args.connections,
        seed=args.seed,
        prompt_file=args.prompt_file,
        families=args.families,
        reasoning_len=args.reasoning_len,
        answer_len=args.answer_len,
        workload=args.workload,
        trace=args.trace,
        trace_format=args.trace_format,
        trace_split=args.trace_split,
        turns=args.turns,
        think_time=args.think_time or Pause.parse("0s"),
        tool_time=args.tool_time or Pause.parse("0s"),
        tpot_s=args.tpot_s,
        pacing=args.pacing,
        max_tokens=args.max_tokens,
        percentile_metrics=args.percentile_metrics or _metrics(args),
        metric_percentiles=args.metric_percentiles,
        goodput=dict(args.goodput),
        save_result=args.save_result,
        result_dir=args.result_dir,
        result_filename=args.result_filename,
        csv=args.csv,
        html=args.html,
        timeout_s=args.timeout_s,
        ready_check_timeout_s=args.ready_check_timeout_s,
    )


def _need_tools(families: tuple[str, ...]) -> bool:
    """Whether problems of these families come with tools."""
    return any(family in KINDS for family in families)


def _is_of_agents(args: argparse.Namespace) -> bool:
    return args.workload == AGENT or _need_tools(args.families)


def _metrics(args: argparse.Namespace) -> tuple[str, ...]:
    """The rows of the table, if no flag names them."""
    return (*METRICS, *AGENT_METRICS) if _is_of_agents(args) else tuple(METRICS)


def _check_together(args: argparse.Namespace) -> None:
    """Raise for the first flags that contradict each other or have no effect."""
    source = "--workload" if args.workload is not None else "--trace"
    sourced = args.workload is not None or args.trace is not None
    own_lengths = args.reasoning_len is not None or args.answer_len is not None
    agents = _is_of_agents(args)
    tools = [family for family in args.families if family in KINDS]
    others = [family for family in args.families if family not in KINDS]
    of_agents = f"--workload {AGENT}" if args.workload == AGENT else f"--families {','.join(tools)}"
    for_agents = [name for name in args.percentile_metrics or () if name in AGENT_METRICS]
    wrong = (
        (
            (args.reasoning_len is None) != (args.answer_len is None),
            "--reasoning-len and --answer-len go together",
        ),
        (
            args.prompt_file is not None and bool(args.families),
            "--families has no effect on --prompt-file: give one of them",
        ),
        (
            args.workload is not None and args.trace is not None,
            "--workload and --trace both define the arrivals: give one of them",
        ),
        (
            sourced and own_lengths,
            f"{source} defines the lengths: leave --reasoning-len and --answer-len out",
        ),
        (
            sourced and (args.prompt_file is not None or bool(args.families)),
            f"{source} defines the length of prompts: leave --prompt-file and --families out",
        ),
        (
            args.trace is not None and args.burstiness is not None,
            "--burstiness has no effect on --trace, which defines the arrivals",
        ),
        (
            args.trace_format != "auto" and args.trace is None,
            "--trace-format has no effect without --trace",
        ),
        (
            args.trace_split is not None and args.trace is None,
            "--trace-split has no effect without --trace",
        ),
        (
            args.trace is not None and args.turns is not None,
            "--turns has no effect on --trace, which defines all requests",
        ),
        (
            args.think_time is not None and args.turns is None,
            "--think-time has no effect without --turns",
        ),
        (
            args.connections is not None and args.api != "responses-ws",
            f"--connections shares WebSockets: it has no effect on --api {args.api}",
        ),
        (
            args.extensions is False and (own_lengths or sourced),
            f"{source if sourced else '--reasoning-len'} forces lengths with a field that only "
            "pascal-serve accepts: leave --no-extensions out",
        ),
        (args.timeout_s == 0, "--timeout must be above 0"),
        (
            bool(tools and others),
            f"--families: {', '.join(tools)} need tools and {', '.join(others)} do not: make two "
            "runs, side by side",
        ),
        (
            agents and args.turns is not None,
            f"--turns has no effect on {of_agents}, where the model decides, or the workload",
        ),
        (
            bool(tools) and own_lengths,
            f"{of_agents} is judged by what the model writes: leave --reasoning-len and "
            "--answer-len out",
        ),
        (
            args.tool_time is not None and not tools,
            "--tool-time has no effect without --families that need tools"
            + (f": {of_agents} has times of its own" if agents else ""),
        ),
        (
            bool(for_agents) and not agents,
            f"--percentile-metrics {','.join(for_agents)} has no effect without agents: give "
            f"--workload {AGENT}, or --families that need tools",
        ),
    )
    for is_wrong, message in wrong:
        if is_wrong:
            raise OptionError(message)
