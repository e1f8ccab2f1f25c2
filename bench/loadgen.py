"""``pascal load``: an open-loop load generator for the Responses API over WebSocket.

Requests arrive by a Poisson process (or a gamma process, `--burstiness`) whether or not earlier
ones were answered: the arrivals are drawn before the run and kept as well as the event loop allows.
How well is measured too (`lateness_s`, `loop_lag_s`), for a late generator measures itself.

A run: plan (`bench.load_plan`), drive (`LoadRun`), measure (`bench.measure`), report
(`bench.report`). Ctrl-C ends it early: what is in flight is cancelled on the server and counted as
interrupted, and what was measured is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.client import Clock, Connection, ConnectionPool, ServerError, first_model, wait_ready
from bench.measure import Arrival, RequestResult, measure, run_result
from bench.options import OptionError, Options, add_arguments, options_from
from bench.prompts import PromptError
from bench.record import ResponseRecord
from bench.report import Progress, print_report
from bench.load_plan import Planned, plan_requests, request_body

__all__ = ["add_arguments", "main", "run"]

LAG_PROBE_S = 0.02  # between two looks at the event loop's lag


class LoadRun:
    """Drives one plan. `drive` returns when every request has ended; `results` may be read then.

    Cancelling `drive` interrupts the run: requests in flight are cancelled on the server, those
    that were not yet due leave no result.
    """

    def __init__(
        self,
        options: Options,
        model: str,
        *,
        progress: Progress | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.loop_lag_s: list[float] = []
        self._options = options
        self._model = model
        self._progress = progress
        self._clock = clock
        self._start_s = clock()
        self._entries: list[tuple[Planned, Arrival, ResponseRecord]] = []  # those that were due
        self._room: contextlib.AbstractAsyncContextManager[None] = (
            asyncio.Semaphore(options.max_concurrency)
            if options.max_concurrency
            else contextlib.nullcontext()
        )
        self._pool = ConnectionPool(self._connect, options.connections)

    async def drive(self, plan: Sequence[Planned]) -> None:
        """Send the plan and wait for all answers.

        :raises ServerError: if not even the first connection can be made.
        """
        try:
            async with self._pool.connection():
                pass  # a server that is not there, or wants a key, is found before the load
            self._start_s = self._clock()
            probe = asyncio.create_task(self._probe_lag(), name="lag-probe")
            try:
                async with asyncio.TaskGroup() as requests:
                    for planned in plan:
                        due_s = self._start_s + planned.at_s
                        await asyncio.sleep(max(0.0, due_s - self._clock()))
                        requests.create_task(self._request(planned, due_s))
            finally:
                probe.cancel()
                await asyncio.wait([probe])
        finally:
            await self._pool.close()

    def results(self) -> list[RequestResult]:
        """The figures of every request that was due, in order."""
        options = self._options
        return [
            measure(
                record,
                arrival,
                tau_s=options.tpot_s,
                correct=(
                    planned.prompt.judge(record.answer_text)
                    if record.outcome == "completed" and planned.forced is None
                    else None  # forced lengths cut or pad what the model says
                ),
            )
            for planned, arrival, record in self._entries
        ]

    async def _connect(self) -> Connection:
        return await Connection.open(
            self._options.ws_url, api_key=self._options.api_key, clock=self._clock
        )

    async def _request(self, planned: Planned, due_s: float) -> None:
        record = ResponseRecord(planned.forced)
        arrival = Arrival(
            index=planned.index,
            start_s=self._start_s,
            due_s=due_s,
            turned_s=self._clock(),
            family=planned.prompt.family,
        )
        self._entries.append((planned, arrival, record))
        if self._progress is not None:
            self._progress.began()
        try:
            async with self._room, self._pool.connection() as connection:
                await self._exchange(connection, planned, record)
        except ServerError as error:
            record.abandon(str(error), self._clock())
        except asyncio.CancelledError:
            record.interrupt(self._clock())
            raise
        finally:
            if self._progress is not None:
                self._progress.ended(record.outcome)

    async def _exchange(
        self, connection: Connection, planned: Planned, record: ResponseRecord
    ) -> None:
        stream = await connection.create(
            f"load-{planned.index}", request_body(self._options, self._model, planned), record
        )
        try:
            async with asyncio.timeout(self._options.timeout_s):
                await stream.wait()
        except TimeoutError:
            record.abandon(f"timed out after {self._options.timeout_s:g} s", self._clock())
            await stream.cancel()
        except asyncio.CancelledError:
            record.interrupt(self._clock())
            await stream.cancel()
            raise

    async def _probe_lag(self) -> None:
        """How much later than asked the event loop wakes its tasks."""
        while True:
            due_s = self._clock() + LAG_PROBE_S
            await asyncio.sleep(LAG_PROBE_S)
            self.loop_lag_s.append(max(0.0, self._clock() - due_s))


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


async def _drive_until_interrupt(load: LoadRun, plan: Sequence[Planned]) -> bool:
    """Drive the plan; True if the first Ctrl-C ended it. A second one is not held back."""
    loop = asyncio.get_running_loop()
    driving = asyncio.create_task(load.drive(plan), name="load-run")

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


def result_path(options: Options, model: str, started: datetime) -> Path:
    """Where the result goes."""
    name = options.result_filename
    if name is None:
        base = model.rstrip("/").rsplit("/", 1)[-1]
        name = f"load-{options.request_rate:g}qps-{base}-{started:%Y%m%d-%H%M%S}.json"
    return options.result_dir / name


def run(args: argparse.Namespace) -> int:
    """Run the load described by the flags of `add_arguments`.

    :returns: the exit code: 0, 1 if any request failed or the server cannot be used, 2 for flags
        that cannot be used, 130 after Ctrl-C.
    """
    errors = Console(stderr=True)
    try:
        options = options_from(args)
        plan = plan_requests(options)
        if options.save_result:
            options.result_dir.mkdir(parents=True, exist_ok=True)
    except (OptionError, PromptError, OSError) as error:
        print(f"pascal load: error: {error}", file=sys.stderr)
        return 2
    try:
        if options.ready_check_timeout_s:
            wait_ready(options.base_url, options.api_key, options.ready_check_timeout_s)
        model = options.model or first_model(options.base_url, options.api_key)
        with Progress(errors, len(plan)) as progress:
            result, interrupted = asyncio.run(_run_plan(options, model, plan, progress))
    except ServerError as error:
        print(f"pascal load: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the load began, or a second one
        return 130
    print_report(result, options, Console())
    if options.save_result:
        path = result_path(options, model, datetime.fromisoformat(result["date"]))
        try:
            path.write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
        except OSError as error:
            print(f"pascal load: error: {path}: {error.strerror}", file=sys.stderr)
            return 1
        print(f"result: {path}")
    if interrupted:
        return 130
    return 1 if result["failed"] else 0


async def _run_plan(
    options: Options, model: str, plan: Sequence[Planned], progress: Progress
) -> tuple[dict[str, Any], bool]:
    started = datetime.now().astimezone()
    load = LoadRun(options, model, progress=progress)
    with _no_collection():
        interrupted = await _drive_until_interrupt(load, plan)
    figures = run_result(
        load.results(),
        loop_lag_s=load.loop_lag_s,
        percentiles=options.metric_percentiles,
        goodput=options.goodput,
    )
    head = {
        "date": started.isoformat(timespec="seconds"),
        "model": model,
        "config": options.config(),
    }
    return head | figures, interrupted


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
