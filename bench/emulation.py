"""Do emulated instances keep real time? Starts them behind the real gateway, loads them, measures.

The question: how much of the time in which an emulated device had work did it compute? Below 1 the
engine, its worker process or the machine was too slow for the modelled device, and every other
figure of the run is worse than that device would have shown.

The load is a closed loop: so many requests on each instance, each followed by a new one. Their
lengths vary little, so that placement, which looks at KV memory, spreads them about evenly. Their
readers take tokens as fast as they come (a paced reader outlives its request in the engine), either
as streams over WebSocket or, with ``--unread``, as a whole at the end, which spares the gateway and
the clients most of their work.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.table import Table

from bench.load.record import ResponseRecord
from bench.load.transport.interface import ServerError
from bench.load.transport.server_info import get_json, served_model
from bench.load.transport.websocket import Connection

_STREAMS_PER_CONNECTION = 40
_REASONING = (800, 1100)  # tokens, uniform; means as of Arena-Hard
_ANSWER = (700, 950)
_RAMP_TIMEOUT_S = 120.0
_SAMPLE_S = 1.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run."""

    profile: str = "h100-qwen32b"
    workers: int = 8
    running: int = 40  # requests on each instance
    seconds: float = 60.0
    unread: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class InstanceFigures:
    """One instance during the measurement."""

    instance_id: str
    running: float  # mean
    busy: float  # modelled time that passed on the device, as a share of the measurement's
    starved: float  # share in which it stood idle although it had work, by its own account
    steps_per_s: float
    late_s: float  # mean, from a step's end until the engine took its tokens


@dataclass(frozen=True, slots=True)
class Figures:
    """The measurement. Cores are processor seconds per second."""

    instances: tuple[InstanceFigures, ...]
    seconds: float
    ready_s: float  # from the start of the server until all instances were there
    gateway_cores: float
    worker_cores: float  # of all workers
    client_cores: float  # of this process

    @property
    def least_busy(self) -> float:
        """The worst instance's."""
        return min(instance.busy for instance in self.instances)


async def measure(options: Options) -> Figures:
    """Start, load, measure, take down.

    :raises ServerError: if the server does not come up, or breaks under the load.
    """
    with _server(options) as (base_url, process):
        began_s = time.monotonic()
        await _until_instances(base_url, options.workers, process)
        ready_s = time.monotonic() - began_s
        model = (await asyncio.to_thread(served_model, base_url, None)).model
        try:
            async with _load(options, base_url, model):
                await _until_loaded(base_url, options)
                return await _window(base_url, process.pid, options, ready_s)
        except* ServerError as group:
            failed = ServerError(str(group.exceptions[0]))
        raise failed  # in here, so that the gateway's last words are added


@contextlib.contextmanager
def _server(options: Options) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    requests = 2 * options.workers * options.running
    with tempfile.TemporaryDirectory(prefix="pascal-emulation-") as state_dir:
        log = Path(state_dir) / "gateway.log"
        settings = {
            "server.state_dir": state_dir,
            "server.shutdown_timeout_s": 0,
            "limits.max_requests": requests,
            "limits.max_readers": requests,
            "workers.max_num_seqs": max(64, 2 * options.running),
            "session.ttl_s": 1,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pascal", "serve", "--port", str(port)),
                    *("--emulate", options.profile, "--workers", str(options.workers)),
                    *(f"--set={key}={value}" for key, value in settings.items()),
                ],
                stdout=output,
                stderr=output,
                start_new_session=True,  # the system shares the processor between sessions
            )
        try:
            yield f"http://127.0.0.1:{port}", process
        except ServerError as error:
            lines = log.read_text(errors="replace").splitlines() or ["(it printed nothing)"]
            raise ServerError(f"{error}; the gateway's last line: {lines[-1][:300]}") from error
        finally:
            process.terminate()
            process.wait()


async def _until_instances(base_url: str, count: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        if process.poll() is not None:
            raise ServerError(f"the server ended with {process.returncode}")
        with contextlib.suppress(ServerError):  # not yet
            ready = await asyncio.to_thread(get_json, base_url, "/ready", None)
            if len(ready["instances"]) == count:
                return
        await asyncio.sleep(0.5)


# ---- load


@contextlib.asynccontextmanager
async def _load(options: Options, base_url: str, model: str) -> AsyncIterator[None]:
    rng = random.Random(options.seed)
    readers = _unread if options.unread else _streamed
    async with asyncio.TaskGroup() as tasks:
        count = options.workers * options.running
        running = [
            tasks.create_task(
                readers(base_url, model, [_bodies(model, rng) for _ in range(streams)])
            )
            for streams in _split(count, _STREAMS_PER_CONNECTION)
        ]
        yield
        for task in running:
            task.cancel()


def _split(count: int, size: int) -> list[int]:
    return [min(size, count - at) for at in range(0, count, size)]


def _bodies(model: str, rng: random.Random) -> Iterator[dict[str, object]]:
    """The requests of one client, one after the other; the first is under way already."""
    done = rng.random()
    while True:
        lengths = {
            "reasoning_tokens": max(1, round(rng.uniform(*_REASONING) * (1 - done))),
            "answer_tokens": max(1, round(rng.uniform(*_ANSWER) * (1 - done))),
        }
        done = 0.0
        text = f"Request {rng.getrandbits(64):x}."  # no prompt is another's prefix
        yield {"model": model, "input": text, "pacing": False, "store": False} | {
            "forced_lengths": lengths
        }


async def _streamed(
    base_url: str, model: str, clients: Sequence[Iterator[dict[str, object]]]
) -> None:
    connection = await Connection.open("ws" + base_url.removeprefix("http") + "/v1/responses")

    async def client(number: int, bodies: Iterator[dict[str, object]]) -> None:
        for turn, body in enumerate(bodies):
            record = ResponseRecord(None)
            stream = await connection.create(f"{number}-{turn}", body, record)
            await stream.wait()
            if record.outcome != "completed":
                raise ServerError(f"a response {record.outcome}: {record.failure}")

    try:
        async with asyncio.TaskGroup() as tasks:
            for number, bodies in enumerate(clients):
                tasks.create_task(client(number, bodies))
    finally:
        await connection.close()


async def _unread(
    base_url: str, model: str, clients: Sequence[Iterator[dict[str, object]]]
) -> None:
    async def client(session: aiohttp.ClientSession, bodies: Iterator[dict[str, object]]) -> None:
        for body in bodies:
            async with session.post("/v1/responses", json=body) as answer:
                if answer.status != 200:
                    raise ServerError(f"a response failed: {await answer.text()}")
                await answer.read()

    async with (
        aiohttp.ClientSession(
            base_url,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
        ) as session,
        asyncio.TaskGroup() as tasks,
    ):
        for bodies in clients:
            tasks.create_task(client(session, bodies))


# ---- figures


@dataclass(slots=True)
class _Counters:
    """Of one instance, from ``/metrics``."""

    running: float = 0.0
    steps: float = 0.0
    passed_s: float = 0.0
    busy_s: float = 0.0
    starved_s: float = 0.0
    stalled_s: float = 0.0
    late_s: float = 0.0


_SAMPLE = re.compile(r'^(\w+)\{instance="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE)
_FIELDS = {
    "pascal_requests_running": "running",  # one sample a phase
    "pascal_emulated_steps_total": "steps",
    "pascal_emulated_seconds_total": "passed_s",
    "pascal_emulated_busy_seconds_total": "busy_s",
    "pascal_emulated_starved_seconds_total": "starved_s",
    "pascal_emulated_stalled_seconds_total": "stalled_s",
    "pascal_emulated_late_seconds_total": "late_s",
}


def parse_counters(text: str) -> dict[str, _Counters]:
    """By instance. :param text: Prometheus text format, as the gateway writes it."""
    found: dict[str, _Counters] = defaultdict(_Counters)
    for name, instance_id, value in _SAMPLE.findall(text):
        if (field := _FIELDS.get(name)) is not None:
            counters = found[instance_id]
            setattr(counters, field, getattr(counters, field) + float(value))
    return dict(found)


async def _counters(base_url: str) -> dict[str, _Counters]:
    def fetch() -> str:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{base_url}/metrics", timeout=10) as response:
            return str(response.read(), "utf-8")

    try:
        return parse_counters(await asyncio.to_thread(fetch))
    except OSError as error:
        raise ServerError(f"{base_url}/metrics: {error}") from error


async def _until_loaded(base_url: str, options: Options) -> None:
    """Until the instances together run what they should, or no more will come."""
    deadline_s = time.monotonic() + _RAMP_TIMEOUT_S
    wanted = 0.97 * options.workers * options.running
    while time.monotonic() < deadline_s:
        if sum(c.running for c in (await _counters(base_url)).values()) >= wanted:
            return
        await asyncio.sleep(_SAMPLE_S)
    raise ServerError(f"the instances did not run {wanted:.0f} requests within the ramp")


async def _window(base_url: str, pid: int, options: Options, ready_s: float) -> Figures:
    before, processor_before = await _counters(base_url), _processor_s(pid)
    began_s = time.monotonic()
    running: dict[str, list[float]] = defaultdict(list)
    while time.monotonic() - began_s < options.seconds:
        await asyncio.sleep(_SAMPLE_S)
        for instance_id, counters in (await _counters(base_url)).items():
            running[instance_id].append(counters.running)
    after, processor_after = await _counters(base_url), _processor_s(pid)
    seconds = time.monotonic() - began_s
    instances = []
    for instance_id, then in before.items():
        now = after[instance_id]
        passed_s = now.passed_s - then.passed_s  # by the worker's clock: its figures come late
        modelled_s = now.busy_s + now.stalled_s - then.busy_s - then.stalled_s
        steps = now.steps - then.steps
        instances.append(
            InstanceFigures(
                instance_id=instance_id,
                running=sum(running[instance_id]) / len(running[instance_id]),
                busy=modelled_s / passed_s,
                starved=(now.starved_s - then.starved_s) / passed_s,
                steps_per_s=steps / passed_s,
                late_s=(now.late_s - then.late_s) / max(1.0, steps),
            )
        )
    gateway, workers, client = (
        (new - old) / seconds for new, old in zip(processor_after, processor_before, strict=True)
    )
    return Figures(tuple(instances), seconds, ready_s, gateway, workers, client)


def _processor_s(gateway_pid: int) -> tuple[float, float, float]:
    """Processor time so far: of the gateway, its children and this process."""

    def fields(pid: str) -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()

    def seconds(values: list[str]) -> float:
        return (int(values[11]) + int(values[12])) / _TICKS_PER_S

    workers_s = 0.0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if int((values := fields(path.name))[1]) == gateway_pid:
                workers_s += seconds(values)
    own = os.times()
    return seconds(fields(str(gateway_pid))), workers_s, own.user + own.system


# ---- command line


def print_figures(figures: Figures, console: Console) -> None:
    """A table, and who used the processor."""
    table = Table("instance", "running", "busy", "starved", "steps/s", "late, ms")
    for instance in figures.instances:
        table.add_row(
            instance.instance_id,
            f"{instance.running:.1f}",
            f"{instance.busy:.3f}",
            f"{instance.starved:.3f}",
            f"{instance.steps_per_s:.1f}",
            f"{1e3 * instance.late_s:.1f}",
        )
    console.print(table)
    console.print(
        f"{figures.seconds:.0f} s; least busy {figures.least_busy:.3f}; ready after "
        f"{figures.ready_s:.0f} s; cores used: workers {figures.worker_cores:.2f}, gateway "
        f"{figures.gateway_cores:.2f}, clients {figures.client_cores:.2f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m bench.emulation``; 1 if an instance was busy for less than ``--at-least``."""
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="python -m bench.emulation", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--emulate", default=defaults.profile, metavar="PROFILE")
    parser.add_argument("--workers", type=int, default=defaults.workers)
    parser.add_argument("--running", type=int, default=defaults.running, help="on each instance")
    parser.add_argument("--seconds", type=float, default=defaults.seconds)
    parser.add_argument("--unread", action="store_true", help="answers as a whole, no streams")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--at-least", type=float, default=0.95, help="least busy share")
    args = parser.parse_args(argv)
    options = Options(
        profile=args.emulate,
        workers=args.workers,
        running=args.running,
        seconds=args.seconds,
        unread=args.unread,
        seed=args.seed,
    )
    try:
        figures = asyncio.run(measure(options))
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_figures(figures, Console())
    return 0 if figures.least_busy >= args.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
