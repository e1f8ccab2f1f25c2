"""The scheduler plugin in vLLM's own API server, with nothing else of this project."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.workers.harness import MODEL, ROOT, START_TIMEOUT_S, until

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


def test_stock_server_serves_with_the_plugin(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
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
    log_path = tmp_path / "server.log"
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"),
                *(word for pair in arguments.items() for word in pair),
            ],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )

    async def healthy() -> bool:
        assert server.poll() is None, log_path.read_text()
        try:
            call(f"{url}/health")
        except urllib.error.URLError:
            return False
        return True

    try:
        asyncio.run(until(healthy, START_TIMEOUT_S, every_s=0.5))
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "What is 12 + 30?"}],
            "temperature": 0,
        }
        answer = json.loads(call(f"{url}/v1/chat/completions", body))
        (choice,) = answer["choices"]
        assert choice["finish_reason"] == "stop"
        assert "</think>" in choice["message"]["content"]
        assert "vllm:num_requests_running" in call(f"{url}/metrics")
        assert "workers.scheduler.PhaseScheduler" in log_path.read_text()
    finally:
        server.terminate()
        server.wait(60)
