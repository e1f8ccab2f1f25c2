"""``pascal load``: an open-loop load generator for the Responses API and for chat completions.

Requests arrive by a Poisson process (or a gamma process, `--burstiness`, or as a workload or a
trace has it) whether or not earlier ones were answered: the arrivals are drawn before the run and
kept as well as the event loop allows. How well is measured too (`lateness_s`, `loop_lag_s`), for a
late generator measures itself.

A run: plan (`bench.load_plan`), drive (`bench.load_run`), measure (`bench.measure`), report
(`bench.report`, `bench.load_outputs`). Ctrl-C ends it early: what is in flight is cancelled on the
server and counted as interrupted, and what was measured is reported and written.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import uvloop
from rich.console import Console

from bench import compare, load_flags
from bench.curves import reader_curves
from bench.load_outputs import prepare_outputs, write_outputs
from bench.load_plan import Planned, plan_requests, warmup_plan
from bench.load_run import LoadRun
from bench.measure import run_result
from bench.options import OptionError, Options, options_from
from bench.prompts import PromptError
from bench.report import Progress, print_report
from bench.server_facts import served_model, wait_ready
from bench.transport import ServerError

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal load``, and its command ``compare``."""
    load_flags.add_arguments(parser)
    commands = parser.add_subparsers(
        dest="load_command", required=False, metavar="compare", prog=parser.prog
    )
    compare.add_arguments(commands.add_parser("compare", help="results of runs side by side"))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run sends."""

    requests: list[Planned]
    warmups: list[Planned]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from stopping the event loop.

    A full collection takes tens of milliseconds here, and what arrives meanwhile is stamped late. A
    run leaves hardly any cycles behind.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _allow_sockets(count: int) -> None:
    """Raise this process's limit of open files so that ``count`` sockets fit, if it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256  # for everything that is no socket
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _drive_until_interrupt(load: LoadRun, plan: Plan) -> bool:
    """Drive the plan; True if the first Ctrl-C ended it. A second one is not held back."""
    loop = asyncio.get_running_loop()
    driving = asyncio.create_task(load.drive(plan.requests, plan.warmups), name="load-run")

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        driving.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        await driving
        return False
    except asyncio.CancelledError:
        return True
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def run(args: argparse.Namespace) -> int:
    """Run the load described by the flags of `add_arguments`.

    :returns: the exit code: 0, 1 if any request failed or the server cannot be used, 2 for flags
        that cannot be used, 130 after Ctrl-C.
    """
    if args.load_command == "compare":
        return compare.run(args)
    errors = Console(stderr=True)
    try:
        options = options_from(args)
        plan = Plan(plan_requests(options), warmup_plan(options))
        prepare_outputs(options)
    except (OptionError, PromptError) as error:
        return _refuse(error, 2)
    try:
        options, model = _meet(options)
        _allow_sockets(len(plan.requests))
        with Progress(errors, len(plan.requests)) as progress:
            result, interrupted = uvloop.run(_run_plan(options, model, plan, progress))
    except OptionError as error:
        return _refuse(error, 2)
    except ServerError as error:
        return _refuse(error, 1)
    except KeyboardInterrupt:  # before the load began, or a second one
        return 130
    print_report(result, options, Console())
    try:
        written = write_outputs(options, result)
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}", 1)
    for path in written:
        print(f"result: {path}")
    if interrupted:
        return 130
    return 1 if result["failed"] else 0


def _refuse(error: object, status: int) -> int:
    print(f"pascal load: error: {error}", file=sys.stderr)
    return status


def _meet(options: Options) -> tuple[Options, str]:
    """Wait for the server, and settle what depends on what it is.

    :returns: the options, and the model's name.
    :raises ServerError: if it cannot be used.
    :raises OptionError: if it cannot do what the flags ask for.
    """
    if options.ready_check_timeout_s:
        wait_ready(options.base_url, options.api_key, options.ready_check_timeout_s)
    served = served_model(options.base_url, options.api_key, options.model)
    if options.extensions is not None:
        return options, served.model
    if not served.ours and options.forces_lengths:
        raise OptionError(
            f"{options.base_url} is no pascal-serve (its model is owned by {served.owner!r}), so "
            "lengths cannot be forced on it; --extensions if it is one after all"
        )
    return replace(options, extensions=served.ours), served.model


async def _run_plan(
    options: Options, model: str, plan: Plan, progress: Progress
) -> tuple[dict[str, Any], bool]:
    started = datetime.now().astimezone()
    load = LoadRun(options, model, progress=progress)
    with _no_collection():
        interrupted = await _drive_until_interrupt(load, plan)
    head = {
        "date": started.isoformat(timespec="seconds"),
        "model": model,
        "config": options.config(),
        "turns_not_sent": load.turns_not_sent,
    }
    return head | result_of(load, options), interrupted


def result_of(load: LoadRun, options: Options) -> dict[str, Any]:
    """The figures of a run that is over, ready for JSON."""
    results = load.results()
    records = {entry.planned.index: entry.record for entry in load.entries}
    figures = run_result(
        results,
        loop_lag_s=load.loop_lag_s,
        percentiles=options.metric_percentiles,
        goodput=options.goodput,
        cpu_share=load.cpu_share,
    )
    curves = reader_curves([(r, records[r.index]) for r in results], options.tpot_s)
    return figures | {"curves": curves}


class _Parser(argparse.ArgumentParser):
    """A bad flag is one line, without the usage of thirty flags before it."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m bench.loadgen``."""
    parser = _Parser(prog="pascal load", description=(__doc__ or "").split("\n", 1)[0])
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
