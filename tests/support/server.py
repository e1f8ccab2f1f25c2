"""Runs ``pascal serve``, or ``pascal demo``, as a user does, and observes it from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_S = 300.0  # guards against a hang; a loaded machine may need minutes to import vLLM


class Server:
    """A gateway process with its workers; ``with`` starts it, waits for it and stops it."""

    def __init__(
        self,
        state_dir: Path,
        *,
        workers: int,
        extra: tuple[str, ...] = (),
        module: tuple[str, ...] = ("pascal",),
        command: str = "serve",
    ) -> None:
        self.url = ""
        self._output = state_dir / "gateway.log"
        self._command = [
            sys.executable,
            "-m",
            *module,
            command,
            "--port=0",
            f"--workers={workers}",
            f"--set=server.state_dir={state_dir}",
            *extra,
        ]
        self._workers = workers
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Server:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PASCAL_")}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            found = self.wait_for(lambda: re.search(r"Chat +(http://\S+)/\n", self.output()))
        except BaseException:
            self.__exit__()  # no one else ends it: it runs in its own session
            raise
        self.url = found[1]
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def websocket_url(self) -> str:
        """The address of the WebSocket API."""
        return self.url.replace("http", "ws", 1) + "/v1/responses"

    def output(self) -> str:
        """Everything that it printed."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Its log lines with this event."""
        lines = [json.loads(x) for x in self.output().splitlines() if x.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def worker_pids(self) -> list[int]:
        """Process ids of the latest process of each worker."""
        latest = {line["instance_id"]: line["pid"] for line in self.logged("worker_started")}
        return [latest[name] for name in sorted(latest)]

    def request(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """GET, or POST ``body`` (JSON unless bytes); :return: status and decoded answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path,
            data=data,
            headers={"Content-Type": "application/json", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _decoded(error.read())

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; ``name`` may end in a label filter."""
        _, text = self.request("/metrics")
        wanted, _, label = name.partition("{")
        values = [
            float(line.rsplit(" ", 1)[1])
            for line in str(text).splitlines()
            if re.match(rf"{re.escape(wanted)}[ {{]", line) and label.rstrip("}") in line
        ]
        return sum(values)

    def wait_for(self, condition: Callable[[], Any], seconds: float = START_S) -> Any:
        """Poll until ``condition`` returns a true value; fails if the server ends or hangs."""
        deadline = time.monotonic() + seconds
        while True:
            if result := condition():
                return result
            if self.process.poll() is not None:
                raise AssertionError(
                    f"server ended with {self.process.returncode}: {self.output()}"
                )
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s in vain: {self.output()[-2000:]}")
            time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")
