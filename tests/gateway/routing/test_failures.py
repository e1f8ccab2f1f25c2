"""Processes that die or stop: workers, the gateway, and both in order."""

from __future__ import annotations

import asyncio
import os
import signal
import socket as sockets
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from pascal import main
from tests.gateway.api.test_serving import SHORT, TERMINAL, create, receive_until
from tests.support.server import ROOT, Server, is_alive

pytestmark = [pytest.mark.engine, pytest.mark.slow]


# Long enough to be in the engine while a worker is ended and another one starts.
LASTING: dict[str, Any] = {
    "temperature": 0,
    "pacing": {"tpot_s": 0.002},
    "forced_lengths": {"reasoning_tokens": 30, "answer_tokens": 1800},
}


async def test_a_request_goes_on_when_its_killed_worker_is_back(tmp_path: Path) -> None:
    # On a busy machine a worker needs minutes to start.
    patient = ("--dtype=float32", "--set=cluster.failover_timeout_s=600")
    with Server(tmp_path, workers=1, extra=patient) as server:
        (pid,) = server.worker_pids()
        async with connect(server.websocket_url, max_queue=None) as socket:
            shorter = LASTING | {"forced_lengths": {"reasoning_tokens": 30, "answer_tokens": 500}}
            await create(socket, **shorter)
            undisturbed = await receive_until(socket, *TERMINAL)
            await create(socket, **shorter)
            await receive_until(socket, "response.output_text.delta")
            os.kill(pid, signal.SIGKILL)

            def lost() -> bool:
                return server.request("/ready")[0] == 503

            await asyncio.to_thread(server.wait_for, lost)
            async with connect(server.websocket_url) as other:
                await create(other, **SHORT)
                refused = await receive_until(other, "error", *TERMINAL)
                assert (refused["status"], refused["error"]["code"]) == (503, "no_instance")

            def ready() -> bool:
                return server.request("/ready")[0] == 200

            await asyncio.to_thread(server.wait_for, ready)
            ended = await receive_until(socket, *TERMINAL)
            assert ended["type"] == "response.completed"
            assert ended["response"]["failovers"] == 1
            assert texts_of(ended) == texts_of(undisturbed)
        assert server.worker_pids() != [pid]
        assert server.logged("worker_failed")[0]["reason"].startswith(
            "was killed by SIGKILL while serving"
        )
        assert server.metric("pascal_worker_restarts_total") == 1
        assert server.metric('pascal_failovers_total{outcome="resumed"}') == 1

        # The same server, for the end in good order: Ctrl-C, also with a response still running.
        (pid,) = server.worker_pids()
        async with connect(server.websocket_url) as socket:
            # What is generated already is delivered in the end, and complete: this is not.
            lasting = {"reasoning_tokens": 30, "answer_tokens": 3500}
            await create(socket, **LASTING | {"forced_lengths": lasting})
            await receive_until(socket, "response.output_text.delta")
            server.process.send_signal(signal.SIGINT)

            def shutting_down() -> bool:
                return "Shutting down:" in server.output()

            # Two signals of one kind that are pending at the same time are one.
            await asyncio.to_thread(server.wait_for, shutting_down)
            server.process.send_signal(signal.SIGINT)
            ended = await receive_until(socket, *TERMINAL)
            assert ended["type"] in ("response.failed", "response.incomplete")
            await socket.wait_closed()
            assert socket.close_code == 1001
        assert server.process.wait(60) == 0
        assert not is_alive(pid)


async def test_a_rolling_restart_under_a_running_request_and_the_death_of_the_gateway(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, workers=2, extra=("--dtype=float32",)) as server:
        pids = server.worker_pids()
        async with connect(server.websocket_url, max_queue=None) as socket:
            await create(socket, **LASTING)
            undisturbed = await receive_until(socket, *TERMINAL)
            await create(socket, **LASTING)
            created = await receive_until(socket, "response.created")
            await receive_until(socket, "response.output_text.delta")
            # First the one that has it: while the other restarted it would come to its end.
            names = sorted(
                ["worker-0", "worker-1"], key=lambda name: name != created["response"]["instance"]
            )
            command = [sys.executable, "-m", "pascal", "drain", *names]
            drained = await asyncio.to_thread(
                subprocess.run,
                [*command, "--restart", f"--base-url={server.url}"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (drained.returncode, drained.stderr) == (0, "")
            assert drained.stdout.splitlines()[-1] == f"{names[1]}: serving"
            ended = await receive_until(socket, *TERMINAL)
        assert ended["type"] == "response.completed"
        assert ended["response"]["failovers"] == 0
        assert ended["response"]["migrations"] >= 1
        assert texts_of(ended) == texts_of(undisturbed)
        restarted = server.worker_pids()
        assert not set(pids) & set(restarted)
        assert not any(is_alive(pid) for pid in pids)
        if find_spec("nixl") is not None:  # else it was computed again
            assert server.metric('pascal_migrations_total{outcome="moved"}') >= 1

        # The same server, for the other end: a gateway that is killed leaves no worker.
        assert all(is_alive(pid) for pid in restarted)
        server.process.kill()
        server.process.wait()
        deadline_s = time.monotonic() + 60
        while any(is_alive(pid) for pid in restarted):
            assert time.monotonic() < deadline_s, "a worker outlived its gateway"
            await asyncio.sleep(0.05)


def texts_of(ended: dict[str, Any]) -> list[str]:
    return [item["content"][0]["text"] for item in ended["response"]["output"]]


def run_serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pascal", "serve", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_taken_port_is_one_clear_line() -> None:
    with sockets.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        result = run_serve(f"--port={port}")
    assert result.returncode == 1
    assert result.stderr == (
        f"pascal: Port {port} on 127.0.0.1 is taken: choose another with --port or PASCAL_PORT.\n"
    )


def test_too_little_memory_is_one_clear_line() -> None:
    result = run_serve("--port=0", "--kv-cache-gib=100000")
    assert result.returncode == 1
    assert result.stderr.startswith("pascal: Too little memory: 2 workers need about")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--model=/nowhere/model",), 1, "Model /nowhere/model is not a folder."),
        (("--port=http",), 2, "server.port"),
        (("--set=server.prot=1",), 2, "did you mean 'port'?"),
        (("--config=absent.toml",), 2, "absent.toml: No such file"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    arguments: tuple[str, ...], status: int, text: str
) -> None:
    result = run_serve(*arguments)
    assert result.returncode == status
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


def test_check_prints_the_configuration_without_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[server]\nport = 9123\napi_keys = ["secret-key"]\n', encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pascal", "check", f"--config={path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "port = 9123" in result.stdout
    assert "secret-key" not in result.stdout


def test_check_names_a_device_profile_that_does_not_exist(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["check", "--emulate", "h100-qwen32"]) == 1
    assert "did you mean 'h100-qwen32b'?" in capsys.readouterr().err
