"""Engines that need several processes: vLLM's AsyncLLM, and vLLM's own API server with the plugin.

Both load vLLM in several processes in turn, which takes long. So the tests start both at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.workers.support.harness import (
    MODEL,
    ROOT,
    START_TIMEOUT_S,
    Gateway,
    WorkerProcess,
    until,
)
from workers.kv import tickets
from workers.kv.migration import available
from workers.messages import ForcedLengths, Pace, SetPace

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def call(url: str, body: dict[str, Any] | None = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        text: str = response.read().decode()
        return text


class StockServer:
    """vLLM's API server with the scheduler plugin, and nothing else of this project."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / "server.log"
        arguments = {
            "--model": str(MODEL),
            "--served-model-name": "tiny",
            "--host": "127.0.0.1",
            "--port": str(port),
            "--max-model-len": "1024",
            "--kv-cache-memory-bytes": str(2**26),
            "--max-num-seqs": "8",
            "--scheduler-cls": "workers.scheduler.PhaseScheduler",
            "--additional-config": json.dumps({"phase": {"policy": "slack"}}),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
                    *("--enforce-eager", *(word for pair in arguments.items() for word in pair)),
                ],
                cwd=ROOT,
                env=os.environ | {"VLLM_LOGGING_LEVEL": "INFO"},  # its log names the scheduler
                stdout=log,
                stderr=log,
            )

    async def healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            call(f"{self.url}/health")
        except urllib.error.URLError:
            return False
        return True


@pytest.fixture(scope="module")
def processes(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[WorkerProcess, StockServer]]:
    """Both servers, which are loading."""
    worker = WorkerProcess(
        tmp_path_factory.mktemp("async"), engine="async", kv_offload_gib=0.0625, kv_migration=True
    )
    server = StockServer(tmp_path_factory.mktemp("stock"))
    try:
        yield worker, server
    finally:
        server.process.terminate()
        worker.kill()
        server.process.wait(60)


def test_stock_server_serves_with_the_plugin(
    processes: tuple[WorkerProcess, StockServer],
) -> None:
    _, server = processes
    asyncio.run(until(server.healthy, START_TIMEOUT_S, every_s=0.5))
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "What is 12 + 30?"}],
        "temperature": 0,
    }
    answer = json.loads(call(f"{server.url}/v1/chat/completions", body))
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert "</think>" in choice["message"]["content"]
    assert "vllm:num_requests_running" in call(f"{server.url}/metrics")
    assert "workers.scheduler.PhaseScheduler" in server.log.read_text()


def processes_of_group(group: int) -> list[int]:
    """Ids of the live processes of a process group."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
            except FileNotFoundError:
                continue  # it has just ended
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(directory.name))
    return found


async def test_engine_in_processes_of_its_own(
    processes: tuple[WorkerProcess, StockServer],
) -> None:
    worker, _ = processes
    group = worker.process.pid
    await worker.started()
    assert len(processes_of_group(group)) > 1
    async with Gateway(worker.path) as gateway:
        assert gateway.welcome.kv_blocks_total == 48
        # Exact lengths, phases by step, as in this process.
        await gateway.force("a", 40, 20)
        await gateway.send(SetPace(request_id="a", pace=Pace(tau_s=1.0)))
        output = await gateway.finished("a")
        assert (len(output.token_ids), output.boundary) == (60, 39)
        phases = [
            (frame.stats.reasoning.running, frame.stats.answering.running)
            for frame in gateway.frames
            if any(run.request_id == "a" and run.finish is None for run in frame.runs)
        ]
        assert set(phases) == {(1, 0), (0, 1)}
        assert phases == sorted(phases, reverse=True)
        # A real answer.
        await gateway.submit("b")
        output = await gateway.finished("b")
        assert output.reasoning
        assert output.answer
        # A cancellation frees the memory although no further request comes.
        await gateway.force("c", 600, 10)
        await gateway.started("c", 40)
        await gateway.cancel("c")
        output = await gateway.finished("c")
        assert output.finish is not None
        assert output.finish.reason == "cancelled"
        while (await gateway.idle_stats()).kv_blocks_used:
            pass
        # A request is handed over and comes back.
        assert (gateway.welcome.endpoint is not None) == available()
        lengths = ForcedLengths(reasoning_tokens=40, answer_tokens=20)
        await gateway.submit("e", forced_lengths=lengths)
        whole = (await gateway.finished("e")).token_ids
        await gateway.submit("f", forced_lengths=lengths)
        await gateway.started("f", 12)
        first = await gateway.hand_over("f")
        assert first.finish is not None
        assert first.finish.reason == "handed_over"
        assert (first.finish.ticket is not None) == available()
        known = tuple(first.token_ids)
        ticket = first.finish.ticket
        await gateway.submit("g", forced_lengths=lengths, known_token_ids=known, ticket=ticket)
        assert [*known, *(await gateway.finished("g")).token_ids] == whole
        # Its ticket is of no use, and its first run reports that.
        if ticket is not None:
            late = msgspec.structs.replace(ticket, engine_id="another one", valid_s=0.0)
            await gateway.submit("h", forced_lengths=lengths, known_token_ids=known, ticket=late)
            assert [*known, *(await gateway.finished("h")).token_ids] == whole
            assert gateway.outputs["h"].kv_tokens == 0
            # Log lines of other processes carry the worker's name too.
            data = tickets.decode(ticket.data)
            unknown = tickets.encode(msgspec.structs.replace(data, request_id="nobody"))
            none = msgspec.structs.replace(ticket, engine_id="another one", data=unknown)
            await gateway.submit("i", forced_lengths=lengths, known_token_ids=known, ticket=none)
            assert [*known, *(await gateway.finished("i")).token_ids] == whole
            said = [
                json.loads(line) for line in worker.log.read_text().splitlines() if line[0:1] == "{"
            ]
            assert "ticket_refused" in [line["event"] for line in said]
            assert {line["instance_id"] for line in said} == {"worker-0"}
        while (await gateway.idle_stats()).kv_blocks_used:
            pass
        # vLLM itself refuses this one.
        await gateway.submit("d", known_token_ids=(99999,))
        await gateway.wait(lambda: "d" in gateway.rejected)
    worker.close_parent_pipe()

    async def gone() -> bool:
        worker.process.poll()
        return not processes_of_group(group)

    await until(gone, 60)
    assert not worker.path.exists()
