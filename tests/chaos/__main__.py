"""``python -m tests.chaos``: every fault of the table on real engines, under real readers.

Prints a line for each fault and a table at the end. Ends with status 1 unless every fault was
injected, every reader got its text, and nothing was left behind. ``--list`` only prints the
schedule. The same seed, number of faults and number of kills give the same schedule.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from tests.chaos.driver import Driver, Injected
from tests.chaos.faults import Injector
from tests.chaos.load import Load, Tally
from tests.chaos.log_watch import LogWatch
from tests.chaos.table import Cell, Fault, Party, cells, places, quick_schedule, schedule
from tests.chaos.world import World, processes_with, until, world

_SETTLED_S = 30.0  # for memory of unused tickets, and for connections that close


@dataclass(slots=True)
class Outcome:
    """The results of a run."""

    injected: list[Injected] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    wrong: list[str] = field(default_factory=list)
    migrations: Counter[str] = field(default_factory=Counter)  # by outcome
    leaked_blocks: int = -1
    orphans: int = -1
    wall_s: float = 0.0


async def run(args: argparse.Namespace, planned: Sequence[Cell], console: Console) -> Outcome:
    """Inject all planned faults."""
    outcome, began_s = Outcome(), time.monotonic()
    settings = dict(pair.split("=", 1) for pair in args.set)
    settings["workers.heartbeat_timeout_s"] = str(args.heartbeat_timeout)
    watch = LogWatch()
    watch.install()
    async with world(args.workers, args.launcher, settings) as there:
        console.print(f"{args.workers} workers after {time.monotonic() - began_s:.0f} s")
        load = Load(there.url, args.questions, outcome.tally)
        await load.read_undisturbed()
        console.print(f"{args.questions} undisturbed responses; {args.readers} readers begin")
        await until(lambda: not there.used_blocks(), _SETTLED_S)
        blocks, tasks = there.used_blocks(), _tasks()
        await _disturb(there, load, args.readers, planned, outcome, console)
        await until(lambda: there.used_blocks() <= blocks, _SETTLED_S)
        outcome.leaked_blocks = there.used_blocks() - blocks
        outcome.migrations = Counter[str](there.cluster.router.migrations)
        outcome.wrong += await _left_behind(there, tasks)
        outcome.wrong += watch.of_workers(there.folder / "logs")
        folder = there.folder
    await until(lambda: not processes_with(str(folder)), 5.0)
    outcome.orphans = len(processes_with(str(folder)))
    outcome.wrong += watch.of_gateway()
    if outcome.leaked_blocks:
        outcome.wrong.append(f"{outcome.leaked_blocks} KV blocks did not come back")
    if outcome.orphans:
        outcome.wrong.append(f"{outcome.orphans} processes were left behind")
    outcome.wall_s = round(time.monotonic() - began_s, 1)
    return outcome


async def _disturb(
    there: World,
    load: Load,
    readers: int,
    planned: Sequence[Cell],
    outcome: Outcome,
    console: Console,
) -> None:
    injector = Injector(there)
    driver = Driver(there, injector)

    def report(injected: Injected) -> None:
        console.print(
            f"{len(driver.injected):4} of {len(planned)}  {injected.cell!s:48} "
            f"{injected.worker or 'NOT RUN':10} ready, entered, recovered after "
            f"{injected.ready_s:5.1f} {injected.entered_s:5.1f} {injected.over_s:5.1f} s; "
            f"{load.tally.done.total()} responses, {len(load.tally.wrong)} wrong"
        )

    with injector.watching():
        reading = asyncio.create_task(load.run(readers))
        await driver.run(planned, report)
        load.stop()
        await reading
    outcome.injected = driver.injected
    outcome.wrong += driver.wrong + injector.wrong + outcome.tally.wrong


async def _left_behind(there: World, tasks: Counter[str]) -> list[str]:
    """Anything that a gateway without requests should not have."""
    wrong = []
    if not await until(lambda: not _tasks() - tasks, _SETTLED_S):
        wrong.append(f"tasks were left behind: {dict(_tasks() - tasks)}")
    router = there.cluster.router
    if router.routes or any(map(router.routes_of, there.cluster.instances)):
        wrong.append(f"requests were left behind: {list(router.routes.values())}")
    if router._acceptances.waiting or router._deadlines.timers:
        wrong.append(
            f"the router waits for {[*router._acceptances.waiting, *router._deadlines.timers]}"
        )
    return wrong


def _tasks() -> Counter[str]:
    """Running tasks by the name of their coroutine."""
    return Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())


# ---- what is printed --------------------------------------------------------------------------


def print_outcome(console: Console, outcome: Outcome, planned: Sequence[Cell]) -> None:
    """Print the table of cells, how often each was run, and all failures."""
    ran = Counter(injected.cell for injected in outcome.injected if injected.worker)
    table = Table(title="faults injected, by place and party")
    for heading in ("place", *(party.value for party in Party)):
        table.add_column(heading)
    faults: dict[Any, list[Fault]] = defaultdict(list)
    for cell in cells():
        faults[cell.place, cell.party].append(cell.fault)
    for place in places():
        row = [
            "  ".join(f"{f.value} {ran[Cell(place, party, f)]}" for f in faults[place, party])
            or "-"
            for party in Party
        ]
        table.add_row(str(place), *row)
    console.print(table)
    tally = outcome.tally
    console.print(f"responses {dict(tally.done)}, cancelled {tally.cancelled}")
    console.print(f"refused before they started {dict(tally.refused)}")
    console.print(f"chat completions ended with an error {dict(tally.ended_by_error)}")
    console.print(f"failovers {tally.failovers}, migrations {dict(outcome.migrations)}")
    console.print(f"longest pause of a reader {tally.longest_pause_s:.1f} s")
    kills = sum(one.cell.fault is Fault.KILL for one in outcome.injected)
    console.print(
        f"{len(outcome.injected)} of {len(planned)} faults ({kills} kills) in {outcome.wall_s} s; "
        f"{len(+ran)} of {len(cells())} cells"
    )
    for what in outcome.wrong:
        console.print(f"WRONG: {what}", markup=False)


def as_json(args: argparse.Namespace, outcome: Outcome) -> dict[str, Any]:
    """The results as JSON; ``faults`` depends only on the flags."""
    return {
        "seed": args.seed,
        "faults": [str(one.cell) for one in outcome.injected if one.worker],
        "workers_hit": [one.worker for one in outcome.injected],
        "seconds": [[one.ready_s, one.entered_s, one.over_s] for one in outcome.injected],
        "wrong": outcome.wrong,
        "migrations": outcome.migrations,
        "leaked_blocks": outcome.leaked_blocks,
        "orphans": outcome.orphans,
        "wall_s": outcome.wall_s,
        "readers": {name: getattr(outcome.tally, name) for name in Tally.__slots__},
    }


def main() -> int:
    """Entry point; :return: 0 if everything held, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=130)
    parser.add_argument("--kills", type=int, default=30, help="at most this many of them are kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few cells, for `make test`")
    parser.add_argument("--only", default="", help="only cells whose name contains this text")
    parser.add_argument("--list", action="store_true", help="only print the schedule")
    parser.add_argument("--json", type=Path, help="write the outcome to this file")
    parser.add_argument("--launcher", choices=("static", "local"), default="static")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--questions", type=int, default=12, help="number of different questions")
    parser.add_argument("--heartbeat-timeout", type=float, default=4.0)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    args = parser.parse_args()
    if args.quick:
        planned = quick_schedule(args.seed)
    else:
        planned = schedule(args.seed, args.faults, args.kills)
    planned = [cell for cell in planned if args.only in str(cell)]
    if args.list:
        print(*planned, sep="\n")
        return 0
    console = Console(width=150)
    outcome = uvloop.run(run(args, planned, console))
    print_outcome(console, outcome, planned)
    if args.json is not None:
        args.json.write_text(json.dumps(as_json(args, outcome), indent=1), encoding="utf-8")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
