"""``pascal bench agents``: agents and chatters together, where memory is short.

In virtual time. It has three parts. ``--only`` selects some of them:

    sides      policies inside the engines, how they schedule calls, whether the gateway paces them
    ways       three ways to treat a call under the default policy, with more seeds
    urgency    how long calls are, and for how long one is urgent as an answer

The JSON is written after each part.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

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
from bench.reporting.flag_types import count
from bench.reporting.outputs import prepare_folder, prepare_json, write_json
from bench.reporting.vllm_environment import prepare_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.agents.experiment import Case, Mix, SideRun

PARTS = ("sides", "ways", "urgency")
_QUICK = ("sides", "ways")  # the second needs no further runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal bench agents``."""
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="sides and ways with less load and fewer seeds; two minutes on two cores",
    )
    add("--only", choices=PARTS, action="append", metavar="PART", help=", ".join(PARTS))
    add("--seeds", type=count, metavar="N", help="of the part ways (default: 12)")
    add("--json", type=Path, metavar="FILE", help="write the results there")
    add("--plots", type=Path, metavar="DIR", help="write a plot of the sides there")


def run(args: argparse.Namespace) -> int:
    """Run the parts; :return: the exit status."""
    try:
        results = prepare_json(args.json, keep=bool(args.only))
        prepare_folder(args.plots)
    except BenchmarkError as error:
        return give_up(REFUSED, error)
    console = wide_console()
    parts = {"sides": _sides, "ways": _ways, "urgency": _urgency}
    try:
        prepare_environment()
        from bench.agents import experiment

        mix = experiment.QUICK if args.quick else experiment.FULL
        if args.seeds is not None:
            mix = dataclasses.replace(mix, way_seeds=args.seeds)
        known: dict[Case, SideRun] = {}  # parts share cases
        for part in dict.fromkeys(args.only or (_QUICK if args.quick else PARTS)):
            results[part] = {"config": dataclasses.asdict(mix), **parts[part](mix, known, console)}
            write_json(args.json, results)
            if part == "sides" and args.plots is not None:
                from bench.agents import plots

                plots.plot_sides(results[part]["sides"], _title(mix), args.plots / "agents.png")
    except BenchmarkError as error:
        return give_up(FAILED, error)
    except KeyboardInterrupt:
        kept = "the results of finished parts are kept" if args.json else "nothing was written"
        return interrupted(kept)
    return OK


def _sides(mix: Mix, known: dict[Case, SideRun], console: Console) -> dict[str, Any]:
    from bench.agents import experiment, results

    found = results.results_of(_run("sides", experiment.cases_of(mix), known, console))
    console.print(results.table_of(_title(mix), found))
    return found


def _ways(mix: Mix, known: dict[Case, SideRun], console: Console) -> dict[str, Any]:
    from bench.agents import experiment, results

    found = results.results_of(_run("ways", experiment.cases_of_ways(mix), known, console))
    console.print(results.table_of(f"{_title(mix)}, {mix.way_seeds} seeds", found))
    for line in results.verdict_of(found["claims"]):
        console.print(line, highlight=False)
    return found


def _urgency(mix: Mix, known: dict[Case, SideRun], console: Console) -> dict[str, Any]:
    from bench.agents import urgency

    _run(
        "urgency",
        [of for cell in urgency.CELLS for of in urgency.cases_of(mix, cell)],
        known,
        console,
    )
    cells = urgency.results_of(mix, known)
    console.print(urgency.table_of("How long calls are, and for how long one is urgent", cells))
    return {"cells": cells}


def _run(
    part: str, cases: Sequence[Case], known: dict[Case, SideRun], console: Console
) -> list[SideRun]:
    """The runs of the cases, in their order; ``known`` has those of earlier parts."""
    from bench.agents import experiment

    missing = [case for case in cases if case not in known]
    if not missing:
        return [known[case] for case in cases]
    with CaseProgress(console, part) as progress:

        def done(case: Case, count: int, total: int) -> None:
            side, seed, mix = case
            name = f"{side.name}, calls {mix.calls}, mark {side.high_water_s:g} s"
            progress.finished(f"{name}, seed {seed}", count, total)

        runs = experiment.run_cases(missing, lambda share, total: progress.show(share), done)
    known.update(zip(missing, runs, strict=True))
    return [known[case] for case in cases]


def _title(mix: Mix) -> str:
    return (
        f"{mix.instances} modelled H100 instances in virtual time, {mix.chat_rate:g} chats/s "
        f"({mix.chats}) and {mix.task_rate:g} tasks/s"
    )
