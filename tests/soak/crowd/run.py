"""One run of a crowd: the gateway, its workers, the readers, and what was measured."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.soak.clients.stage import HEADERS, KEY, LARGEST_BODY, LARGEST_FRAME, PROFILE, Stage
from tests.soak.clients.stream import Tally
from tests.soak.crowd import engines, readers
from tests.soak.crowd.measure import Cores, Measure, bottlenecks
from tests.soak.crowd.outcomes import Group, Outcome
from tests.soak.run import CannotRun, after_the_end
from tests.support.server import ROOT, Server
from workers import loop

TPOT_S = 0.1  # the pace of a fast reader
_TTL_S = 60.0  # longer than any reader is away
_SEND_TIMEOUT_S = 5.0
_WORKERS = 4  # scripted; each makes a step every 25 ms, at its own time
_EMULATED = 2
_STOP_S = 10.0  # for the scripted workers


@dataclass(frozen=True, slots=True)
class Plan:
    """How many readers, and for how long."""

    readers: int
    seconds: float  # in which responses begin; the last ones are read to their end
    ramp_s: float  # within this time all readers come
    seed: int
    emulated: bool  # real engines under the emulated profile, instead of scripted ones


def run(plan: Plan, folder: Path, log: Path | None = None) -> Outcome:
    """Run a crowd.

    :param folder: for sockets, state and logs; empty.
    :param log: where to write what the gateway printed.
    """
    cores = Cores.divided()
    with ExitStack() as stack:
        pids: dict[str, int] = {}
        Cores.pin(0, cores.others)
        where: dict[str, str] = {"workers.emulate": PROFILE, "workers.max_num_seqs": "1024"}
        if not plan.emulated:
            where, pids["workers"] = stack.enter_context(_scripted_workers(folder))
        settings = where | _settings(plan)
        Cores.pin(0, cores.gateway)  # it inherits this
        server = Server(
            folder,
            workers=_EMULATED,
            extra=tuple(f"--set={key}={value}" for key, value in settings.items()),
        )
        stack.enter_context(server)
        Cores.pin(0, cores.others)
        pids["gateway"] = server.process.pid
        if plan.emulated:
            for number, pid in enumerate(server.worker_pids()):
                Cores.pin(pid, cores.others)
                pids[f"worker-{number}"] = pid
        measure = Measure(pids, cores)
        outcome = loop.run(_read(server, plan, measure))
    if log is not None:
        log.write_text(server.output(), encoding="utf-8")
    outcome.trouble += after_the_end(server, set(pids.values()), 0)
    reasons = bottlenecks(outcome.measured, len(cores.others) or 1)
    outcome.notes += [f"{reason}: QoE may be lower for it" for reason in reasons]
    if not cores.others:
        outcome.notes.append("one core: the gateway shares it with clients and workers")
    outcome.closings = closings(server.output())
    return outcome


def closings(output: str) -> Counter[str]:
    """What a gateway has logged of connections that it closed or lost, with the reasons."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return Counter(
        ": ".join(filter(None, (line["event"], line.get("reason"))))
        for line in lines
        if "closed" in line["event"] or "stalled" in line["event"]
    )


async def _read(server: Server, plan: Plan, measure: Measure) -> Outcome:
    groups = {name: Group(count) for name, count in readers.counts(plan.readers).items()}
    outcome = Outcome(Tally(), groups)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers=HEADERS,
        timeout=aiohttp.ClientTimeout(total=60),
    ) as http:
        crowd = readers.Crowd(
            stage=Stage(server.url, http, outcome.tally, _TTL_S),
            outcome=outcome,
            tpot_s=TPOT_S,
            send_timeout_s=_SEND_TIMEOUT_S,
            ramp_s=plan.ramp_s,
            scripted=not plan.emulated,
            until_s=asyncio.get_running_loop().time() + plan.seconds,
        )
        measure.begin()
        watching = asyncio.create_task(measure.watch())
        try:
            await readers.fill(crowd, plan.seed)
        finally:
            outcome.measured = measured = measure.end()
            busy_us = measured["gateway cpu"] * measured["seconds"] * 1e6
            measured["gateway us per token"] = busy_us / max(1, outcome.tokens)
            watching.cancel()
            await asyncio.wait([watching])
    return outcome


def _settings(plan: Plan) -> dict[str, str]:
    return {
        "server.api_keys": KEY,
        "server.max_message_bytes": f"{LARGEST_BODY}",
        "server.hard_message_bytes": f"{LARGEST_FRAME}",
        "server.send_timeout_s": f"{_SEND_TIMEOUT_S}",
        "server.header_timeout_s": "10",
        "session.ttl_s": f"{_TTL_S}",
        "session.grace_s": "60",  # a stalled reader of SSE comes back after its bound
        "limits.max_requests": f"{2 * plan.readers + 100}",
        "limits.max_readers": f"{4 * plan.readers + 100}",
        "limits.max_requests_per_user": f"{4 * plan.readers + 100}",
    }


@contextmanager
def _scripted_workers(folder: Path) -> Iterator[tuple[dict[str, str], int]]:
    """The workers' process; gives settings by which a gateway finds them, and its process id."""
    paths = [str(folder / f"worker-{number}.sock") for number in range(_WORKERS)]
    process = subprocess.Popen(
        [sys.executable, "-m", engines.__name__, *paths],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != engines.READY:
            raise CannotRun(f"the scripted workers ended with status {process.wait()}")
        settings = {
            "launcher.kind": "static",
            "launcher.addresses": ",".join(f"unix:{path}" for path in paths),
            "model.served_name": engines.MODEL,
            "placement.boundary": "off",
        }
        yield settings, process.pid
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
