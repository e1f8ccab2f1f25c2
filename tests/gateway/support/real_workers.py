"""Workers as an operator starts them, for gateways with the launcher `static`."""

from __future__ import annotations

import os
import signal
import socket as sockets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.server import ROOT, Server

TOKEN = "a token of the test"


def free_port() -> int:
    with sockets.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pascal_worker(folder: Path, port: int, token: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One worker as an operator starts it."""
    log = folder / f"worker-{port}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "pascal",
                    "worker",
                    f"--listen=tcp://127.0.0.1:{port}",
                ),
                *(f"--id=w-{port}", f"--token-file={token}", "--emulate=h100-qwen32b"),
            ],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        assert TOKEN not in log.read_text()


def ask(server: Server) -> tuple[int, Any]:
    body = {
        "input": "Hi",
        "pacing": False,
        "forced_lengths": {"reasoning_tokens": 3, "answer_tokens": 5},
    }
    return server.request("/v1/responses", body)
