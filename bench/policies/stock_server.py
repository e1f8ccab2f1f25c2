"""The scheduler plugin in vLLM's own API server, beside the same server without it.

`run_stock` starts two stock servers with little KV memory, one on each core: one with vLLM's
scheduler, one with `--scheduler-cls workers.scheduler.PhaseScheduler` and policy `slack`. There is
no gateway; nobody tells the server who reads how fast, so each answer counts as read at 10
tokens/s. Both get the same requests at the same moments, then change cores and get others. All
that is measured is what a client sees: its time to the first answering token, and how its stream
keeps up with such a reader.

Requests are problems of the embedded model with its own thoughts; the answers go on until
`OUTPUT_TOKENS` are generated, or they would be too short to be put off.

Knows the servers by HTTP alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.load.prompts import problem_prompts
from bench.reporting.errors import BenchmarkError
from bench.reporting.statistics import SLO_QOE, summarize
from bench.simulator.timeline import TAU_S
from models import problems
from pacer import qoe

DEFAULT: Final = "default"
SLACK: Final = "slack"

OUTPUT_TOKENS: Final = 360  # of each request
KV_BLOCKS: Final = 96  # for eight of them at their ends
BLOCK_SIZE: Final = 32  # the least that vLLM's CPU attention takes
# What is offered, in multiples of what the server without the plugin got done in a burst. That
# says too little, for a burst ends with a few requests alone.
LOAD: Final = 1.5
BURST: Final = 24  # requests
# Thoughts over the others often take more than the whole output.
FAMILIES: Final = tuple(sorted({*problems.FAMILIES} - {"sums", "sorting"}))

_ROOT: Final = Path(__file__).parents[2]
_MODEL_NAME: Final = "tiny"
_START_S: Final = 300.0  # guards against a hang, as the next
_REQUEST_S: Final = 300.0


class StockError(BenchmarkError):
    """A server did not start, or died; the message ends with what it said last."""


@dataclass(slots=True)
class Seen:
    """What the client saw of one request; seconds from when it was sent."""

    answer_s: list[float] = field(default_factory=list)  # when parts of the answer came
    ended_s: float | None = None
    error: str | None = None

    @property
    def ttft_s(self) -> float | None:
        """To the first answering token."""
        return self.answer_s[0] if self.answer_s else None


def run_stock(quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Figures of both servers, and those of the plugin's as ratios to the other's.

    :return: for "default" and "slack" the requests `completed` and `failed`, `ttft_s`, `e2e_s`,
        `slo_violations` of a reader with 10 tokens/s, and `preemptions`; `ttft_p99_ratio` and
        `ttft_mean_ratio`.
    :raises StockError: if a server does not start, or dies.
    """
    return asyncio.run(_measure(22.0 if quick else 60.0, progress))


def arguments(policy: str, port: int) -> list[str]:
    """The command line of a server."""
    options = {
        "--model": str(_ROOT / "models" / "tiny-reasoner"),
        "--served-model-name": _MODEL_NAME,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--max-model-len": "1024",
        "--max-num-seqs": "64",
        "--block-size": str(BLOCK_SIZE),
        "--num-gpu-blocks-override": str(KV_BLOCKS),
        "--kv-cache-memory-bytes": str(2**28),
        "--reasoning-parser": "deepseek_r1",
    }
    if policy == SLACK:
        options["--scheduler-cls"] = "workers.scheduler.PhaseScheduler"
        options["--additional-config"] = json.dumps({"phase": {"policy": SLACK}})
    words = [word for pair in options.items() for word in pair]
    return ["-m", "vllm.entrypoints.openai.api_server", "--enforce-eager", *words]


def moments(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests are sent: independently of each other, ``rate`` per second."""
    chance = random.Random(seed)
    found: list[float] = []
    at_s = chance.expovariate(rate)
    while at_s < seconds:
        found.append(at_s)
        at_s += chance.expovariate(rate)
    return found


def side(seen: Sequence[Seen], preemptions: int) -> dict[str, Any]:
    """Figures of one server."""
    sound = [one for one in seen if one.error is None]
    scores = [qoe(one.answer_s, tau_s=TAU_S, origin_s=one.answer_s[0]) for one in sound]
    return {
        "completed": len(sound),
        "failed": len(seen) - len(sound),
        "errors": sorted({one.error for one in seen if one.error is not None}),
        "ttft_s": summarize(one.ttft_s for one in sound),
        "e2e_s": summarize(one.ended_s for one in sound),
        "slo_violations": sum(score < SLO_QOE for score in scores) / len(sound) if sound else None,
        "preemptions": preemptions,
    }


def ratio(sides: Sequence[dict[str, Any]], key: str) -> float | None:
    """Of the second side's TTFT to the first's; None where one has none."""
    default, slack = (one["ttft_s"][key] for one in sides)
    return slack / default if default and slack is not None else None


async def ask(http: aiohttp.ClientSession, url: str, question: str) -> Seen:
    """One request; whatever goes wrong is in the result."""
    body = {
        "model": _MODEL_NAME,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "stream": True,
        "max_tokens": OUTPUT_TOKENS,
        "ignore_eos": True,
    }
    seen, began = Seen(), time.monotonic()
    try:
        async with http.post(f"{url}/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                data = line.removeprefix(b"data: ").strip()
                if not data.startswith(b"{"):
                    continue  # an empty line, or the end of the stream
                part = json.loads(data)
                if "error" in part:  # vLLM's way to break a stream off
                    seen.error = str(part["error"])
                for choice in part.get("choices", ()):
                    if choice["delta"].get("content"):
                        seen.answer_s.append(time.monotonic() - began)
    except (aiohttp.ClientError, TimeoutError) as error:
        seen.error = f"{type(error).__name__}: {error}"
    seen.ended_s = time.monotonic() - began
    if seen.error is None and not seen.answer_s:
        seen.error = "no answer"
    return seen


async def _measure(seconds: float, progress: Callable[[str], None]) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
    with _Server(DEFAULT, cores[0]) as default, _Server(SLACK, cores[-1]) as slack:
        servers = (default, slack)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        ) as http:
            await asyncio.gather(*(server.started(http) for server in servers))
            capacity = await asyncio.gather(*(_burst(http, server) for server in servers))
            progress(f"a burst: {capacity[0]:.1f} requests/s, with the plugin {capacity[1]:.1f}")
            seen: list[list[Seen]] = [[], []]
            for turn, places in enumerate(((cores[0], cores[-1]), (cores[-1], cores[0]))):
                for server, core in zip(servers, places, strict=True):
                    server.move(core)
                at = moments(LOAD * capacity[0], seconds, seed=turn)
                found = await asyncio.gather(*(_load(http, one.url, at, turn) for one in servers))
                for all_of_one, new in zip(seen, found, strict=True):
                    all_of_one += new
                progress(f"{len(seen[0])} requests served by each")
            preemptions = [await server.preemptions(http) for server in servers]
    sides = [side(of_one, count) for of_one, count in zip(seen, preemptions, strict=True)]
    return {
        DEFAULT: sides[0],
        SLACK: sides[1],
        "ttft_p99_ratio": ratio(sides, "p99"),
        "ttft_mean_ratio": ratio(sides, "mean"),
    }


async def _burst(http: aiohttp.ClientSession, server: _Server) -> float:
    """Requests per second that the server gets done when there are enough of them."""
    began = time.monotonic()
    seen = await _load(http, server.url, [0.0] * BURST, seed=-1)
    if errors := [one.error for one in seen if one.error is not None]:
        raise StockError(f"{server.policy}: {errors[0]}; {server.last_words()}")
    return BURST / (time.monotonic() - began)


async def _load(
    http: aiohttp.ClientSession, url: str, at: Sequence[float], seed: int
) -> list[Seen]:
    """Ask at these moments from now on, whatever has become of the requests before."""
    prompts = problem_prompts(len(at), FAMILIES, random.Random(seed))
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        asked = []
        for at_s, prompt in zip(at, prompts, strict=True):
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            asked.append(tasks.create_task(ask(http, url, prompt.messages[0].content)))
    return [task.result() for task in asked]


class _Server:
    """One server with its processes; ``with`` starts it on a core and ends it."""

    def __init__(self, policy: str, core: int) -> None:
        self.policy = policy
        self._core = core
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> _Server:
        # vLLM and torch read these at import. One core, one thread.
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        self._log = tempfile.TemporaryFile("w+")
        core = self._core
        self._process = subprocess.Popen(
            [sys.executable, *arguments(self.policy, self._port)],
            cwd=_ROOT,
            env=environment,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                pass  # killed with its children
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    async def started(self, http: aiohttp.ClientSession) -> None:
        """Wait until it serves; :raises StockError: if it does not."""
        give_up = time.monotonic() + _START_S
        while self._process.poll() is None and time.monotonic() < give_up:
            try:
                async with http.get(f"{self.url}/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass  # not yet
            await asyncio.sleep(0.25)
        raise StockError(f"the server ({self.policy}) did not start: {self.last_words()}")

    async def preemptions(self, http: aiohttp.ClientSession) -> int:
        """As vLLM counts them."""
        async with http.get(f"{self.url}/metrics") as response:
            text = await response.text()
        found = re.findall(r"^vllm:num_preemptions_total\{.*\} (\S+)$", text, re.MULTILINE)
        return int(sum(map(float, found)))

    def move(self, core: int) -> None:
        """Let all its threads run on another core."""
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # ended meanwhile
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), {core})

    def last_words(self) -> str:
        """The end of its log."""
        self._log.seek(0)
        return self._log.read()[-2000:]

    def _pids(self) -> list[int]:
        """Of its processes, which are in a session of their own."""
        found = []
        for directory in Path("/proc").iterdir():
            if directory.name.isdigit():
                try:
                    session = os.getsid(int(directory.name))
                except ProcessLookupError:
                    continue  # it has just ended
                if session == self._process.pid:
                    found.append(int(directory.name))
        return found
