"""``python -m tests.chaos --faults 30 --requests 200``: real engines under faults, real readers.

One gateway with its workers, in this process; each link runs through a proxy that can cut it or
slow it down. Every question is first asked without faults; then many readers ask them again while
workers are killed, stopped, cut off and slowed down at random. Prints one JSON object and ends with
status 1 unless every reader got the same text, whole, and nothing was left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from aiohttp import web
from websockets.asyncio.client import connect

from gateway import config as configuration
from gateway import logs, supervisor
from gateway.app import make_runner
from gateway.link import WorkerLink, open_link
from gateway.service import ResponseService
from gateway.store import ResponseStore
from gateway.supervisor import LocalSupervisor

# A pause is shorter than the heartbeat timeout, a stop longer: its process is killed.
FAULTS = ("kill", "pause", "cut", "slow", "stop")
SLOW_S = 0.3  # delay of every piece of data on a slowed link
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
PATIENCE_S = 600.0  # guards against a hang

Texts: TypeAlias = dict[int, dict[str, str]]  # by question and kind

SETTINGS = {
    "model.dtype": "float32",  # so that the text does not depend on what else is in the batch
    "workers.kv_cache_gib": "0.1",
    "workers.restart_backoff_s": "0.1",
    "workers.restart_backoff_max_s": "0.5",
    "cluster.failover_timeout_s": "300",
    "cluster.max_restarts": "100",  # a request may be unlucky in all of them
    "limits.max_requests": "1000",
    "server.log_level": "error",
}


@dataclass(slots=True)
class Tally:
    """What was seen."""

    requests: int = 0
    done: int = 0
    refused: int = 0  # before they began, and asked again
    wrong: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    hit: int = 0  # requests on the instances when a fault came
    failovers: int = 0
    most_failovers: int = 0
    migrations: Counter[str] = field(default_factory=Counter)  # by outcome; with faults and without
    longest_pause_s: float = 0.0  # between two events of one stream
    leaked_blocks: int = -1
    orphans: int = -1
    wall_s: float = 0.0


# ---- links that can be broken -----------------------------------------------------------------


class Proxy:
    """Stands between the gateway and one worker's socket."""

    def __init__(self, path: str) -> None:
        self.delay_s = 0.0
        self.path = path + ".proxy"
        self._target = path
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    def cut(self) -> None:
        """Drop what is open, without a goodbye."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.close()  # the worker does not listen yet
            return
        ends = {writer, back}
        self._writers |= ends
        with suppress(OSError):
            await asyncio.wait(
                [
                    asyncio.create_task(self._pipe(reader, back)),
                    asyncio.create_task(self._pipe(there, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        self._writers -= ends
        for end in ends:
            end.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()


class Proxies:
    """One per worker; dialled in the place of the worker."""

    def __init__(self) -> None:
        self.of: dict[str, Proxy] = {}  # by instance

    async def open_link(self, address: str, token: str | None) -> WorkerLink:
        path = address.removeprefix("unix:")
        name = Path(path).stem
        if name not in self.of:
            self.of[name] = Proxy(path)
            await self.of[name].start()
        return await open_link(f"unix:{self.of[name].path}", token)


# ---- a gateway --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage:
    """The gateway under test."""

    service: ResponseService
    url: str
    proxies: Proxies
    socket_dir: Path


@asynccontextmanager
async def gateway(workers: int, settings: dict[str, str]) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        state = Path(folder)
        flags = SETTINGS | settings | {"workers.count": str(workers), "server.state_dir": folder}
        config = configuration.load(environment={}, flags=flags)
        store = ResponseStore(config.store_path)
        await store.open()
        service = ResponseService(config, store)
        runner = make_runner(service)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        proxies = Proxies()
        supervisor.open_link = proxies.open_link  # type: ignore[attr-defined]
        watching = asyncio.create_task(LocalSupervisor(config, service.cluster, state).run())
        try:
            ready = asyncio.create_task(service.cluster.wait_for_instances(workers))
            await asyncio.wait([ready, watching], return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            yield Stage(service, f"ws://127.0.0.1:{port}/v1/responses", proxies, state)
        finally:
            service.fail_all()
            watching.cancel()
            await asyncio.wait([watching])
            await runner.cleanup()
            await service.close()
            await store.close()


# ---- readers ----------------------------------------------------------------------------------


def question(index: int) -> dict[str, Any]:
    """Most think and answer for long; some as long as they like."""
    body: dict[str, Any] = {
        "input": f"What is {137 + 41 * index} + {259 + 17 * index}?",
        "temperature": 0,
        "store": False,
        "pacing": {"tpot_s": 0.01} if index % 2 else False,
    }
    if index % 5:
        lengths = {"reasoning_tokens": 40 + 9 * index, "answer_tokens": 60 + 7 * index}
        body["forced_lengths"] = lengths
    return body


async def ask(url: str, index: int, tally: Tally) -> dict[str, str]:
    """Ask until somebody is there to answer: a new request is refused while no worker is."""
    while (texts := await read(url, index, tally)) is None:
        tally.refused += 1
        await asyncio.sleep(1.0)
    return texts


async def read(url: str, index: int, tally: Tally) -> dict[str, str] | None:
    """Read to the end, and check what was read; the texts by kind, None for a refusal."""
    texts = {"reasoning": "", "output": ""}
    last_s = 0.0
    expected = 0
    async with connect(url, compression=None, max_queue=None, ping_interval=None) as socket:
        await socket.send(json.dumps({"type": "response.create", **question(index)}))
        while True:
            event = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S))
            now = time.monotonic()
            if last_s:
                tally.longest_pause_s = max(tally.longest_pause_s, now - last_s)
            last_s = now
            if (
                event["type"] == "error"
                and event["error"]["code"] == "no_instance"
                and not expected
            ):
                return None
            if event["type"] == "error":
                tally.wrong.append(f"refused: {event['error']}")
                return texts
            if event["sequence_number"] != expected:
                tally.wrong.append(f"event {event['sequence_number']} instead of {expected}")
            expected = event["sequence_number"] + 1
            if event["type"].endswith("_text.delta"):
                texts[event["type"].split(".")[1].removesuffix("_text")] += event["delta"]
            if event["type"] in TERMINAL:
                break
    response = event["response"]
    found = {item["type"]: item["content"][0]["text"] for item in response["output"]}
    whole = {"reasoning": found.get("reasoning", ""), "output": found.get("message", "")}
    if whole != texts:
        tally.wrong.append("the deltas do not join to the final text")
    if response["status"] == "failed":
        tally.wrong.append(f"failed: {response['error']}")
    tally.failovers += response["failovers"]
    tally.most_failovers = max(tally.most_failovers, response["failovers"])
    return texts


async def ask_all(
    url: str, numbers: Iterable[int], at_once: int, tally: Tally, expected: Texts
) -> None:
    """Every reader compares with what was read first."""
    coming = iter(numbers)

    async def reader() -> None:
        for index in coming:
            texts = await ask(url, index, tally)
            if texts != expected.setdefault(index, texts):
                tally.wrong.append(f"question {index}: another text")
            tally.done += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(reader())


# ---- faults -----------------------------------------------------------------------------------


async def disturb(stage: Stage, args: argparse.Namespace, tally: Tally) -> None:
    """Spread over the run: each fault when its share of the requests is done."""
    chance = random.Random(args.seed)
    kinds = [FAULTS[number % len(FAULTS)] for number in range(args.faults)]
    chance.shuffle(kinds)
    lasting: set[asyncio.Task[None]] = set()
    instances = stage.service.cluster.instances
    for number, kind in enumerate(kinds):
        due = args.requests * number // (args.faults + 1)
        await poll(lambda due=due: tally.done >= due)  # type: ignore[misc]
        await poll(lambda: any(instance.routes for instance in instances.values()))
        busy = sorted(name for name, instance in instances.items() if instance.routes)
        name = chance.choice(busy)
        tally.faults[kind] += 1
        tally.hit += len(instances[name].routes)
        pid = instances[name].welcome.pid
        proxy = stage.proxies.of[name]
        if kind == "kill":
            os.kill(pid, signal.SIGKILL)
        elif kind == "cut":
            proxy.cut()
        elif kind in ("pause", "stop"):
            seconds = args.heartbeat_timeout / 2 if kind == "pause" else args.stop
            lasting.add(asyncio.create_task(stop(pid, seconds)))
        else:
            lasting.add(asyncio.create_task(slow(proxy, 3.0)))
    await asyncio.gather(*lasting)


async def stop(pid: int, seconds: float) -> None:
    """A process that hangs; the gateway may kill it meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(pid, signal.SIGCONT)


async def slow(proxy: Proxy, seconds: float) -> None:
    proxy.delay_s = SLOW_S
    await asyncio.sleep(seconds)
    proxy.delay_s = 0.0


async def poll(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


# ---- the run ----------------------------------------------------------------------------------


def processes_of(folder: Path) -> list[int]:
    """Processes that were started with this folder in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


async def run(args: argparse.Namespace) -> Tally:
    tally = Tally(requests=args.requests)
    settings = dict(pair.split("=", 1) for pair in args.set)
    settings["workers.heartbeat_timeout_s"] = str(args.heartbeat_timeout)
    began_s = time.monotonic()
    async with gateway(args.workers, settings) as stage:
        expected: Texts = {}
        await ask_all(stage.url, range(args.questions), args.at_once, tally, expected)
        tally.done = 0
        tally.longest_pause_s = 0.0
        numbers = (number % args.questions for number in range(args.requests))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask_all(stage.url, numbers, args.at_once, tally, expected))
            tasks.create_task(disturb(stage, args, tally))
        cluster = stage.service.cluster
        await poll(lambda: len(cluster.instances) == args.workers)
        # The statistics of the last step may still be on their way: a heartbeat brings them.
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                await poll(lambda: not used_blocks(stage))
        tally.leaked_blocks = used_blocks(stage)
        if cluster.router.routes or any(i.routes for i in cluster.instances.values()):
            tally.wrong.append(f"left behind: {cluster.router.routes}")
        tally.migrations = cluster.router.migrations
        folder = stage.socket_dir
    tally.orphans = len(processes_of(folder))
    tally.wall_s = round(time.monotonic() - began_s, 1)
    return tally


def used_blocks(stage: Stage) -> int:
    """Over all instances; unknown counts as used."""
    known = [instance.stats for instance in stage.service.cluster.instances.values()]
    return sum(1 if stats is None else stats.kv_blocks_used for stats in known)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--questions", type=int, default=20, help="different ones")
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--heartbeat-timeout", type=float, default=5.0)
    parser.add_argument("--stop", type=float, default=10.0, help="seconds of a stop")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    args = parser.parse_args()
    logs.configure(dict(pair.split("=", 1) for pair in args.set).get("server.log_level", "error"))
    tally = asyncio.run(run(args))
    found = {name: getattr(tally, name) for name in Tally.__slots__}
    print(json.dumps(found))
    sound = not tally.wrong and not tally.leaked_blocks and not tally.orphans
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
