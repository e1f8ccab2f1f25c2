"""Checks before the start, which `pascal check` and `pascal serve` share."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway import logs
from gateway.config import Config, ServerConfig, WorkersConfig
from gateway.launchers import gpus, preflight
from gateway.launchers.worker_settings import worker_settings
from pascal import main

ANY_PORT = ServerConfig(port=0)


def test_a_wrong_profile_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[step]\nbase = 1\n", encoding="utf-8")
    for emulate, said in (
        ("h100-qwen32", "no device profile 'h100-qwen32'; did you mean 'h100-qwen32b'?"),
        (str(path), "mine.toml: unknown key 'step.base'; did you mean 'base_s'?"),
    ):
        config = Config(server=ANY_PORT, workers=WorkersConfig(emulate=emulate))
        with pytest.raises(preflight.PreflightError) as caught:
            preflight.check(config)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_emulated_memory_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = WorkersConfig(count=8, kv_cache_gib=1000.0)
    monkeypatch.setattr(preflight, "_available_bytes", lambda: 8 * 2**30)
    monkeypatch.setattr(preflight, "cpu_build", lambda: True)
    with pytest.raises(preflight.PreflightError, match="Too little memory"):
        preflight.check(Config(server=ANY_PORT, workers=workers))
    preflight.check(Config(server=ANY_PORT, workers=replace(workers, emulate="h100-qwen32b")))


def test_a_folder_for_step_logs_must_exist_and_each_worker_gets_a_file(tmp_path: Path) -> None:
    config = Config(server=ANY_PORT, workers=WorkersConfig(step_log_dir=str(tmp_path / "none")))
    with pytest.raises(preflight.PreflightError, match=r"workers\.step_log_dir: .*none"):
        preflight.check(config)
    config = replace(config, workers=WorkersConfig(step_log_dir=str(tmp_path)))
    preflight.check(config)
    assert worker_settings(config, "worker-1", "").step_log == str(tmp_path / "worker-1.steps")
    assert worker_settings(Config(), "worker-1", "").step_log is None


@pytest.fixture(autouse=True)
def _logs_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` in this process must not send the logs of other tests to its standard error."""
    monkeypatch.setattr(logs, "configure", lambda _: None)


def said_by(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Status and error of `pascal check`, and that `pascal serve` would end in the same way."""
    results = []
    for command in ("check", "serve"):
        status = main.main([command, *arguments])
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert captured.out == ""
        results.append((status, captured.err))
    assert results[0] == results[1]
    return results[0]


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--model=/nope"], 1, "Model /nope is not a folder."),
        (["--model=./nope"], 1, "Model ./nope is not a folder."),
        (["--model={tmp}"], 1, "Model folder {tmp} has no config.json."),
        (["--model=a/b/c"], 1, "Model a/b/c is neither a folder nor a hub id such as"),
        (["--emulate=h100-qwen32"], 1, "did you mean 'h100-qwen32b'?"),
        (["--kv-cache-gib=100000"], 1, "Too little memory"),
        (["--set=store.path={tmp}"], 1, "The store {tmp} cannot be used: it is not a file."),
        (["--set=store.path={tmp}/text"], 1, "{tmp}/text cannot be used: file is not a database"),
        (["--set=store.path={tmp}/text/x"], 1, "{tmp}/text/x cannot be used: {tmp}/text is not"),
        (["--set=server.state_dir={tmp}/text"], 1, "server.state_dir: {tmp}/text is not a folder"),
        (["--host=192.0.2.1"], 1, "Cannot listen on 192.0.2.1:0"),
        (["--token-file={tmp}/none"], 2, "launcher.token_file: {tmp}/none: No such file"),
        (["--set=launcher.kind=static"], 2, "launcher.kind = 'static' needs the address"),
        (["--workers=0"], 2, "workers.count: 0 is out of range"),
    ],
)
def test_the_check_finds_what_serve_would_refuse(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    text: str,
) -> None:
    (tmp_path / "text").write_text("This is no database. " * 100)
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    state = [] if "state_dir" in given[0] else [f"--set=server.state_dir={tmp_path}"]
    found, error = said_by(capsys, "--port=0", *state, *given)
    assert found == status
    assert text.format(tmp=tmp_path) in error


def test_a_folder_for_temporary_files_must_have_room_for_the_names_of_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / ("t" * 100)))
    arguments = ["--port=0", f"--set=server.state_dir={tmp_path}"]
    for command in ("check", "serve"):
        assert main.main([command, *arguments]) == 1
        assert "set TMPDIR to a shorter one" in capsys.readouterr().err


def test_a_name_that_is_too_long_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("model.name", "server.state_dir"):
        long = f"/{'x' * 300}"
        arguments = ["--port=0", f"--set=server.state_dir={tmp_path}", f"--set={key}={long}"]
        for command in ("check", "serve"):
            assert main.main([command, *arguments]) == 1
            assert capsys.readouterr().err == f"pascal: Cannot read {long}: File name too long.\n"


def test_the_folder_for_the_logs_of_workers_must_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("")
    for command in ("check", "serve"):
        assert main.main([command, "--port=0", f"--set=server.state_dir={tmp_path}"]) == 1
        assert f"server.state_dir: {tmp_path}/logs is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["model.name", "store.path", "server.state_dir"])
def test_a_folder_that_may_not_be_looked_into_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    """The test fakes the refusal, because root may run it and read every folder."""
    closed = tmp_path / "closed" / "inside"
    stat = os.stat

    def denied(path: Any, *args: Any, **options: Any) -> Any:
        if "closed" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", denied)
    arguments = ["--port=0", f"--set=server.state_dir={tmp_path}", f"--set={key}={closed}"]
    status, error = said_by(capsys, *arguments)
    assert status == 1
    assert str(closed.parent) in error
    assert "permission" in error.lower()


def test_the_check_finds_a_taken_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        state = f"--set=server.state_dir={tmp_path}"
        assert said_by(capsys, f"--port={port}", state)[1].startswith(f"pascal: Port {port} on ")


def test_the_check_of_what_is_right_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    assert main.main(["check", "--port=0", f"--set=server.state_dir={state}"]) == 0
    assert f'state_dir = "{state}"' in capsys.readouterr().out
    assert not state.exists()


@pytest.mark.parametrize(
    ("visible", "listed", "size", "text"),
    [
        ("0,1,2", None, 1, "4 workers with workers.tensor_parallel_size 1 need 4, CUDA_VISIBLE_D"),
        ("0,1,2", None, 2, "need 8, CUDA_VISIBLE_DEVICES names 3; use fewer with --workers."),
        ("", None, 1, "need 4, CUDA_VISIBLE_DEVICES names 0"),
        (None, 7, 2, "need 8, there are 7; use fewer"),
        (None, 8, 2, None),
        ("GPU-a,GPU-b,MIG-c,MIG-d", None, 1, None),
        (None, None, 8, None),  # the number of devices is unknown
    ],
)
def test_too_few_gpus_are_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    listed: int | None,
    size: int,
    text: str | None,
) -> None:
    monkeypatch.setattr("gateway.launchers.worker_settings.cpu_build", lambda: False)
    monkeypatch.setattr(preflight, "cpu_build", lambda: False)
    monkeypatch.delenv(gpus.VARIABLE, raising=False)
    monkeypatch.setattr(shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(gpus, "_count_listed", lambda _: listed)
    if visible is not None:
        monkeypatch.setenv(gpus.VARIABLE, visible)
    workers = WorkersConfig(count=4, tensor_parallel_size=size)
    config = Config(server=ANY_PORT, workers=workers)
    if text is None:
        preflight.check(config)
        return
    with pytest.raises(preflight.PreflightError) as caught:
        preflight.check(config)
    assert str(caught.value).startswith("Too few GPUs: ")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_workers_that_need_no_gpu_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VARIABLE, "")
    preflight.check(Config(server=ANY_PORT))  # CPU engines, here
    monkeypatch.setattr("gateway.launchers.worker_settings.cpu_build", lambda: False)
    workers = WorkersConfig(count=4, emulate="h100-qwen32b")
    preflight.check(Config(server=ANY_PORT, workers=workers))
