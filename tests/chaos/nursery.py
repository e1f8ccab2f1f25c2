"""``python -m tests.chaos.nursery FOLDER``: starts worker processes quickly, by forking.

Imports take most of a worker's start-up time. This process imports the modules once and forks for
each worker; after that a worker is the same as ``python -m workers.process``.

Standard input has one `Start` per line. Standard output gets the lines ``started NAME PID`` and
``ended NAME``. FOLDER only marks the command line, which the workers share. The process ends when
its input ends.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys

import msgspec

from workers import process
from workers.settings import WorkerSettings

_LOOK_S = 0.05  # between two checks for workers that have ended

_IMPORTED = (
    "workers.requests.chat_template",
    "workers.engine.interface",
    "workers.link",
    "workers.engine.vllm_config",
    "workers.requests.service",
    "workers.engine.in_process",
    "workers.kv.migration",
    "workers.scheduler.plugin",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.worker.cpu_model_runner",
    "vllm.model_executor.models.qwen3",
)


class Start(msgspec.Struct, frozen=True):
    """A worker to start."""

    settings: WorkerSettings
    log: str  # path of the file that its output goes to


def main() -> None:
    """Start workers until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of imported modules must not mix with the answers
    running: dict[int, str] = {}  # names by process
    text = b""
    while True:
        readable, _, _ = select.select([0], [], [], _LOOK_S)
        if readable:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                start = msgspec.json.decode(line, type=Start)
                _import(start.settings)
                pid = os.fork()
                if not pid:
                    os.close(answers.fileno())
                    _become(start)
                running[pid] = start.settings.instance_id
                print("started", start.settings.instance_id, pid, file=answers)
        while running:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            print("ended", running.pop(pid), file=answers)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _import(settings: WorkerSettings) -> None:
    os.environ.update(process.surroundings(settings))
    for name in _IMPORTED:
        importlib.import_module(name)


def _become(start: Start) -> None:
    """Turn this process into the worker; does not return."""
    os.setsid()
    output = os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    settings = msgspec.json.encode(start.settings).decode()
    sys.argv = ["workers.process", "--settings", settings]
    try:
        process.main()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
