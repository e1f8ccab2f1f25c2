"""The load generator on the terminal: a progress line while it runs, a table after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from rich import box, progress
from rich.console import Console
from rich.table import Table

from bench.load.measure import AGENT_METRICS, LATE_S, METRICS
from bench.load.options import Options
from bench.load.record import Outcome
from bench.reporting.statistics import SLO_QOE, percentile_key

LABELS: Final[Mapping[str, str]] = {
    "ttft": "TTFT (ms)",
    "ttfat": "TTFAT (ms)",
    "tpot": "TPOT (ms)",
    "itl": "ITL (ms)",
    "e2el": "E2E (ms)",
    "qoe": "QoE",
}
# Of tasks: label, factor and digits.
AGENT_LABELS: Final[Mapping[str, tuple[str, float, int]]] = {
    "task": ("end to end (s)", 1.0, 2),
    "to-answer": ("to the answer (s)", 1.0, 2),
    "model": ("in the model (s)", 1.0, 2),
    "tools": ("in tools (s)", 1.0, 2),
    "call": ("to the whole call (ms)", 1000.0, 2),
    "turns": ("turns", 1.0, 2),
}
_ERRORS_SHOWN = 10
BUSY_SHARE: Final = 0.7  # of a core; a late generator that used less was waiting for one


class Progress:
    """Counts of requests on one line of a terminal; prints nothing elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        self._counts: Counter[str] = Counter()
        self._total = total
        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.description}"),
            progress.TimeElapsedColumn(),
            console=console,
            transient=True,
            refresh_per_second=4,  # drawing takes time from the event loop
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Show what happens before the first request."""
        self._bar.update(self._task, description=text)

    def dropped(self, count: int) -> None:
        """Note that ``count`` requests will not be sent."""
        self._total -= count
        self._bar.update(self._task, total=self._total)

    def began(self) -> None:
        """Count a request as sent."""
        self._counts["in flight"] += 1
        self._show(advance=0)

    def ended(self, outcome: Outcome) -> None:
        """Count a request as ended."""
        self._counts["in flight"] -= 1
        self._counts[outcome] += 1
        self._show(advance=1)

    def _show(self, advance: int) -> None:
        names = ("in flight", "incomplete", "failed")
        text = ", ".join(f"{self._counts[name]} {name}" for name in names if self._counts[name])
        self._bar.update(self._task, advance=advance, description=text)


def print_report(result: Mapping[str, Any], options: Options, console: Console) -> None:
    """Print the results of `bench.load.measure.run_result`."""
    say = console.out  # plain text: no wrapping, no markup, no colours
    counts = (f"{result[n]} {n}" for n in ("completed", "failed", "incomplete", "interrupted"))
    say(f"requests: {', '.join(counts)}")
    say(
        f"{result['duration_s']:.2f} s; {result['input_tokens']} tokens in, "
        f"{result['output_tokens']} out; {_number(result['throughput_tok_s'])} tokens/s, "
        f"{_number(result['throughput_req_s'])} requests/s"
    )
    if options.goodput:
        bounds = " ".join(f"{name}:{bound:g}" for name, bound in options.goodput.items())
        say(f"goodput ({bounds}): {_number(result['goodput_req_s'])} requests/s")
    if result["accuracy"] is not None:
        say(f"accuracy: {result['accuracy']:.1%} of the completed problems answered correctly")
    if any(name in METRICS for name in options.percentile_metrics):
        console.print(_table(result, options))
    if result.get("agents"):
        say(agents_line(result["agents"]))
        if any(name in AGENT_METRICS for name in options.percentile_metrics):
            console.print(_tasks(result["agents"], options))
    if result["by_turn"]:
        console.print(_turns(result["by_turn"]))
    if result.get("turns_not_sent"):
        say(f"turns not sent, because an earlier turn failed: {result['turns_not_sent']}")
    _say_comparison(result, say)
    for reason, count in result["incomplete_reasons"].items():
        say(f"incomplete ({count}): {reason}")
    for error, count in list(result["errors"].items())[:_ERRORS_SHOWN]:
        say(f"failed ({count}): {error}")
    if len(result["errors"]) > _ERRORS_SHOWN:
        say(f"and {len(result['errors']) - _ERRORS_SHOWN} other reasons")


def _table(result: Mapping[str, Any], options: Options) -> Table:
    keys = ("mean", *map(percentile_key, options.metric_percentiles))
    table = _empty_table("", keys)
    for name in options.percentile_metrics:
        if name not in METRICS:
            continue
        table.add_row(LABELS[name], *_cells(result[METRICS[name]], keys, name))
        if name == "tpot":
            table.add_row("  raw, of the engine", *_cells(result["tpot_raw_s"], keys, name))
        elif name == "qoe":
            table.add_row("  of the server", *_cells(result["server_qoe"], keys, name))
    return table


def agents_line(agents: Mapping[str, Any]) -> str:
    """How the tasks of a run ended, and what their prompts had in common."""
    ends = ("answered", "answered_early", "failed", "incomplete", "too_many_turns", "interrupted")
    counts = ", ".join(
        f"{agents[name]} {name.replace('_', ' ')}"
        for name in ends
        if agents[name] or name == "answered"
    )
    line = f"tasks: {counts}; {agents['calls']} calls of tools"
    if agents["cached_share"] is not None:
        line += f"; {agents['cached_share']:.1%} of their input was in the KV cache"
    return line


def _tasks(agents: Mapping[str, Any], options: Options) -> Table:
    keys = ("mean", *map(percentile_key, options.metric_percentiles))
    table = _empty_table("tasks", keys)
    for name in options.percentile_metrics:
        if name in AGENT_METRICS:
            label, factor, digits = AGENT_LABELS[name]
            summary = agents[AGENT_METRICS[name]]
            cells = (_number(summary[key], scale=factor, digits=digits) for key in keys)
            table.add_row(label, *cells)
    return table


def _empty_table(title: str, keys: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(title)
    for key in keys:
        table.add_column(key, justify="right")
    return table


def _turns(by_turn: list[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    calls = any(turn["call_s"]["mean"] is not None for turn in by_turn)
    for name in ("turn", "requests", "tokens in", "TTFT p50 (ms)", "p99", "TPOT p50 (ms)", "QoE"):
        table.add_column(name, justify="right")
    if calls:
        table.add_column("call p50 (s)", justify="right")
    for turn in by_turn:
        table.add_row(
            str(turn["turn"] + 1),
            str(turn["requests"]),
            _number(turn["input_tokens"]["mean"], digits=0),
            _number(turn["ttft_s"]["p50"], scale=1000, digits=0),
            _number(turn["ttft_s"]["p99"], scale=1000, digits=0),
            _number(turn["tpot_s"]["p50"], scale=1000, digits=1),
            _number(turn["qoe"]["mean"], digits=4),
            *([_number(turn["call_s"]["p50"])] if calls else []),
        )
    return table


def _cells(summary: Mapping[str, float | None], keys: tuple[str, ...], name: str) -> list[str]:
    if name == "qoe":
        return [_number(summary[key], digits=4) for key in keys]
    return [_number(summary[key], scale=1000) for key in keys]


def _number(value: float | None, *, scale: float = 1.0, digits: int = 2) -> str:
    return "-" if value is None else f"{value * scale:.{digits}f}"


def _say_comparison(result: Mapping[str, Any], say: Any) -> None:
    difference = result["qoe_client_server_max_diff"]
    if difference is not None:
        say(f"QoE measured here and by the server differs by at most {difference:.4f}")
    say(f"QoE below {SLO_QOE}: {result['slo_violations']} requests")
    for line in generator_lines(result):
        say(line)


def generator_lines(result: Mapping[str, Any]) -> list[str]:
    """How late the generator itself was, and whether that distorts the results."""
    late_s, lag_s = result["lateness_s"]["p99"], result["loop_lag_s"]["p99"]
    share = result["generator"]["cpu_share"]
    lines = [
        f"this generator: sends late by {_number(late_s, scale=1000)} ms, event loop late by "
        f"{_number(lag_s, scale=1000)} ms (p99)"
        + (f", {share:.0%} of a core" if share is not None else "")
    ]
    if result["generator"]["kept_up"] is False:
        busy = share is not None and share < BUSY_SHARE
        why = (
            "other work on this machine keeps it waiting: reserve a core for it"
            if busy
            else "offer less load, or share sockets (--connections)"
        )
        lines.append(
            "warning: this generator cannot keep up: it is late by more than "
            f"{LATE_S * 1000:g} ms, and the results contain its own delay; {why}"
        )
    return lines
