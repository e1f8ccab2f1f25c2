"""The settings that ``pascal worker`` starts a worker with."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import pytest

from gateway.config import load
from pascal import main
from pascal.worker import settings_of
from workers.settings import WorkerSettings


def settings(listen: str, name: str | None = None, **flags: str) -> WorkerSettings:
    arguments = argparse.Namespace(listen=listen, id=name)
    return settings_of(arguments, load(environment={}, flags=flags))


def test_a_worker_is_called_by_host_and_port_unless_it_has_a_name() -> None:
    flags = {"launcher.token": "t", "workers.policy": "pascal"}
    worker = settings("tcp://0.0.0.0:9000", **flags)
    assert worker.instance_id == f"{socket.gethostname()}-9000"
    assert (worker.listen, worker.token) == ("tcp://0.0.0.0:9000", "t")
    assert (worker.policy, worker.parent_fd, worker.cpu_cores) == ("pascal", None, ())
    assert settings("tcp://0.0.0.0:9000", "left", **flags).instance_id == "left"
    # That it is the only one in its own configuration says nothing about the gateway's others.
    assert settings("unix:/run/a.sock", **{"workers.count": "1"}).kv_migration
    assert not settings("unix:/run/a.sock", **{"workers.kv_migration": "false"}).kv_migration
    assert settings("unix:/run/a.sock").instance_id == f"{socket.gethostname()}-a"


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--listen=tcp://0.0.0.0:9000"], 2, "launcher.token: a worker on TCP needs one"),
        (["--listen=0.0.0.0:9000"], 2, "--listen 0.0.0.0:9000: neither tcp://"),
        (["--listen=ws://a:9000"], 2, "--listen ws://a:9000: neither tcp://"),
        (["--listen=unix:/a", "--set=workers.polcy=rr"], 2, "did you mean 'policy'?"),
        (["--listen=unix:/a", "--emulate=h100"], 1, "workers.emulate: "),
        (["--listen=unix:/a", "--model=/nowhere/model"], 1, "Model /nowhere/model is not a folder"),
    ],
)
def test_a_wrong_start_is_one_clear_line(
    arguments: list[str], status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["worker", *arguments]) == status
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_the_check_hides_the_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "token"
    path.write_text("a secret\n")
    assert main.main(["check", "--port=0", f"--token-file={path}"]) == 0
    shown = capsys.readouterr().out
    assert 'token = "(hidden)"' in shown
    assert "a secret" not in shown
