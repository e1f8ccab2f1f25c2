"""The scheduler plugin in vLLM's own API server, compared with the same server without it.

`run_stock` starts two stock servers with little KV memory, one on each core: one with vLLM's
scheduler, one with ``--scheduler-cls workers.scheduler.PhaseScheduler`` and policy ``slack``. Both
get the same requests at the same moments. Then they change cores and get others. The results are
what a client sees: TTFT, and how its stream keeps up with a reader.

There is no gateway, so the server does not learn the pace of a reader: every answer counts as read
at 10 tokens/s.

Requests are problems of the embedded model with its own reasoning. The answers go on until
`OUTPUT_TOKENS` are generated, because shorter ones would never be put off.

This module talks to the servers by HTTP alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import time
from collections.abc import Callable, Sequence
from itertools import accumulate, count, takewhile
from typing import Any, Final

import aiohttp

from bench.load.measure import Arrival, RequestResult, measure
from bench.load.prompts import problem_prompts
from bench.load.record import ResponseRecord
from bench.load.transport.interface import ServerError
from bench.load.transport.sse_client import EventStreams
from bench.policies.engine_process import ROOT, ServerProcess
from bench.reporting.statistics import SLO_QOE, summarize
from bench.simulator.timeline import TAU_S
from models import problems

DEFAULT: Final = "default"
SLACK: Final = "slack"

OUTPUT_TOKENS: Final = 360  # of each request
KV_BLOCKS: Final = 96  # for eight finished requests
BLOCK_SIZE: Final = 32  # the smallest that vLLM's CPU attention supports
# Offered load, as a multiple of the throughput of the server without the plugin in a burst. Above
# 1, because a burst ends with a few requests alone and so underestimates the throughput.
LOAD: Final = 1.5
BURST: Final = 24  # requests
# The reasoning of other families often exceeds the whole output.
FAMILIES: Final = tuple(sorted({*problems.FAMILIES} - {"sums", "sorting"}))

_MODEL_NAME: Final = "tiny"
_START_S: Final = 300.0  # guards against a hang, as the next one
_REQUEST_S: Final = 300.0


def run_stock(quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Results of both servers, and ratios of the server with the plugin to the other one.

    :return: for "default" and "slack" the requests `completed` and `failed`, `ttft_s`, `e2e_s`,
        the `slo_violations` of readers with 10 tokens/s, and `preemptions`. In addition
        `ttft_p99_ratio` and `ttft_mean_ratio`.
    :raises ProcessFailed: if a server does not start, or dies.
    """
    return asyncio.run(_measure(22.0 if quick else 60.0, progress))


def arguments(policy: str, port: int) -> list[str]:
    """The command line of a server."""
    options = {
        "--model": str(ROOT / "models" / "tiny-reasoner"),
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
    rng = random.Random(seed)
    gaps = (rng.expovariate(rate) for _ in count())
    return list(takewhile(lambda at_s: at_s < seconds, accumulate(gaps)))


def side(results: Sequence[RequestResult], preemptions: int) -> dict[str, Any]:
    """Results of one server."""
    answered = [one for one in results if one.measured and one.ttft_s is not None]
    errors = {one.error or "no answer" for one in results if one not in answered}
    late = sum(one.qoe is not None and one.qoe < SLO_QOE for one in answered)
    return {
        "completed": len(answered),
        "failed": len(results) - len(answered),
        "errors": sorted(errors),
        "ttft_s": summarize(one.ttft_s for one in answered),
        "e2e_s": summarize(one.e2e_s for one in answered),
        "slo_violations": late / len(answered) if answered else None,
        "preemptions": preemptions,
    }


def ratio(sides: Sequence[dict[str, Any]], key: str) -> float | None:
    """Ratio of the second side's TTFT to the first's; None if one has none."""
    default, slack = (one["ttft_s"][key] for one in sides)
    return slack / default if default and slack is not None else None


async def ask(transport: EventStreams, number: int, question: str) -> RequestResult:
    """Send one request and measure it; a failure is in the result."""
    body = {
        "model": _MODEL_NAME,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "stream": True,
        "max_tokens": OUTPUT_TOKENS,
        "ignore_eos": True,
    }
    record, now = ResponseRecord(), time.monotonic()
    try:
        await transport.exchange(str(number), body, record, _REQUEST_S)
    except ServerError as error:
        record.abandon(str(error), time.monotonic())
    return measure(record, Arrival(index=number, start_s=now, due_s=now, turned_s=now), tau_s=TAU_S)


async def _measure(seconds: float, progress: Callable[[str], None]) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    with _Server(DEFAULT, cores[0]) as default, _Server(SLACK, cores[-1]) as slack:
        servers = (default, slack)
        await asyncio.gather(*(server.started() for server in servers))
        capacity = await asyncio.gather(*(_burst(server) for server in servers))
        progress(f"a burst: {capacity[0]:.1f} requests/s, with the plugin {capacity[1]:.1f}")
        results: list[list[RequestResult]] = [[], []]
        for seed, places in enumerate(((cores[0], cores[-1]), (cores[-1], cores[0]))):
            for server, core in zip(servers, places, strict=True):
                server.move(core)
            at = moments(LOAD * capacity[0], seconds, seed)
            new = await asyncio.gather(*(_load(server.url, at, seed) for server in servers))
            for of_one, more in zip(results, new, strict=True):
                of_one += more
            progress(f"{len(results[0])} requests served by each")
        preemptions = [await server.preemptions() for server in servers]
    sides = [side(of_one, total) for of_one, total in zip(results, preemptions, strict=True)]
    return {
        DEFAULT: sides[0],
        SLACK: sides[1],
        "ttft_p99_ratio": ratio(sides, "p99"),
        "ttft_mean_ratio": ratio(sides, "mean"),
    }


async def _burst(server: _Server) -> float:
    """Requests per second that the server completes when enough of them wait."""
    began = time.monotonic()
    results = await _load(server.url, [0.0] * BURST, seed=-1)
    if errors := side(results, 0)["errors"]:
        raise server.failed(errors[0])
    return BURST / (time.monotonic() - began)


async def _load(url: str, at: Sequence[float], seed: int) -> list[RequestResult]:
    """Ask at these moments from now on, whatever happened to the requests before."""
    prompts = problem_prompts(len(at), FAMILIES, random.Random(seed))
    transport = EventStreams(url, "chat-sse", api_key=None)
    began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as tasks:
            asked = []
            for number, (at_s, prompt) in enumerate(zip(at, prompts, strict=True)):
                await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
                question = prompt.messages[0].content
                asked.append(tasks.create_task(ask(transport, number, question)))
    finally:
        await transport.close()
    return [task.result() for task in asked]


class _Server(ServerProcess):
    """One server on a core."""

    def __init__(self, policy: str, core: int) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            f"the server ({policy})",
            arguments(policy, port),
            core=core,
            environment={
                "HF_HUB_OFFLINE": "1",
                "VLLM_NO_USAGE_STATS": "1",
                "VLLM_LOGGING_LEVEL": "WARNING",
            },
        )

    async def started(self) -> None:
        """Wait until it serves; :raises ProcessFailed: if it does not."""
        give_up = time.monotonic() + _START_S
        while time.monotonic() < give_up:
            self.check()
            try:
                async with aiohttp.request("GET", f"{self.url}/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass  # not yet
            await asyncio.sleep(0.25)
        raise self.failed(f"it did not start within {_START_S:.0f} s")

    async def preemptions(self) -> int:
        """The total of vLLM's own counter."""
        async with aiohttp.request("GET", f"{self.url}/metrics") as response:
            text = await response.text()
        counts = re.findall(r"^vllm:num_preemptions_total\{.*\} (\S+)$", text, re.MULTILINE)
        return int(sum(map(float, counts)))
