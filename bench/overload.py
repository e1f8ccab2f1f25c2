"""``pascal bench overload``: what admission does when more comes than the engines can generate.

The real gateway serves emulated instances of little memory. Requests come as an open loop, each
with a prompt of its own, at 0.9 and at 3 times the capacity, and at 3 times without admission by
load (``limits.load=0``). A refused client waits as long as ``Retry-After`` says, and sends the same
request again, until it is out of patience. Some clients are *watchers*: they ask again every
second, and take room that becomes free before their time. Of what they are told, the first time
counts.

A ``Retry-After`` is right if the client was admitted after more than half and less than twice the
time, or at most one second earlier or later, because it is in whole seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from rich.console import Console
from rich.table import Table

from bench.emulation import parse_counters
from bench.load.record import decode
from bench.load.transport.interface import ServerError
from bench.load.transport.server_info import get_json
from bench.policies.engine_process import ROOT, ServerProcess
from bench.reporting.console import FAILED, OK, REFUSED, give_up, interrupted, wide_console
from bench.reporting.errors import BenchmarkError
from bench.reporting.outputs import prepare_json, write_json
from bench.reporting.statistics import SLO_QOE, percentile
from workers.emulation.profile import load_profile

_PROFILE: Final = "h100-qwen32b"
_KV_TOKENS: Final = 6000  # of one instance; the profile has 90,000
_BATCH: Final = 128  # most requests of one instance in a step
_REASONING: Final = (150, 250)  # tokens, uniform
_ANSWER: Final = (120, 200)
_PROMPT_TOKENS: Final = 30  # about, with the chat template
_TAU_S: Final = 0.1
_PATIENCE_S: Final = (20.0, 60.0)  # how long a client waits in all, uniform
_WATCHERS: Final = 0.1  # share of the clients
_WATCH_S: Final = 1.0
_TERMINAL: Final = re.compile(rb'data: \{"type":"response\.(?:completed|incomplete|failed)"')
_LONGEST_BEGIN: Final = 64  # bytes

_REFUSED_MS: Final = 50.0
_VIOLATIONS: Final = 0.01
_TOLD_RIGHT: Final = 0.99
_START_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Extent of a measurement."""

    instances: int = 2
    overload: float = 3.0  # times the capacity
    ramp_s: float = 30.0  # not measured
    seconds: float = 60.0  # measured
    seed: int = 0
    load: float | None = None  # `limits.load`; None: its default
    unlimited: bool = True  # also measure without it


@dataclass(slots=True)
class Client:
    """What one client saw. Times are in seconds of one clock."""

    watcher: bool
    patience_s: float
    came_s: float
    refusals: list[tuple[float, float, float]] = field(default_factory=list)  # at, told, latency
    admitted_s: float | None = None
    qoe: float | None = None  # as the gateway measured it
    ttft_s: float | None = None  # from its admission
    failure: str | None = None

    @property
    def violates(self) -> bool:
        """Whether its SLO is violated, although it was admitted."""
        return self.failure is not None or self.qoe is None or self.qoe < SLO_QOE


def capacity_rps(instances: int) -> float:
    """Requests per second that the instances can generate in time, from their step times.

    Memory is the bound: each request takes its KV while it reasons, and a share of it while it
    answers, so that its reader has each token in time.
    """
    step = load_profile(_PROFILE).step
    reasoning, answer = sum(_REASONING) / 2, sum(_ANSWER) / 2
    kv_tokens_steps = reasoning * (_PROMPT_TOKENS + reasoning / 2) + answer * (
        _PROMPT_TOKENS + reasoning + answer / 2
    )
    batch = _KV_TOKENS * (reasoning + answer) / kv_tokens_steps
    step_s = step.base_s + batch * step.per_request_s + _KV_TOKENS * step.per_kv_token_s
    return instances * _KV_TOKENS / (kv_tokens_steps * step_s)


# ---- the server


class _Server(ServerProcess):
    """``pascal serve`` with emulated instances of little memory."""

    def __init__(self, options: Options, load: float | None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._folder = tempfile.TemporaryDirectory(prefix="pascal-overload-")
        profile = Path(self._folder.name) / "small.toml"
        shipped = ROOT / "workers" / "emulation" / "profiles" / f"{_PROFILE}.toml"
        text = shipped.read_text(encoding="utf-8")
        profile.write_text(
            re.sub(r"(?m)^tokens = \S+", f"tokens = {_KV_TOKENS}", text), encoding="utf-8"
        )
        settings: dict[str, object] = {
            "server.state_dir": self._folder.name,
            "server.shutdown_timeout_s": 0,
            "server.log_level": "warning",
            "limits.max_requests": 100_000,
            "limits.max_readers": 100_000,
            "workers.max_num_seqs": _BATCH,
            "session.ttl_s": 1,
        }
        if load is not None:
            settings["limits.load"] = load
        command = [
            *("-m", "pascal", "serve", "--port", str(port)),
            *("--emulate", str(profile), "--workers", str(options.instances)),
            *(f"--set={key}={value}" for key, value in settings.items()),
        ]
        super().__init__("the gateway", command)

    def __exit__(self, *exception: Any) -> None:
        """End it."""
        super().__exit__(*exception)
        self._folder.cleanup()

    async def until_ready(self, instances: int) -> None:
        """Wait for all instances; :raises BenchmarkError: if they do not come."""
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            self.check()
            with contextlib.suppress(ServerError):
                ready = await asyncio.to_thread(get_json, self.url, "/ready", None)
                if len(ready["instances"]) == instances:
                    return
            await asyncio.sleep(0.5)
        raise self.failed("its instances did not come")


# ---- clients


async def _offer(
    url: str, rate: float, options: Options, rng: random.Random
) -> tuple[list[Client], float]:
    """Let clients come at random times; return what they saw, and when the first could come."""
    clients: list[Client] = []
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        asyncio.TaskGroup() as tasks,
    ):
        began_s = due_s = time.monotonic()
        end_s = began_s + options.ramp_s + options.seconds
        while (due_s := due_s + rng.expovariate(rate)) < end_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            patience_s = rng.uniform(*_PATIENCE_S)
            client = Client(rng.random() < _WATCHERS, patience_s, time.monotonic())
            clients.append(client)
            tasks.create_task(_ask(session, url, client, _body(rng)))
    return clients, began_s


def _body(rng: random.Random) -> dict[str, object]:
    return {
        "input": f"Request {rng.getrandbits(64):x}.",  # no prompt is a prefix of another
        "stream": True,
        "store": False,
        "pacing": {"tpot_s": _TAU_S},
        "forced_lengths": {
            "reasoning_tokens": rng.randint(*_REASONING),
            "answer_tokens": rng.randint(*_ANSWER),
        },
    }


async def _ask(
    session: aiohttp.ClientSession, url: str, client: Client, body: dict[str, object]
) -> None:
    """Ask until admitted or out of patience, then read the response to its end."""
    data = msgspec.json.encode(body)
    headers = {"Content-Type": "application/json"}
    try:
        while True:
            asked_s = time.monotonic()
            async with session.post(f"{url}/v1/responses", data=data, headers=headers) as answer:
                latency_s = time.monotonic() - asked_s
                if answer.status == 200:
                    client.admitted_s = asked_s
                    await _read(answer, client)
                    return
                if answer.status != 429:
                    client.failure = f"HTTP {answer.status}: {(await answer.read())[:200]!r}"
                    return
                told_s = float(answer.headers["Retry-After"])
            client.refusals.append((asked_s, told_s, latency_s))
            wait_s = min(told_s, _WATCH_S) if client.watcher else told_s
            if time.monotonic() + wait_s > client.came_s + client.patience_s:
                return
            await asyncio.sleep(asked_s + latency_s + wait_s - time.monotonic())
    except (aiohttp.ClientError, OSError) as error:
        client.failure = f"connection: {str(error) or type(error).__name__}"


async def _read(answer: aiohttp.ClientResponse, client: Client) -> None:
    """Read a stream; only its last event is looked at."""
    tail, begun = b"", False
    async for chunk in answer.content.iter_any():
        tail += chunk
        if not begun:
            found = _TERMINAL.search(tail)
            begun = found is not None
            tail = tail[found.start() :] if found else tail[-_LONGEST_BEGIN:]
    event = decode(tail.partition(b"\n")[0].removeprefix(b"data: ")) if begun else None
    if event is None or event.response is None:
        client.failure = "the stream has no end"
    elif event.type != "response.completed":
        client.failure = f"{event.type}: {event.response.error or event.response.status}"
    else:
        response = event.response
        client.qoe = response.qoe.qoe if response.qoe else None
        paced = response.timing.paced if response.timing else None
        client.ttft_s = paced.ttft_s if paced else None


# ---- results


def summary(clients: Iterable[Client], from_s: float, seconds: float) -> dict[str, Any]:
    """The results of one phase.

    :param from_s: clients who came earlier belong to the ramp. Their refusals do count.
    """
    everybody = list(clients)
    admitted = [
        client
        for client in everybody
        if client.admitted_s is not None and from_s <= client.admitted_s < from_s + seconds
    ]
    good = sum(not client.violates for client in admitted)
    refusals = [refusal for client in everybody for refusal in client.refusals]
    return {
        "clients": len(everybody),
        "admitted": len(admitted),
        "goodput_rps": good / seconds,
        "slo_violations": 1.0 - good / len(admitted) if admitted else None,
        "ttft_s": _quantiles(c.ttft_s for c in admitted if c.ttft_s is not None),
        "waited_s": _quantiles(c.admitted_s - c.came_s for c in admitted if c.admitted_s),
        "gave_up": sum(c.admitted_s is None and c.failure is None for c in everybody),
        "failures": sorted({c.failure for c in everybody if c.failure is not None})[:5],
        "refusals": len(refusals),
        "refusal_ms": _quantiles(1e3 * latency_s for _, _, latency_s in refusals),
        "retry_after": {
            "obedient": _told(c for c in everybody if not c.watcher),
            "watchers": _told(c for c in everybody if c.watcher),
        },
    }


def _told(clients: Iterable[Client]) -> dict[str, Any]:
    """How right ``Retry-After`` was, each time it was told to a client who was admitted."""
    pairs = [
        (told_s, client.admitted_s - at_s)
        for client in clients
        if client.admitted_s is not None
        for at_s, told_s, _ in client.refusals[: 1 if client.watcher else None]
    ]
    right = sum(is_right(*pair) for pair in pairs)
    in_time = sum(is_right(*pair) or pair[0] > pair[1] for pair in pairs)
    return {
        "told": len(pairs),
        "right": right / len(pairs) if pairs else None,
        "right_or_earlier": in_time / len(pairs) if pairs else None,
        "told_s": _quantiles(told_s for told_s, _ in pairs),
        "ratio": _quantiles(told_s / max(real_s, 1e-3) for told_s, real_s in pairs),
    }


def is_right(told_s: float, real_s: float) -> bool:
    """Whether it is within a factor of 2, or within the second that ``Retry-After`` counts in."""
    return (told_s <= 2 * real_s and real_s <= 2 * told_s) or abs(told_s - real_s) <= 1.0


def _quantiles(values: Iterable[float]) -> dict[str, float] | None:
    ordered = sorted(values)
    if not ordered:
        return None
    quantiles = {f"p{p}": percentile(ordered, p) for p in (5, 50, 95, 99)}
    return {**quantiles, "max": ordered[-1]}


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Run all phases.

    :raises BenchmarkError: if the server breaks.
    """
    capacity = capacity_rps(options.instances)
    results: dict[str, Any] = {"capacity_rps": capacity}
    servers = [(options.load, {"calm": 0.9, "overload": options.overload})]
    if options.unlimited:
        servers.append((0.0, {"unlimited": options.overload}))
    for load, phases in servers:
        with _Server(options, load) as server:
            with console.status("the instances start"):
                asyncio.run(server.until_ready(options.instances))
            for name, share in phases.items():
                with console.status(f"{name}: {share * capacity:.1f} requests/s"):
                    results[name] = asyncio.run(_phase(server, name, share * capacity, options))
    results["goodput_share"] = results["overload"]["goodput_rps"] / results["calm"]["goodput_rps"]
    return results


async def _phase(server: _Server, name: str, rate: float, options: Options) -> dict[str, Any]:
    before = await asyncio.to_thread(_metrics, server.url)
    rng = random.Random(f"{options.seed} {name}")
    clients, began_s = await _offer(server.url, rate, options, rng)
    server.check()
    after = await asyncio.to_thread(_metrics, server.url)
    result = summary(clients, began_s + options.ramp_s, options.seconds)
    passed_s = sum(c.passed_s for c in after.values()) - sum(c.passed_s for c in before.values())
    starved_s = sum(c.starved_s for c in after.values()) - sum(c.starved_s for c in before.values())
    return {"offered_rps": rate, **result, "starved": starved_s / passed_s}


def _metrics(url: str) -> Any:
    import urllib.request

    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{url}/metrics", timeout=30) as response:
        return parse_counters(str(response.read(), "utf-8"))


def verdicts(results: dict[str, Any]) -> dict[str, bool]:
    """Which goals the overload met."""
    overload = results["overload"]
    told = overload["retry_after"]
    obedient, watchers = told["obedient"]["right"], told["watchers"]["right_or_earlier"]
    return {
        "violations": (overload["slo_violations"] or 0.0) < _VIOLATIONS,
        "refused_at_once": overload["refusal_ms"] is None
        or overload["refusal_ms"]["max"] <= _REFUSED_MS,
        "retry_after": all(share is None or share >= _TOLD_RIGHT for share in (obedient, watchers)),
    }


def print_results(results: dict[str, Any], console: Console) -> None:
    """Print a table of the phases, and the goals that were missed."""
    phases = [name for name in ("calm", "overload", "unlimited") if name in results]
    table = Table("", *phases, title=f"Capacity {results['capacity_rps']:.2f} requests/s")
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "offered, requests/s": lambda p: f"{p['offered_rps']:.1f}",
        "goodput, responses/s": lambda p: f"{p['goodput_rps']:.2f}",
        "SLO violations, %": lambda p: _shown(p["slo_violations"], 100),
        "TTFT p50, s": lambda p: _shown(p["ttft_s"] and p["ttft_s"]["p50"]),
        "TTFT p99, s": lambda p: _shown(p["ttft_s"] and p["ttft_s"]["p99"]),
        "clients": lambda p: str(p["clients"]),
        "gave up": lambda p: str(p["gave_up"]),
        "refusals": lambda p: str(p["refusals"]),
        "refusal p99, ms": lambda p: _shown(p["refusal_ms"] and p["refusal_ms"]["p99"]),
        "refusal max, ms": lambda p: _shown(p["refusal_ms"] and p["refusal_ms"]["max"]),
        "Retry-After right, %": lambda p: _shown(p["retry_after"]["obedient"]["right"], 100),
        "watchers: right, %": lambda p: _shown(p["retry_after"]["watchers"]["right"], 100),
        "watchers: right or earlier, %": lambda p: _shown(
            p["retry_after"]["watchers"]["right_or_earlier"], 100
        ),
        "device starved, %": lambda p: _shown(p["starved"], 100),
    }
    for title, cell in rows.items():
        table.add_row(title, *(cell(results[name]) for name in phases))
    console.print(table)
    missed = [name for name, met in verdicts(results).items() if not met]
    console.print(f"missed: {', '.join(missed)}" if missed else "all goals are met")


def _shown(value: float | None, scale: float = 1.0) -> str:
    return "-" if value is None else f"{scale * value:.2f}"


# ---- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal bench overload``."""
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="shorter phases, none without limits.load (five minutes)",
    )
    add("--json", type=Path, metavar="FILE", help="write the results there")
    add("--load", type=float, metavar="SHARE", help="limits.load (default: that of the server)")


def run(args: argparse.Namespace) -> int:
    """Measure and print; :return: the exit status, 1 if a goal was missed."""
    try:
        prepare_json(args.json, keep=False)
    except BenchmarkError as error:
        return give_up(REFUSED, error)
    options = Options(
        load=args.load, seconds=30.0 if args.quick else 60.0, unlimited=not args.quick
    )
    console = wide_console()
    try:
        results = measure(options, console)
    except BenchmarkError as error:
        return give_up(FAILED, error)
    except KeyboardInterrupt:
        return interrupted()
    print_results(results, console)
    write_json(args.json, results)
    return OK if all(verdicts(results).values()) else FAILED
