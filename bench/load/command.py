"""``pascal load``: an open-loop load generator for the Responses API and for chat completions.

Requests arrive whether or not earlier ones were answered. Their arrivals form a Poisson process, a
gamma process (``--burstiness``), or follow a workload or a trace. They are drawn before the run.

A generator that sends late measures itself, so the result includes how late it was (`lateness_s`,
`loop_lag_s`).

A run has four steps: plan (`bench.load.plan`), drive (`bench.load.runner`), measure
(`bench.load.measure`) and report (`bench.load.report`). Ctrl-C ends it early: requests in flight
are cancelled on the server and count as interrupted, and the results so far are reported and
written.
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
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.load import flags
from bench.load.agents.agent import Agent
from bench.load.agents.problems import problem_agents, warmup_problems
from bench.load.agents.results import agents_result
from bench.load.agents.sized import sized_agents, warmup_agents
from bench.load.measure import run_result
from bench.load.options import AGENT, OptionError, Options, options_from
from bench.load.plan import Planned, plan_requests, warmup_plan
from bench.load.prompts import PromptError
from bench.load.report import compare
from bench.load.report.files import prepare_outputs, write_outputs
from bench.load.report.reader_curves import reader_curves
from bench.load.report.terminal import Progress, print_report
from bench.load.runner import LoadRun
from bench.load.sources import arrivals_of, further_lengths, source_of
from bench.load.transport.interface import ServerError
from bench.load.transport.server_info import served_model, wait_ready
from bench.reporting.console import FAILED, INTERRUPTED, OK, REFUSED, give_up
from bench.reporting.errors import BenchmarkError
from workers import loop

_COMPARE = ("words", "html")  # arguments that `compare` uses

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal load``."""
    flags.add_arguments(parser)


@dataclass(frozen=True, slots=True)
class Plan:
    """The requests of a run."""

    requests: Sequence[Planned] = ()
    warmups: Sequence[Planned] = ()
    agents: Sequence[Agent] = ()
    warmup_agents: Sequence[Agent] = ()

    @property
    def size(self) -> int:
        """How many requests are expected."""
        return len(self.requests) + sum(agent.expected_turns for agent in self.agents)

    @property
    def most_in_flight(self) -> int:
        """Requests that may be in flight at a time."""
        return len(self.requests) + len(self.agents)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from stopping the event loop.

    A full collection takes tens of milliseconds here, and messages that arrive meanwhile get a late
    time stamp. A run leaves hardly any cycles behind.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def plan_of(options: Options) -> Plan:
    """The requests that the flags ask for.

    :raises OptionError, PromptError, BenchmarkError: if they cannot be made.
    """
    if options.workload == AGENT:
        return Plan(agents=sized_agents(options), warmup_agents=warmup_agents(options))
    if options.agents:
        return Plan(agents=problem_agents(options), warmup_agents=warmup_problems(options))
    workload = source_of(options)
    if workload is None:
        return Plan(plan_requests(options), warmup_plan(options))
    arrivals = arrivals_of(workload, options)
    further = further_lengths(workload, options) if options.turns is not None else None
    return Plan(plan_requests(options, arrivals, further), warmup_plan(options, arrivals))


def _allow_sockets(count: int) -> None:
    """Raise this process's limit of open files to fit ``count`` sockets, as far as permitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256  # for all other open files
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _drive_until_interrupt(load: LoadRun, plan: Plan) -> bool:
    """Drive the plan; :return: whether Ctrl-C ended it. A second Ctrl-C ends the process."""
    loop = asyncio.get_running_loop()
    drive = load.drive(
        plan.requests, plan.warmups, agents=plan.agents, warmup_agents=plan.warmup_agents
    )
    driving = asyncio.create_task(drive, name="load-run")

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

    :return: the exit code: 0; 1 if a request failed or the server cannot be used; 2 if the flags
        cannot be used; 130 after Ctrl-C.
    """
    if args.words:
        return _compare(args)
    errors = Console(stderr=True)
    try:
        options = options_from(args)
        prepare_outputs(options)
        with errors.status("planning"):
            plan = plan_of(options)
    except (OptionError, PromptError, BenchmarkError) as error:
        return _refuse(error, REFUSED)
    try:
        options, model = _ask_server(options)
        _allow_sockets(plan.most_in_flight)
        with Progress(errors, plan.size) as progress:
            result, interrupted = loop.run(_run_plan(options, model, plan, progress))
    except OptionError as error:
        return _refuse(error, REFUSED)
    except ServerError as error:
        return _refuse(error, FAILED)
    except KeyboardInterrupt:  # before the load began, or a second one
        return INTERRUPTED
    try:
        written = write_outputs(options, result)  # before the report: its pipe may be closed
    except OSError as error:
        print_report(result, options, Console())
        return _refuse(f"{error.filename}: {error.strerror}", FAILED)
    print_report(result, options, Console())
    for path in written:
        print(f"result: {path}")
    if interrupted:
        return INTERRUPTED
    return FAILED if result["failed"] else OK


def _compare(args: argparse.Namespace) -> int:
    """``pascal load compare``, which accepts no flag but ``--html``."""
    command, *results = args.words
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    unset = vars(parser.parse_args([]))
    useless = any(
        getattr(args, name) != value for name, value in unset.items() if name not in _COMPARE
    )
    if command != "compare":
        return _refuse(f"unrecognized arguments: {' '.join(args.words)}", REFUSED)
    if useless:
        return _refuse("compare takes no flag but --html", REFUSED)
    if not results:
        return _refuse("compare needs at least one RESULT.json", REFUSED)
    return compare.run([Path(name) for name in results], args.html)


def _refuse(error: object, status: int) -> int:
    return give_up(status, f"error: {error}", "pascal load")


def _ask_server(options: Options) -> tuple[Options, str]:
    """Wait for the server, and complete the options that depend on it.

    :return: the options, and the model's name.
    :raises ServerError: if the server cannot be used.
    :raises OptionError: if the flags ask for something that it cannot do.
    """
    if options.ready_check_timeout_s:
        wait_ready(options.base_url, options.api_key, options.ready_check_timeout_s)
    served = served_model(options.base_url, options.api_key, options.model)
    if options.extensions is not None:
        return options, served.model
    if not served.ours and options.forces_lengths:
        raise OptionError(
            f"{options.base_url} is not pascal-serve (its model is owned by {served.owner!r}), so "
            "it cannot force lengths; if it is pascal-serve, give --extensions"
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
    return head | result_of(load, options, plan.agents), interrupted


def result_of(load: LoadRun, options: Options, agents: Sequence[Agent] = ()) -> dict[str, Any]:
    """The results of a finished run, ready for JSON."""
    results = load.results()
    records = {entry.planned.index: entry.record for entry in load.entries}
    metrics = run_result(
        results,
        loop_lag_s=load.loop_lag_s,
        percentiles=options.metric_percentiles,
        goodput=options.goodput,
        cpu_share=load.cpu_share,
    )
    curves = reader_curves([(r, records[r.index]) for r in results], options.tpot_s)
    tasks = agents_result(agents, results, options.metric_percentiles) if agents else None
    return metrics | {"curves": curves, "agents": tasks}


class _Parser(argparse.ArgumentParser):
    """Reports a bad flag in one line, without the usage of thirty flags before it."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m bench.load.command``."""
    parser = _Parser(prog="pascal load", description=(__doc__ or "").split("\n", 1)[0])
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
