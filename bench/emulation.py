"""Checks that emulated instances run in real time, behind the real gateway and under load.

The main result is the share of its time in which an emulated device computed. Below 1, the engine,
its worker process or the machine was too slow for the modelled device. Then every other result is
worse than that of the device would be.

The load is a closed loop: a fixed number of requests on each instance, and a new one for each that
ends. Their lengths vary little, so that placement, which looks at KV memory, spreads them about
evenly. Their readers take tokens as fast as they arrive, because a paced reader outlives its
request in the engine. Answers are streams over WebSocket. With ``--unread`` each arrives as a whole
at its end, which spares the gateway and the clients most of their work.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import socket
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.table import Table

from bench.load.record import ResponseRecord
from bench.load.transport.interface import ServerError, Transport
from bench.load.transport.pool import WebSockets
from bench.load.transport.server_info import get_json, served_model
from bench.load.transport.whole import WholeResponses
from bench.policies.engine_process import ServerProcess
from bench.reporting.console import FAILED, OK, give_up
from bench.reporting.errors import BenchmarkError

_STREAMS_PER_CONNECTION = 40
_REASONING = (800, 1100)  # tokens, uniform; means as in Arena-Hard
_ANSWER = (700, 950)
_RAMP_TIMEOUT_S = 120.0
_REQUEST_S = 3600.0  # guards against a hang
_SAMPLE_S = 1.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Extent of a measurement."""

    profile: str = "h100-qwen32b"
    workers: int = 8
    running: int = 40  # requests on each instance
    seconds: float = 60.0
    unread: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class InstanceResult:
    """One instance during the measurement."""

    instance_id: str
    running: float  # requests, mean
    busy: float  # modelled time that passed on the device, as a share of real time
    idle_with_work: float  # share in which it was idle although it had work, as it reports itself
    steps_per_s: float
    late_s: float  # mean, from a step's end until the engine took its tokens


@dataclass(frozen=True, slots=True)
class Results:
    """Results of a measurement. Cores are processor seconds per second."""

    instances: tuple[InstanceResult, ...]
    seconds: float
    ready_s: float  # from the start of the server until all instances were ready
    gateway_cores: float
    worker_cores: float  # of all workers
    client_cores: float  # of this process

    @property
    def least_busy(self) -> float:
        """`busy` of the slowest instance."""
        return min(instance.busy for instance in self.instances)


async def measure(options: Options) -> Results:
    """Start the server, load it, measure, and stop it.

    :raises ServerError: if the server breaks under the load.
    :raises ProcessFailed: if the server ends.
    """
    with _Server(options) as server:
        began_s = time.monotonic()
        await _until_instances(server, options.workers)
        ready_s = time.monotonic() - began_s
        model = (await asyncio.to_thread(served_model, server.url, None)).model
        try:
            async with _load(options, server.url, model):
                await _until_loaded(server.url, options)
                return await _window(server.url, server.pid, options, ready_s)
        except* ServerError as group:
            reason = str(group.exceptions[0])
        raise server.failed(reason)


class _Server(ServerProcess):
    """``pascal serve`` with emulated instances."""

    def __init__(self, options: Options) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._state_dir = tempfile.TemporaryDirectory(prefix="pascal-emulation-")
        requests = 2 * options.workers * options.running
        settings = {
            "server.state_dir": self._state_dir.name,
            "server.shutdown_timeout_s": 0,
            "limits.max_requests": requests,
            "limits.max_readers": requests,
            "limits.load": 0,
            "workers.max_num_seqs": max(64, 2 * options.running),
            "session.ttl_s": 1,
        }
        command = [
            *("-m", "pascal", "serve", "--port", str(port)),
            *("--emulate", options.profile, "--workers", str(options.workers)),
            *(f"--set={key}={value}" for key, value in settings.items()),
        ]
        super().__init__("the gateway", command)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        super().__exit__(kind, error, traceback)
        self._state_dir.cleanup()


async def _until_instances(server: _Server, count: int) -> None:
    while True:
        server.check()
        with contextlib.suppress(ServerError):  # not yet
            ready = await asyncio.to_thread(get_json, server.url, "/ready", None)
            if len(ready["instances"]) == count:
                return
        await asyncio.sleep(0.5)


# ---- load


@contextlib.asynccontextmanager
async def _load(options: Options, base_url: str, model: str) -> AsyncIterator[None]:
    rng = random.Random(options.seed)
    count = options.workers * options.running
    transport: Transport
    if options.unread:
        transport = WholeResponses(base_url)
    else:
        sockets = -(-count // _STREAMS_PER_CONNECTION)
        url = "ws" + base_url.removeprefix("http") + "/v1/responses"
        transport = WebSockets(url, api_key=None, limit=sockets)
    try:
        await transport.open()
        async with asyncio.TaskGroup() as tasks:
            clients = [
                tasks.create_task(_client(transport, number, _bodies(model, rng)))
                for number in range(count)
            ]
            yield
            for task in clients:
                task.cancel()
    finally:
        await transport.close()


async def _client(transport: Transport, number: int, bodies: Iterator[dict[str, object]]) -> None:
    """One request after another; :raises ServerError: when one of them fails."""
    for turn, body in enumerate(bodies):
        record = ResponseRecord()
        await transport.exchange(f"{number}-{turn}", body, record, _REQUEST_S)
        if record.outcome != "completed":
            raise ServerError(f"a response {record.outcome}: {record.failure}")


def _bodies(model: str, rng: random.Random) -> Iterator[dict[str, object]]:
    """The requests of one client, one after the other; the first is already under way."""
    done = rng.random()
    while True:
        lengths = {
            "reasoning_tokens": max(1, round(rng.uniform(*_REASONING) * (1 - done))),
            "answer_tokens": max(1, round(rng.uniform(*_ANSWER) * (1 - done))),
        }
        done = 0.0
        text = f"Request {rng.getrandbits(64):x}."  # no prompt is a prefix of another
        yield {"model": model, "input": text, "pacing": False, "store": False} | {
            "forced_lengths": lengths
        }


# ---- results


@dataclass(slots=True)
class _Counters:
    """Counters of one instance from ``/metrics``."""

    running: float = 0.0
    steps: float = 0.0
    passed_s: float = 0.0
    busy_s: float = 0.0
    starved_s: float = 0.0
    stalled_s: float = 0.0
    late_s: float = 0.0


_SAMPLE = re.compile(r'^(\w+)\{instance="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE)
_FIELDS = {
    "pascal_requests_running": "running",  # one sample per phase
    "pascal_emulated_steps_total": "steps",
    "pascal_emulated_seconds_total": "passed_s",
    "pascal_emulated_busy_seconds_total": "busy_s",
    "pascal_emulated_starved_seconds_total": "starved_s",
    "pascal_emulated_stalled_seconds_total": "stalled_s",
    "pascal_emulated_late_seconds_total": "late_s",
}


def parse_counters(text: str) -> dict[str, _Counters]:
    """Counters by instance; :param text: of ``/metrics``, in Prometheus text format."""
    by_instance: dict[str, _Counters] = defaultdict(_Counters)
    for name, instance_id, value in _SAMPLE.findall(text):
        if (field := _FIELDS.get(name)) is not None:
            counters = by_instance[instance_id]
            setattr(counters, field, getattr(counters, field) + float(value))
    return dict(by_instance)


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
    """Wait until the instances together run nearly all requests."""
    deadline_s = time.monotonic() + _RAMP_TIMEOUT_S
    wanted = 0.97 * options.workers * options.running
    while time.monotonic() < deadline_s:
        if sum(c.running for c in (await _counters(base_url)).values()) >= wanted:
            return
        await asyncio.sleep(_SAMPLE_S)
    raise ServerError(f"the instances did not run {wanted:.0f} requests within the ramp")


async def _window(base_url: str, pid: int, options: Options, ready_s: float) -> Results:
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
        passed_s = (
            now.passed_s - then.passed_s
        )  # by the worker's clock, because its counters arrive late
        modelled_s = now.busy_s + now.stalled_s - then.busy_s - then.stalled_s
        steps = now.steps - then.steps
        instances.append(
            InstanceResult(
                instance_id=instance_id,
                running=sum(running[instance_id]) / len(running[instance_id]),
                busy=modelled_s / passed_s,
                idle_with_work=(now.starved_s - then.starved_s) / passed_s,
                steps_per_s=steps / passed_s,
                late_s=(now.late_s - then.late_s) / max(1.0, steps),
            )
        )
    gateway, workers, client = (
        (new - old) / seconds for new, old in zip(processor_after, processor_before, strict=True)
    )
    return Results(tuple(instances), seconds, ready_s, gateway, workers, client)


def _processor_s(gateway_pid: int) -> tuple[float, float, float]:
    """Processor time so far of the gateway, of its children, and of this process, in seconds."""

    def fields(pid: str) -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()

    def seconds(values: list[str]) -> float:
        return (int(values[11]) + int(values[12])) / _TICKS_PER_S

    workers_s = 0.0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if int((values := fields(path.name))[1]) == gateway_pid:
                workers_s += seconds(values)
    times = os.times()
    return seconds(fields(str(gateway_pid))), workers_s, times.user + times.system


# ---- command line


def print_results(results: Results, console: Console) -> None:
    """Print a table of the instances, and the use of the processor."""
    table = Table("instance", "running", "busy", "idle with work", "steps/s", "late, ms")
    for instance in results.instances:
        table.add_row(
            instance.instance_id,
            f"{instance.running:.1f}",
            f"{instance.busy:.3f}",
            f"{instance.idle_with_work:.3f}",
            f"{instance.steps_per_s:.1f}",
            f"{1e3 * instance.late_s:.1f}",
        )
    console.print(table)
    console.print(
        f"{results.seconds:.0f} s; least busy {results.least_busy:.3f}; ready after "
        f"{results.ready_s:.0f} s; cores used: workers {results.worker_cores:.2f}, gateway "
        f"{results.gateway_cores:.2f}, clients {results.client_cores:.2f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m bench.emulation``; :return: 1 if an instance was too idle."""
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="python -m bench.emulation", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--emulate", default=defaults.profile, metavar="PROFILE")
    parser.add_argument("--workers", type=int, default=defaults.workers)
    parser.add_argument(
        "--running", type=int, default=defaults.running, help="requests on each instance"
    )
    parser.add_argument("--seconds", type=float, default=defaults.seconds)
    parser.add_argument(
        "--unread", action="store_true", help="take answers as a whole, not as streams"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument(
        "--at-least", type=float, default=0.95, help="smallest busy share that passes"
    )
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
        results = asyncio.run(measure(options))
    except (ServerError, BenchmarkError) as error:
        return give_up(FAILED, f"error: {error}", "bench.emulation")
    print_results(results, Console())
    return OK if results.least_busy >= args.at_least else FAILED


if __name__ == "__main__":
    sys.exit(main())
