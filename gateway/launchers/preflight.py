"""Checks before a start: model, profile, GPUs, memory, state directory, store and port.

Each failure is one clear line. ``pascal serve`` and ``pascal check`` make the same checks;
``pascal worker`` makes those that concern an engine.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.config import PROJECT_ROOT, Config
from gateway.launchers import gpus
from gateway.launchers.worker_settings import cpu_build, needs_gpus, worker_settings
from gateway.store import StoreUnusable, check_store
from workers.emulation.profile import ProfileError, load_profile
from workers.settings import MAX_SOCKET_PATH_BYTES

_GIB = 1024**3
RAY_VERSIONS = ((2, 49), (3,))  # the first version that works, and the first that does not
# Memory of a worker without KV and weights: interpreter, torch and vLLM, measured with the embedded
# model.
_WORKER_BYTES = 900 * 1024**2
_DESCRIBE_S = 300.0  # to import vLLM and to read a large tokenizer
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")


class PreflightError(Exception):
    """The server cannot start; the message is one line for the terminal."""


def check(config: Config) -> None:
    """Raise `PreflightError` for the first thing that is missing."""
    with _permissions():
        _check(config)


@contextlib.contextmanager
def _permissions() -> Iterator[None]:
    """Report a path that cannot be read: in a closed folder, or with too long a name."""
    try:
        yield
    except PermissionError as error:
        raise PreflightError(f"No permission to read {error.filename}.") from error
    except OSError as error:
        raise PreflightError(f"Cannot read {error.filename}: {error.strerror}.") from error


def _check(config: Config) -> None:
    if config.launcher.kind == "local":  # else model and memory are on other machines
        check_engine(config, config.workers.count)
        _check_memory(config)
        _check_socket_paths(config.workers.count)
    if config.launcher.kind == "ray":
        check_ray()
    _check_state_dir(Path(config.server.state_dir))
    try:
        check_store(config.store_place)
    except StoreUnusable as error:
        raise PreflightError(str(error)) from error
    _check_port(config.server.host, config.server.port)


def check_engine(config: Config, count: int = 1) -> None:
    """Check what engines need on this machine: the model or device profile, and GPUs.

    :param count: number of engines.
    :raises PreflightError: something is missing.
    """
    with _permissions():
        _check_model(config)
        _check_profile(config)
        _check_gpus(config, count)
        if (folder := config.workers.step_log_dir) and not Path(folder).is_dir():
            raise PreflightError(f"workers.step_log_dir: {folder} is not a folder.")


def describe_model(config: Config) -> list[str]:
    """What a worker would make of the model here: its parsers, what it can do, its memory.

    Takes seconds, because a process imports vLLM for it.

    :return: lines for people; none for an emulated model.
    :raises PreflightError: a worker could not start with this model and these parsers.
    """
    if config.launcher.kind != "local" or config.workers.emulate:
        return []  # else the model is on other machines, or there is none
    settings = msgspec.json.encode(worker_settings(config, "check", "unix:/")).decode()
    command = [sys.executable, "-m", "workers.describe", "--settings", settings]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_DESCRIBE_S, cwd=PROJECT_ROOT)
    except subprocess.TimeoutExpired as error:
        raise PreflightError(f"The model could not be read in {_DESCRIBE_S:g} s.") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise PreflightError(f"Model {config.model_path}: {said[-1]}")
    return done.stdout.decode(errors="replace").splitlines()


def check_ray() -> None:
    """Raise `PreflightError` if Ray is missing, cannot be imported, or is of another version."""
    install = "pip install 'pascal-serve[ray]'"
    if importlib.util.find_spec("ray") is None:
        raise PreflightError(f"launcher.kind: 'ray' needs the package ray: {install}.")
    try:
        version = str(importlib.import_module("ray").__version__)
        numbers = tuple(int(number) for number in version.split(".")[:2])
    except Exception as error:
        raise PreflightError(
            f"launcher.kind: Ray is installed but cannot be imported: "
            f"{type(error).__name__}: {error}; reinstall it: {install}."
        ) from error
    if not RAY_VERSIONS[0] <= numbers < RAY_VERSIONS[1]:
        least, below = (".".join(map(str, limit)) for limit in RAY_VERSIONS)
        raise PreflightError(
            f"launcher.kind: Ray {version} is installed, but a version from {least} to below "
            f"{below} is needed: {install}."
        )


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PreflightError(
                    f"Port {port} on {host} is taken: choose another with --port or PASCAL_PORT."
                ) from error
            raise PreflightError(f"Cannot listen on {host}:{port}: {error.strerror}.") from error


def _check_memory(config: Config) -> None:
    workers = config.workers
    per_worker = 0 if workers.kv_resume == "recompute" else int(workers.kv_offload_gib * _GIB)
    if workers.emulate:
        per_worker = _WORKER_BYTES  # its KV memory and that of its host are emulated
    elif cpu_build():  # on GPUs vLLM itself checks the memory
        per_worker += _WORKER_BYTES
        per_worker += 0 if workers.kv_blocks else int(workers.kv_cache_gib * _GIB)
        weights = Path(config.model_path).glob("*.safetensors")
        per_worker += sum(file.stat().st_size for file in weights)
    needed = workers.count * per_worker
    available = _available_bytes()
    if available is not None and available < needed:
        raise PreflightError(
            f"Too little memory: {workers.count} workers need about {needed / _GIB:.1f} GiB, "
            f"{available / _GIB:.1f} GiB are available; use fewer with --workers, or less memory "
            "for KV with --kv-cache-gib and workers.kv_offload_gib."
        )


def _available_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _check_profile(config: Config) -> None:
    """:raises PreflightError: the device profile does not exist, or is wrong."""
    if config.workers.emulate:
        try:
            load_profile(config.workers.emulate)
        except ProfileError as error:
            raise PreflightError(f"workers.emulate: {error}") from error


def _check_gpus(config: Config, count: int) -> None:
    if not needs_gpus(worker_settings(config, "", "").engine):
        return
    there, size = gpus.count(), config.workers.tensor_parallel_size
    if there is None or there >= count * size:
        return
    whose = f"{gpus.VARIABLE} names" if gpus.inherited(os.environ) is not None else "there are"
    raise PreflightError(
        f"Too few GPUs: {count} workers with workers.tensor_parallel_size {size} need "
        f"{count * size}, {whose} {there}; use fewer with --workers."
    )


def _check_state_dir(path: Path) -> None:
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise PreflightError(f"server.state_dir: {folder} is not a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PreflightError(f"server.state_dir: no permission to write to {folder}.")
    logs = path / "logs"
    if logs.exists() and not logs.is_dir():
        raise PreflightError(f"server.state_dir: {logs} is not a folder.")
    if logs.exists() and not os.access(logs, os.W_OK | os.X_OK):
        raise PreflightError(f"server.state_dir: no permission to write to {logs}.")


def _check_socket_paths(count: int) -> None:
    """Check the length of the paths of sockets, which lie in the folder for temporary files."""
    longest = Path(tempfile.gettempdir()) / "pascal-12345678" / f"worker-{count - 1}.sock"
    if len(os.fsencode(longest)) > MAX_SOCKET_PATH_BYTES:
        raise PreflightError(
            f"The path of the folder for temporary files is too long for sockets: "
            f"{tempfile.gettempdir()}; set TMPDIR to a shorter one."
        )


def _check_model(config: Config) -> None:
    path = Path(config.model_path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise PreflightError(f"Model folder {path} has no config.json.")
    elif path.is_absolute() or config.model_path.startswith(".") or path.exists():
        raise PreflightError(f"Model {config.model_path} is not a folder.")
    elif not _HUB_ID.fullmatch(config.model_path):
        raise PreflightError(
            f"Model {config.model_path} is neither a folder nor a hub id such as Qwen/Qwen3-8B."
        )
