"""``pascal bench conversations``: whether long conversations find their KV again.

The real gateway serves emulated instances. Conversations of 20 turns grow from 2,000 to 30,000
tokens, over each API in turn. It runs three times:

    affinity   with the default of ``placement.affinity``, or that of ``--affinity``
    blind      with ``placement.affinity=0``: each turn goes where the footprint is smallest
    one        one instance with the memory of all of them

The goals: the share of prompt tokens that ``affinity`` finds in the cache is at least 0.95 of what
``one`` finds; later turns wait for their first token at most 0.3 of the time that they wait with
``blind``; and no instance is busy for more than 1.1 times the mean. Each run has its own seed, and
the medians over runs are compared with the goals.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import socket
import statistics
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.table import Table

from bench.conversations.talk import APIS, Shape, Turn, TurnFailed, talk, text_of
from bench.emulation import parse_counters
from bench.load.transport.interface import ServerError
from bench.load.transport.server_info import get_json
from bench.policies.engine_process import ROOT, ServerProcess
from bench.reporting.console import FAILED, OK, REFUSED, give_up, interrupted, wide_console
from bench.reporting.errors import BenchmarkError
from bench.reporting.flag_types import count
from bench.reporting.outputs import prepare_json, write_json
from bench.reporting.statistics import percentile
from workers.emulation.profile import load_profile

PHASES: Final = ("affinity", "blind", "one")
_PROFILE: Final = "h100-qwen32b"
_START_S: Final = 600.0
_SAMPLE_CHARACTERS: Final = 20_000

_SHAPE: Final = Shape()

LEAST_FOUND: Final = 0.95
MOST_WAIT: Final = 0.3
MOST_BUSY: Final = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Extent of a measurement."""

    instances: int = 8
    conversations: int = 24
    shape: Shape = _SHAPE
    apart_s: float = 1.0  # mean time between the beginnings of conversations
    affinity: float | None = None  # `placement.affinity`; None: its default
    seeds: int = 3  # runs, with the seeds from 1


class _Server(ServerProcess):
    """``pascal serve`` with emulated instances.

    :param memory: times the KV memory of the profile.
    """

    def __init__(self, instances: int, memory: int, settings: Mapping[str, object]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.instances = instances
        self._folder = tempfile.TemporaryDirectory(prefix="pascal-conversations-")
        profile = Path(self._folder.name) / "device.toml"
        shipped = ROOT / "workers" / "emulation" / "profiles" / f"{_PROFILE}.toml"
        tokens = memory * load_profile(_PROFILE).kv.tokens
        text = shipped.read_text(encoding="utf-8")
        profile.write_text(
            re.sub(r"(?m)^tokens = \S+", f"tokens = {tokens}", text), encoding="utf-8"
        )
        given: dict[str, object] = {
            "server.state_dir": self._folder.name,
            "server.shutdown_timeout_s": 0,
            "server.log_level": "warning",
            "limits.max_requests": 10_000,
            "limits.load": 0,
            **settings,
        }
        command = [
            *("-m", "pascal", "serve", "--port", str(port)),
            *("--emulate", str(profile), "--workers", str(instances)),
            *(f"--set={key}={value}" for key, value in given.items()),
        ]
        super().__init__("the gateway", command)

    def __exit__(self, *exception: Any) -> None:
        """End it."""
        super().__exit__(*exception)
        self._folder.cleanup()

    async def until_ready(self) -> None:
        """Wait for all instances; :raises BenchmarkError: if they do not come."""
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            self.check()
            with contextlib.suppress(ServerError):
                ready = await asyncio.to_thread(get_json, self.url, "/ready", None)
                if len(ready["instances"]) == self.instances:
                    return
            await asyncio.sleep(0.5)
        raise self.failed("its instances did not come")

    def counters(self) -> Any:
        """What the devices counted, by instance."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{self.url}/metrics", timeout=30) as response:
            return parse_counters(str(response.read(), "utf-8"))


async def _run(server: _Server, options: Options, seed: int) -> dict[str, Any]:
    """One phase; :raises BenchmarkError: a turn failed."""
    await server.until_ready()
    rng = random.Random(f"{seed}")
    seen: list[Turn] = []
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        per_token = await _characters_per_token(session, server.url, rng)
        before = await asyncio.to_thread(server.counters)
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(options.conversations):
                    api, own = APIS[number % len(APIS)], random.Random(f"{seed} {number}")
                    tasks.create_task(
                        talk(session, server.url, api, options.shape, per_token, own, seen)
                    )
                    await asyncio.sleep(rng.uniform(0.5, 1.5) * options.apart_s)
        except* TurnFailed as group:
            raise server.failed(str(group.exceptions[0])) from None
    server.check()
    await asyncio.sleep(2)  # until the last counters have come with a heartbeat
    after = await asyncio.to_thread(server.counters)
    busy = {name: after[name].busy_s - before[name].busy_s for name in sorted(after)}
    starved = sum(after[name].starved_s - before[name].starved_s for name in after)
    passed = sum(after[name].passed_s - before[name].passed_s for name in after)
    return {**summary(seen, busy), "starved": starved / passed}


async def _characters_per_token(
    session: aiohttp.ClientSession, url: str, rng: random.Random
) -> float:
    text = text_of(_SAMPLE_CHARACTERS, rng)
    async with session.post(f"{url}/tokenize", json={"prompt": text}) as answer:
        counted = await answer.json()
    if "count" not in counted:
        raise BenchmarkError(f"/tokenize: {counted}")
    return len(text) / float(counted["count"])


def summary(seen: Sequence[Turn], busy_s: Mapping[str, float]) -> dict[str, Any]:
    """The results of one phase: of all turns but the first of each conversation.

    :param busy_s: by instance, for how long its device computed.
    """
    later = [turn for turn in seen if turn.turn]
    mean_s = statistics.fmean(busy_s.values())
    return {
        "turns": len(seen),
        "found": _found(later),
        "found_by_api": {api: _found([t for t in later if t.api == api]) for api in APIS},
        "first_token_s": _quantiles([turn.first_s for turn in later]),
        "first_token_mean_s": _wait_s(later),
        "first_token_mean_s_by_api": {
            api: _wait_s([turn for turn in later if turn.api == api]) for api in APIS
        },
        "busy_s": dict(busy_s),
        "busiest": max(busy_s.values()) / mean_s if mean_s else None,
        "turns_by_instance": dict(Counter(turn.instance for turn in seen)),
        "longest_prompt_tokens": max((turn.prompt_tokens for turn in seen), default=0),
    }


def _found(turns: Sequence[Turn]) -> float | None:
    """The share of prompt tokens whose KV was in the cache."""
    prompt = sum(turn.prompt_tokens for turn in turns)
    return sum(turn.cached_tokens for turn in turns) / prompt if prompt else None


def _wait_s(turns: Sequence[Turn]) -> float | None:
    """Mean wait for the first generated token."""
    return statistics.fmean(turn.first_s for turn in turns) if turns else None


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    ordered = sorted(values)
    return {f"p{p}": percentile(ordered, p) for p in (5, 50, 95)} if ordered else None


def compare(results: Mapping[str, Any]) -> dict[str, float]:
    """What the goals are about, of one run; ``found`` and ``wait`` also over each API."""
    affinity, blind, one = (results[phase] for phase in PHASES)
    compared = {
        "found": affinity["found"] / one["found"],
        "wait": affinity["first_token_mean_s"] / blind["first_token_mean_s"],
        "busiest": affinity["busiest"],
    }
    found, wait = "found_by_api", "first_token_mean_s_by_api"
    for api in APIS:
        if one[found][api] and blind[wait][api]:
            compared[f"found_{api}"] = affinity[found][api] / one[found][api]
            compared[f"wait_{api}"] = affinity[wait][api] / blind[wait][api]
    return compared


def spread_of(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Median, least and most of each figure over runs."""
    return {
        name: {
            "median": statistics.median(run[name] for run in runs),
            "least": min(run[name] for run in runs),
            "most": max(run[name] for run in runs),
        }
        for name in runs[0]
    }


def verdicts(spread: Mapping[str, Mapping[str, float]]) -> dict[str, bool]:
    """Which goals the medians meet."""
    return {
        "found": spread["found"]["median"] >= LEAST_FOUND,
        "wait": spread["wait"]["median"] <= MOST_WAIT,
        "busiest": spread["busiest"]["median"] <= MOST_BUSY,
    }


def measure(
    options: Options, console: Console, done: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run all phases with each seed.

    :param done: called after each run with the results so far.
    :raises BenchmarkError: if the server breaks.
    """
    own: dict[str, object] = {}
    if options.affinity is not None:
        own["placement.affinity"] = options.affinity
    ways: dict[str, tuple[int, int, dict[str, object]]] = {
        "affinity": (options.instances, 1, own),
        "blind": (options.instances, 1, {"placement.affinity": 0}),
        "one": (1, options.instances, {}),
    }
    results: dict[str, Any] = {"config": asdict(options), "runs": []}
    for seed in range(1, options.seeds + 1):
        run: dict[str, Any] = {"seed": seed}
        for phase, (instances, memory, settings) in ways.items():
            name = f"{phase}, run {seed} of {options.seeds}"
            with _Server(instances, memory, settings) as server, console.status(name):
                run[phase] = asyncio.run(_run(server, options, seed))
        run["compared"] = compare(run)
        results["runs"].append(run)
        results["compared"] = spread_of([of["compared"] for of in results["runs"]])
        done(results)
    return results


def print_results(results: dict[str, Any], console: Console) -> None:
    """Print a table of the phases, and the goals that were missed."""
    table = Table("later turns", *PHASES, title="medians over runs, least to most")

    def row(title: str, *path: str, scale: float = 1.0) -> None:
        cells = []
        for phase in PHASES:
            values: list[Any] = [run[phase] for run in results["runs"]]
            for name in path:
                values = [None if value is None else value[name] for value in values]
            cells.append(_cell([scale * value for value in values if value is not None]))
        table.add_row(title, *cells)

    row("prompt tokens found, %", "found", scale=100)
    for api in APIS:
        row(f"  over {api}, %", "found_by_api", api, scale=100)
    row("first token, mean, s", "first_token_mean_s")
    for api in APIS:
        row(f"  over {api}, s", "first_token_mean_s_by_api", api)
    row("first token, p50, s", "first_token_s", "p50")
    row("first token, p95, s", "first_token_s", "p95")
    row("busiest instance / mean", "busiest")
    row("devices starved, %", "starved", scale=100)
    console.print(table)
    spread = results["compared"]
    goals = Table("", "median (least to most)", "goal", "over " + ", ".join(APIS))
    for name, title, goal in (
        ("found", "found, of one instance", f"at least {LEAST_FOUND:g}"),
        ("wait", "wait, of blind placement", f"at most {MOST_WAIT:g}"),
        ("busiest", "busiest, of the mean", f"at most {MOST_BUSY:g}"),
    ):
        by_api = [spread[f"{name}_{api}"] for api in APIS if f"{name}_{api}" in spread]
        medians = ", ".join(f"{of['median']:.3f}" for of in by_api)
        of = spread[name]
        cell = f"{of['median']:.3f} ({of['least']:.3f} to {of['most']:.3f})"
        goals.add_row(title, cell, goal, medians)
    console.print(goals)
    missed = [name for name, met in verdicts(spread).items() if not met]
    console.print(f"missed: {', '.join(missed)}" if missed else "all goals are met")


def _cell(values: Sequence[float]) -> str:
    """The median, and the range of several."""
    if not values:
        return "-"
    median = f"{statistics.median(values):.2f}"
    return median if len(values) == 1 else f"{median} ({min(values):.2f} to {max(values):.2f})"


# ---- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal bench conversations``."""
    add = parser.add_argument
    add("--quick", action="store_true", help="two instances, 6 conversations of 8 turns")
    add("--conversations", type=int, metavar="N", help="how many at a time (default: 24)")
    add("--seeds", type=count, metavar="N", help="runs, each with its seed (default: 3, quick: 1)")
    add("--affinity", type=float, metavar="X", help="placement.affinity (default: the server's)")
    add("--json", type=Path, metavar="FILE", help="write the results there")


def run(args: argparse.Namespace) -> int:
    """Measure and print; :return: the exit status, 1 if a goal was missed."""
    try:
        prepare_json(args.json, keep=False)
        if args.conversations is not None and args.conversations < len(APIS):
            raise BenchmarkError(f"--conversations: at least {len(APIS)}, one over each API")
    except BenchmarkError as error:
        return give_up(REFUSED, error)
    options = Options(affinity=args.affinity)
    if args.quick:
        shape = Shape(turns=8, last_tokens=12_000)
        options = replace(options, instances=2, conversations=6, shape=shape, seeds=1)
    if args.seeds is not None:
        options = replace(options, seeds=args.seeds)
    if args.conversations is not None:
        options = replace(options, conversations=args.conversations)
    console = wide_console()
    try:
        results = measure(options, console, lambda so_far: write_json(args.json, so_far))
    except BenchmarkError as error:
        return give_up(FAILED, error)
    except KeyboardInterrupt:
        return interrupted()
    print_results(results, console)
    return OK if all(verdicts(results["compared"]).values()) else FAILED
