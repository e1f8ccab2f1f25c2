"""One soak: readers arrive, samples are taken, a worker is killed now and then, readers leave."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.soak.clients import garbage, http_readers, places, websocket_readers
from tests.soak.clients.stage import HEADERS, KILLED, Stage
from tests.soak.clients.stream import Tally
from tests.soak.growth import report
from tests.soak.growth.observations import Observations, Observer, Values, observe
from tests.soak.growth.report import Report
from tests.support.server import Server, is_alive

_PROGRESS_S = 30.0
_KILLED = r"was killed by SIGKILL\b"  # in the log, of a worker
_BAD_BODY = "RequestPayloadError"  # aiohttp logs it as an error of its own after the answer
_BAD_REQUESTS = (
    "aiohttp.http_exceptions.",
    "aiohttp.web_protocol.RequestPayloadError",
    "zlib.error",
)
_RESTART_S = 300.0  # guards against a worker that does not come back
_STAYS_S = 5.0  # with nothing running, a difference that lasts this long is permanent
# These must be as before the first reader; `_AT_REST` lists those that must be 0.
_AS_BEFORE = ("gateway fds", "worker-0 fds", "worker-1 fds", "process_open_fds")
_TASKS = "pascal_asyncio_tasks"
_AT_REST = (
    "requests",
    "pascal_requests_running",
    "pascal_requests_waiting",
    "pascal_requests_in_engines",
    "pascal_responses_unfinished",
    "pascal_sessions",
)
_EMPTY = ("pascal_kv_blocks_used", "pascal_kv_blocks_held", "pascal_event_log_bytes")


class CannotRun(Exception):
    """The gateway does not even serve the first readers."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The length of the run, the number of readers, and the times of events."""

    minutes: float
    readers: int
    seed: int
    kill_every_s: float  # 0: never
    allow_missing: bool  # metrics may be absent
    slopes: bool  # judge them; too early in a run of seconds
    ttl_s: float  # `session.ttl_s`; a short one makes the gateway steady soon
    warm_up_s: float
    interval_s: float  # between two samples

    @classmethod
    def of(cls, args: argparse.Namespace) -> Plan:
        """The plan of these flags. The warm-up is a quarter, or 3 minutes if more."""
        minutes: float = args.minutes
        return cls(
            minutes=minutes,
            readers=args.readers,
            seed=args.seed,
            kill_every_s=args.kill_every,
            allow_missing=args.allow_missing,
            slopes=not args.no_slopes,
            ttl_s=min(20.0, max(3.0, minutes * 5)),
            warm_up_s=max(minutes * 15, 180.0 if minutes >= 8 else 0.0),
            interval_s=min(5.0, max(1.0, minutes)),
        )


async def soak(server: Server, folder: Path, plan: Plan) -> Report:
    """Run readers for the planned time, then wait for rest.

    :return: the report; the end of the gateway is not in it yet.
    """
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    tally = Tally()
    outcome = Report(tally, Observations(), plan.warm_up_s)
    connector = aiohttp.TCPConnector(limit=1)
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as watching:
        store = folder / "responses.sqlite3"
        observer = Observer(server.url, server.process.pid, store, watching)
        baseline = await _baseline(server, observer, plan)
        async with _readers_session() as http:
            stage = Stage(server.url, http, tally, plan.ttl_s)
            await _together(
                plan.minutes * 60,
                places.fill(stage, plan.readers, plan.seed),
                observe(observer, outcome.observations, time.monotonic(), plan.interval_s),
                _progress(server, outcome),
                _kill(observer, plan.kill_every_s, outcome),
            )
        if plan.slopes:
            killed = {KILLED} if outcome.kills else set()  # may not be back yet
            report.judge_all(outcome, observer.restarted | killed)
        if server.process.poll() is None:
            outcome.left_behind = await _left_behind(observer, baseline, plan.ttl_s)
    outcome.pids = observer.pids
    if not plan.allow_missing:
        outcome.trouble += [f"not exported: {name}" for name in sorted(observer.missing)]
    return outcome


def after_the_end(server: Server, pids: set[int], kills: int) -> list[str]:
    """Failures after the gateway was stopped: its exit status, its log, its processes."""
    trouble = [f"process {pid} is still alive" for pid in sorted(pids) if is_alive(pid)]
    if server.process.returncode != 0:
        trouble.append(f"the gateway ended with status {server.process.returncode}")
    ended = len(re.findall(_KILLED, server.output()))
    if ended > kills:
        trouble.append(f"workers were killed {ended} times, {kills} of them by the soak")
    trouble += [f"logged {count} times: {error}" for error, count in errors_of(server.output())]
    return trouble


def errors_of(output: str) -> list[tuple[str, int]]:
    """Errors that a gateway has printed, most frequent first.

    Killed workers do not count, nor do malformed HTTP requests, for which aiohttp prints a
    traceback.
    """
    errors: Counter[str] = Counter()
    in_traceback = False
    for line in output.splitlines():
        if line.startswith("{"):
            entry = json.loads(line)
            entry.pop("timestamp", None)
            bad = entry.get("level") in ("error", "critical") and entry.get("kind") != _BAD_BODY
            if bad and not re.search(_KILLED, line):
                errors[json.dumps(entry)[:1000]] += 1
        elif line.startswith("Traceback"):
            in_traceback = True
        elif in_traceback and line and not line.startswith((" ", "During ", "The above ")):
            in_traceback = False
            if not line.startswith(_BAD_REQUESTS):
                errors[line[:1000]] += 1
    return errors.most_common()


def _readers_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers=HEADERS,
        timeout=aiohttp.ClientTimeout(total=None, connect=60),
    )


async def _together(seconds: float, *work: Coroutine[Any, Any, None]) -> None:
    """Run all for ``seconds``, or until one ends or fails."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for ended in done:
            ended.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _baseline(server: Server, observer: Observer, plan: Plan) -> Values:
    """A sample after one reader of each common kind, with one-time resources already open."""
    tally = Tally()
    async with _readers_session() as http:
        stage = Stage(server.url, http, tally, plan.ttl_s)
        for reader in (
            websocket_readers.goes_on_and_forgets,
            http_readers.waits_for_the_whole,
            http_readers.reads_chunks,
            garbage.asks_wrongly,
        ):
            await places.one(stage, reader, random.Random(plan.seed))
    if tally.violations:
        raise CannotRun(f"the first readers failed: {tally.shown}")
    samples: list[Values] = []
    deadline_s = time.monotonic() + plan.ttl_s + 15
    while len(samples) < 5:  # in a row; connections of the first readers are about to close
        await asyncio.sleep(0.3)
        sample = await observer.look()
        if any(sample.get(name) for name in _AT_REST) and time.monotonic() < deadline_s:
            samples.clear()
        else:
            samples.append(sample)
    names = set.intersection(*(set(one) for one in samples))
    return {name: min(one[name] for one in samples) for name in names}


async def _progress(server: Server, outcome: Report) -> None:
    """Print a line every 30 s while the gateway runs."""
    began_s = printed_s = time.monotonic()
    while server.process.poll() is None:
        await asyncio.sleep(1)
        if time.monotonic() - printed_s < _PROGRESS_S:
            continue
        printed_s = time.monotonic()
        values = {name: series[-1] for name, series in outcome.observations.values.items()}
        shown = ", ".join(
            f"{name} {(values.get(key) or 0) / scale:.{digits}f}"
            for name, key, scale, digits in (
                ("rss MiB", "gateway rss", 2**20, 1),
                ("fds", "gateway fds", 1, 0),
                ("sessions", "pascal_sessions", 1, 0),
                ("running", "requests", 1, 0),
                ("ended", "pascal_responses_total", 1, 0),
                ("store KiB", "store file", 1024, 0),
            )
        )
        tally = outcome.tally
        print(
            f"{time.monotonic() - began_s:5.0f} s  {shown}, readers {tally.readers.total()}, "
            f"broken {tally.violations}",
            flush=True,
        )


async def _kill(observer: Observer, every_s: float, outcome: Report) -> None:
    """Kill the worker `KILLED` at intervals, unless it is not back yet."""
    while True:
        await asyncio.sleep(every_s or 1e9)
        with suppress(aiohttp.ClientError, OSError):
            pid = await observer.pid_of(KILLED)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                outcome.kills += 1


async def _left_behind(observer: Observer, baseline: Values, ttl_s: float) -> list[str]:
    """Wait until everything is as before; :return: the differences that remain."""
    # A pause lasts for the time to live; then the answer is read, and the response is kept.
    deadline_s = time.monotonic() + 2 * ttl_s + 60
    restart_s = time.monotonic() + _RESTART_S
    resting_since_s = math.inf
    while True:
        await asyncio.sleep(0.5)
        now = time.monotonic()
        try:
            sample = await observer.look()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if now > deadline_s:
                return [f"the gateway does not answer: {error}"]
            continue
        left = differences(baseline, sample)
        if not left:
            return []
        if any(name not in sample for name in _AS_BEFORE if name in baseline) and now < restart_s:
            continue  # a worker is not back yet
        if any(sample.get(name) for name in _AT_REST):
            resting_since_s = math.inf
        else:
            resting_since_s = min(resting_since_s, now)
        if now > deadline_s or now - resting_since_s > _STAYS_S:
            return left


def differences(baseline: Values, sample: Values) -> list[str]:
    """Quantities of which a sample has more than the baseline, in words."""
    more = [
        f"{name} {sample[name]:.0f}"
        for name in (*_AT_REST, *_EMPTY)
        if sample.get(name, 0) > baseline.get(name, 0)
    ]
    for name in (*_AS_BEFORE, _TASKS):
        if name in baseline and sample.get(name, 0) > baseline[name]:
            more.append(f"{name} {sample[name]:.0f}, {baseline[name]:.0f} before")
        if name in baseline and name not in sample:
            more.append(f"{name}: missing")
    return more
