"""``pascal bench pacing``: the cost and the punctuality of the token path, and its memory.

It has four sections. ``--only`` selects some of them:

    per_token   the gateway's CPU time per token, aiohttp's bare send and a bare transport's write
    held        paced readers on one core: lateness, pauses, QoE; and the same with a prototype
    memory      bytes for idle streams, buffered and kept tokens, finished responses
    gc          the time of a full garbage collection with many sessions

``--peers`` adds what a user would pick instead. The gateway is a real one, on a core of its own;
readers and scripted workers share another. The JSON is written after every section.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.status import Status

from bench.pacing.stage.machine import Cores
from bench.pacing.tables import (
    collection_table,
    held_sides,
    held_table,
    histogram_table,
    memory_table,
    per_token_table,
)
from bench.reporting.console import (
    FAILED,
    OK,
    REFUSED,
    give_up,
    interrupted,
    wide_console,
)
from bench.reporting.errors import BenchmarkError
from bench.reporting.flag_types import count, list_of, one_of
from bench.reporting.outputs import prepare_json, write_json

SECTIONS: Final = ("per_token", "held", "memory", "gc")
_FEWEST = 8  # streams


@dataclass(frozen=True, slots=True)
class _Options:
    quick: bool
    streams: int | None  # that are held; None: the default
    cores: Cores
    progress: Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal bench pacing``."""
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer streams and shorter runs; two minutes")
    add("--json", type=Path, metavar="FILE", help="write the results there")
    add(
        "--only",
        type=list_of(one_of(SECTIONS)),
        metavar="SECTION[,SECTION]",
        help=", ".join(SECTIONS),
    )
    add(
        "--streams",
        type=count,
        metavar="N",
        help="readers of the section held (default: 4000, with --quick 500)",
    )
    add(
        "--peers",
        action="store_true",
        help="measure other servers too, each installed into an environment of its own",
    )


def run(args: argparse.Namespace) -> int:
    """Run the sections; :return: the exit status."""
    sections = args.only or SECTIONS
    try:
        if args.streams is not None and args.streams < _FEWEST:
            raise BenchmarkError(f"--streams {args.streams}: at least {_FEWEST} are needed")
        results = prepare_json(args.json, keep=bool(args.only))
    except BenchmarkError as error:
        return give_up(REFUSED, error)
    console = wide_console()
    cores = Cores.of_machine()
    if cores.server is None:
        console.print("There is only one core: the gateway shares it with its clients.")
    parts = {
        "per_token": _per_token,
        "held": _held,
        "memory": _memory,
        "gc": _gc,
        "peers": _peers,
    }
    chosen = [*sections, *(["peers"] if args.peers else [])]
    section = chosen[0]
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends all processes too
    try:
        for section in chosen:
            with console.status(section) as status:
                show = partial(_show, console, status, section)
                results |= parts[section](_Options(args.quick, args.streams, cores, show), console)
            results.setdefault("peers", {})
            write_json(args.json, results)
    except BenchmarkError as error:
        return give_up(FAILED, f"{section}: {error}")
    except KeyboardInterrupt:
        return interrupted("the results of finished sections are kept")
    finally:
        signal.signal(signal.SIGTERM, earlier)
    return OK


def _per_token(options: _Options, console: Console) -> dict[str, Any]:
    from bench.pacing import per_token

    extent = per_token.QUICK if options.quick else per_token.FULL
    results = per_token.measure(extent, options.cores, options.progress)
    console.print(per_token_table(results))
    for transport, result in results.items():
        _warn(console, transport, result["warnings"])
    return {"per_token_us": results}


def _held(options: _Options, console: Console) -> dict[str, Any]:
    from bench.pacing import held

    extent = held.QUICK if options.quick else held.FULL
    if options.streams is not None:
        extent = replace(extent, many=replace(extent.many, streams=options.streams))
    results = held.measure(extent, options.cores, options.progress)
    console.print(held_table(results))
    console.print(histogram_table(results))
    for name, result in held_sides(results):
        _warn(console, name, result["warnings"])
    return {"held": results}


def _memory(options: _Options, console: Console) -> dict[str, Any]:
    from bench.pacing import memory

    extent = memory.QUICK if options.quick else memory.FULL
    results = memory.measure(extent, options.cores, options.progress)
    console.print(memory_table(results))
    return {"memory": results}


def _gc(options: _Options, console: Console) -> dict[str, Any]:
    from bench.pacing import collection

    extent = collection.QUICK if options.quick else collection.FULL
    results = collection.in_own_process(extent, options.cores.server)
    console.print(collection_table(results))
    return {"gc": results}


def _peers(options: _Options, console: Console) -> dict[str, Any]:
    peers = import_module("bench.pacing.peers")  # its servers are installed only for this
    results: dict[str, Any] = peers.measure_peers(options.quick, progress=options.progress)
    console.print(peers.table(results))
    return {"peers": results}


def _show(console: Console, status: Status, section: str, what: str) -> None:
    """Say what begins: on a terminal in its last line, elsewhere in a line of its own."""
    status.update(f"{section}: {what}")
    if not console.is_terminal:
        console.print(f"{section}: {what}")


def _warn(console: Console, name: str, warnings: list[str]) -> None:
    for warning in warnings:
        console.print(f"[yellow]{name}: {warning}[/yellow]", highlight=False)
