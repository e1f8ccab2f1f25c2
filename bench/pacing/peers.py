"""What an operator would pick instead of the gateway, over the same emulated back end.

`measure_peers` streams chat completions through vLLM's API server, vllm-router and LiteLLM's proxy,
and through this project's gateway for comparison. It reports the CPU time of each per chunk that
its readers received. A peer that cannot be installed or started is reported with the reason.

The peer has one core. Its back end or engine and the readers have the other one. Peers take turns,
so that a disturbance of the machine does not hit one alone; results are medians over the turns.

    python -m bench.pacing.peers [--quick] [--json FILE] [--only NAME]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.table import Table

from bench.pacing import peer_servers
from bench.pacing.peer_client import LoadFailed, Readers
from bench.pacing.peer_servers import PEERS, STREAMS, Peer, PeerServer
from bench.policies.engine_process import ServerProcess
from bench.reporting.console import (
    FAILED,
    OK,
    REFUSED,
    give_up,
    interrupted,
    wide_console,
)
from bench.reporting.errors import BenchmarkError
from bench.reporting.outputs import prepare_json, write_json

Result = dict[str, float | str]

_ROUNDS: Final = 3
_ROUND_S, _QUICK_ROUND_S = 15.0, 5.0
_SETTLE_S: Final = 2.0  # after all streams have begun
_ATTEMPTS: Final = 2  # of a start: on a busy machine LiteLLM's can fail as it asks its back end
_BEGIN_S: Final = 60.0  # guards against a hang
_BUSY: Final = 0.9  # of a core: no longer certain to keep up


@dataclass(frozen=True, slots=True)
class Window:
    """What one turn of a peer measured."""

    seconds: float
    chunks: int  # received by all readers
    own_s: float  # processor time of the peer
    rest_s: float  # of readers, back end and engine together

    @property
    def us_per_chunk(self) -> float:
        """Processor time of the peer per chunk, in microseconds."""
        return 1e6 * self.own_s / self.chunks


@dataclass(slots=True)
class _Running:
    """A peer that runs, and its turns so far."""

    server: PeerServer
    backend: ServerProcess | None
    version: str
    processes: ExitStack
    windows: list[Window] = field(default_factory=list)


def measure_peers(
    quick: bool,
    *,
    only: Sequence[str] = tuple(PEERS),
    progress: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> dict[str, Result]:
    """Measure the peers, which are installed first if they are not there.

    :param quick: turns of 5 instead of 15 s.
    :param only: names, keys of `PEERS`.
    :param progress: takes a line now and then.
    :return: by name, "us_per_chunk" with its least and most over the turns, "chunks" in all turns,
        "chunks_s", "streams", the share of its core that the peer used ("own_busy") and that
        everything else used of the other ("rest_busy"), "version", and a "warning" if a core was
        too busy. Or just "error".
    :raises KeyboardInterrupt: on Ctrl-C or SIGTERM, when all processes have ended.
    """
    results: dict[str, Result] = {}
    pythons: dict[str, Path] = {}
    for name in only:
        try:
            pythons[name] = peer_servers.python_of(PEERS[name], progress)
        except BenchmarkError as error:
            results[name] = {"error": str(error)}
            progress(f"{name}: {short(str(error))}")
    seconds = _QUICK_ROUND_S if quick else _ROUND_S
    before = signal.getsignal(signal.SIGTERM)
    try:
        results |= uvloop.run(_measure(pythons, seconds, progress))
    except asyncio.CancelledError as error:  # SIGTERM; Ctrl-C raises this by itself
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGTERM, before)  # the loop forgets the caller's
    return {name: results[name] for name in only}


def summary(windows: Sequence[Window], version: str) -> Result:
    """The result of a peer from its turns. Pure."""
    costs = [window.us_per_chunk for window in windows]
    own, rest = (
        statistics.median(getattr(window, key) / window.seconds for window in windows)
        for key in ("own_s", "rest_s")
    )
    result: Result = {
        "us_per_chunk": statistics.median(costs),
        "us_per_chunk_least": min(costs),
        "us_per_chunk_most": max(costs),
        "chunks": sum(window.chunks for window in windows),
        "chunks_s": statistics.median(window.chunks / window.seconds for window in windows),
        "streams": STREAMS,
        "own_busy": own,
        "rest_busy": rest,
        "version": version,
    }
    if rest > _BUSY:
        result["warning"] = "readers and back end used up their core: they may have held it up"
    elif own > _BUSY:
        result["warning"] = "it used up its core: it may have passed chunks on late"
    return result


async def _measure(
    pythons: dict[str, Path], seconds: float, progress: Callable[[str], None]
) -> dict[str, Result]:
    """Start all, let them take turns, end them."""
    asked_to_end = asyncio.current_task()
    assert asked_to_end is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_end.cancel)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        progress("there is one core only: a peer shares it with its readers and back end")
    results: dict[str, Result] = {}
    running: dict[str, _Running] = {}
    with ExitStack() as everything, _on_core(cores[-1]):

        def drop(name: str, error: BenchmarkError) -> None:
            results[name] = {"error": str(error)}
            progress(f"{name}: {short(str(error))}")

        for name, python in pythons.items():
            for attempt in range(_ATTEMPTS):
                progress(f"starting {name}")
                processes = everything.enter_context(ExitStack())
                try:
                    running[name] = await _start(PEERS[name], python, processes, cores)
                    break
                except BenchmarkError as error:
                    processes.close()
                    if attempt == _ATTEMPTS - 1:
                        drop(name, error)
        for number in range(_ROUNDS):
            for name, peer in list(running.items()):
                try:
                    window = await _turn(peer, seconds)
                except BenchmarkError as error:
                    running.pop(name).processes.close()
                    drop(name, error)
                    continue
                peer.windows.append(window)
                progress(f"round {number + 1}: {name} {window.us_per_chunk:.1f} us per chunk")
    results |= {name: summary(peer.windows, peer.version) for name, peer in running.items()}
    return results


async def _start(peer: Peer, python: Path, processes: ExitStack, cores: Sequence[int]) -> _Running:
    backend, url = None, ""
    if peer.step_s:
        url, backend = processes.enter_context(peer_servers.backend(peer.step_s, cores[-1]))
        await peer_servers.until_ready(backend, f"{url}/health")
    folder = Path(processes.enter_context(tempfile.TemporaryDirectory(prefix="pascal-peer-")))
    server = processes.enter_context(PeerServer(peer, python, url, folder))
    # On all cores: it would start slowly on the one that the readers have.
    server.spread(cores)
    await server.started()
    server.place(cores[0], cores[-1])
    version = peer_servers.version_of(peer, python)
    return _Running(server, backend, version, processes)


async def _turn(peer: _Running, seconds: float) -> Window:
    """Load a peer for a time; :raises BenchmarkError: if it fails."""
    server = peer.server
    others = server.engines() + ([peer.backend.pid] if peer.backend else []) + [os.getpid()]

    def now() -> tuple[float, int, float, float]:
        rest_s = peer_servers.processor_s(others)
        return time.monotonic(), readers.chunks, server.own_s(), rest_s

    try:
        async with Readers(server.url, STREAMS, server.peer.request, server.api_key) as readers:
            await readers.all_begun(_BEGIN_S)
            await readers.run(_SETTLE_S)
            before = now()
            await readers.run(seconds)
            after = now()
    except LoadFailed as error:
        server.check()
        raise server.failed(str(error)) from error
    passed_s, chunks, own_s, rest_s = (new - old for new, old in zip(after, before, strict=True))
    if not chunks:
        raise server.failed(f"its readers received nothing for {seconds:.0f} s")
    return Window(passed_s, round(chunks), own_s, rest_s)


@contextlib.contextmanager
def _on_core(core: int) -> Iterator[None]:
    """Run this thread on one core during the block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ---- command line


def short(reason: str) -> str:
    """The first line of a reason, and the last one, which is where programs say what is wrong."""
    first, *more = [line.strip() for line in reason.splitlines() if line.strip()]
    return f"{first} ... {more[-1]}" if more else first


def table(results: dict[str, Result]) -> Table:
    """The results, one row for each peer."""
    shown = Table(title="CPU time per chunk that a reader received")
    for column in ("peer", "version", "us per chunk", "range", "chunks/s", "busy", "rest busy", ""):
        shown.add_column(column)
    for name, result in results.items():
        if "error" in result:
            shown.add_row(name, "", "", "", "", "", "", short(str(result["error"])))
            continue
        shown.add_row(
            name,
            str(result["version"]),
            f"{result['us_per_chunk']:.1f}",
            f"{result['us_per_chunk_least']:.1f}-{result['us_per_chunk_most']:.1f}",
            f"{result['chunks_s']:.0f}",
            f"{result['own_busy']:.2f}",
            f"{result['rest_busy']:.2f}",
            str(result.get("warning", "")),
        )
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m bench.pacing.peers``; :return: the exit status, 1 if a peer has no result."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.pacing.peers", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="shorter turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument(
        "--only", choices=tuple(PEERS), action="append", metavar="NAME", help=", ".join(PEERS)
    )
    args = parser.parse_args(argv)
    try:
        prepare_json(args.json, keep=False)
    except BenchmarkError as error:
        return give_up(REFUSED, error)
    only = tuple(dict.fromkeys(args.only or PEERS))
    try:
        results = measure_peers(args.quick, only=only)
    except KeyboardInterrupt:
        return interrupted()
    write_json(args.json, {"peers": results})
    console: Console = wide_console()
    console.print(table(results))
    return FAILED if any("error" in result for result in results.values()) else OK


if __name__ == "__main__":
    sys.exit(main())
