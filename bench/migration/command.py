"""``pascal bench migration``: cost and benefit of a move at the phase boundary.

It has two parts. ``--only`` selects one of them:

    engines    two real workers: time to the first token after a move, a stay and a recompute
    loaded     eight modelled H100 instances in virtual time, under every boundary rule
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.reporting.console import (
    FAILED,
    OK,
    REFUSED,
    CaseProgress,
    give_up,
    interrupted,
    wide_console,
)
from bench.reporting.errors import BenchmarkError
from bench.reporting.outputs import prepare_json, write_json
from bench.reporting.vllm_environment import prepare_environment

PARTS = ("engines", "loaded")
_CONTEXTS = (256, 1024, 4096)  # tokens
_REPEATS, _QUICK_REPEATS = 25, 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal bench migration``."""
    add = parser.add_argument
    add("--quick", action="store_true", help="shorter runs (minutes)")
    add("--json", type=Path, metavar="FILE", help="write the results there")
    add("--only", choices=PARTS, action="append", metavar="PART", help=", ".join(PARTS))


def run(args: argparse.Namespace) -> int:
    """Run the parts; :return: the exit status."""
    try:
        results = prepare_json(args.json, keep=bool(args.only))
    except BenchmarkError as error:
        return give_up(REFUSED, error)
    console = wide_console()
    parts: dict[str, Callable[[bool, Console], dict[str, Any]]] = {
        "engines": _engines,
        "loaded": _loaded,
    }
    for part in dict.fromkeys(args.only or PARTS):
        try:
            results |= parts[part](args.quick, console)
        except BenchmarkError as error:
            return give_up(FAILED, f"{part}: {error}")
        except KeyboardInterrupt:
            return interrupted("the results of finished parts are kept")
        write_json(args.json, results)
    return OK


def _engines(quick: bool, console: Console) -> dict[str, Any]:
    from bench.migration import hand_over

    with console.status("two workers"):
        results = hand_over.measure(_CONTEXTS, _QUICK_REPEATS if quick else _REPEATS)
    table = Table(title="Time from the last reasoning token to the first answering token, ms")
    columns = ("tokens", "move", "stay", "recompute", "move/recompute", "transfer", "memcpy", "KiB")
    for column in columns:
        table.add_column(column, justify="right")
    for tokens, result in results.items():
        times = [result[f"{name}_s"] for name in ("move", "stay", "recompute")]
        table.add_row(
            str(tokens),
            *(f"{1e3 * seconds:.1f}" for seconds in times),
            f"{times[0] / times[2]:.2f}",
            f"{1e3 * result['transfer_s']:.1f}",
            f"{1e3 * result['memcpy_s']:.3f}",
            f"{result['kv_bytes'] / 1024:.0f}",
        )
    console.print(table)
    return {"by_context": results}


def _loaded(quick: bool, console: Console) -> dict[str, Any]:
    prepare_environment()
    from bench.migration import under_load

    with CaseProgress(console, "virtual time") as progress:

        def done(run: under_load.BoundaryRun, count: int, total: int) -> None:
            case = f"{run.run.policy}, {run.boundary}, seed {run.run.seed}"
            progress.finished(case, count, total)

        results = under_load.run_boundaries(quick, done)
    console.print(loaded_table(results))
    return {"loaded": results}


def loaded_table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """One row per policy and boundary rule."""
    table = Table(title="Eight modelled H100 instances in virtual time")
    for column in ("policy", "boundary", "blocked p99 s", "SLO viol. %", "with TTFAT %"):
        table.add_column(column, justify="right")
    for column in ("TTFT p99 s", "e2e p99 s", "tok/s", "moves"):
        table.add_column(column, justify="right")
    for policy, by_rule in results.items():
        for boundary, result in by_rule.items():
            table.add_row(
                policy,
                boundary,
                f"{result['boundary_blocking_p99_s']:.3f}",
                f"{100 * result['slo_violations']:.2f}",
                f"{100 * result['slo_violations_ttfat']:.2f}",
                f"{result['ttft_s']['p99']:.1f}",
                f"{result['e2e_s']['p99']:.1f}",
                f"{result['throughput_tok_s']:.0f}",
                f"{result['migrations']:.0f}",
            )
    return table
