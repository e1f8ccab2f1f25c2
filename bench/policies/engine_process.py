"""Processes with engines that a measurement starts, watches and ends.

`ServerProcess` runs any command. It has one OpenMP thread, a log whose end is quoted on failure,
and a session of its own, which ends as a whole. `EngineProcess` adds a conversation in JSON lines:
it runs the function ``serve`` of a module of this project. That function gets one message after
another and sends its answers; it may import vLLM, which this module must not.

Both end with their ``with`` block. An `EngineProcess` also ends if this process is killed, because
its standard input then ends.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from bench.reporting.errors import BenchmarkError
from bench.reporting.vllm_environment import one_threaded

ROOT: Final = Path(__file__).parents[2]
_LAST_WORDS: Final = 2000  # characters
_END_S: Final = 20.0

Send = Callable[[object], None]
T = TypeVar("T")


class ProcessFailed(BenchmarkError):
    """A process failed; the message ends with the last lines that it printed."""


class ServerProcess:
    """A command that runs while its ``with`` block does."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        core: int | None = None,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        """Nothing starts before the ``with`` block.

        :param name: how errors call it.
        :param command: arguments of the Python.
        :param core: the processor core for all its threads; None: any.
        :param environment: variables to set, in addition to those of this process.
        :param python: the interpreter; another environment's has other packages.
        """
        self.name = name
        self._command = [python, *command]
        self._core = core
        self._environment = {**one_threaded(), **(environment or {})}

    def __enter__(self) -> Self:
        """Start it; :raises ProcessFailed: if it cannot run on that core."""
        self._log = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=self._stdout(),
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends this process
        )
        if self._core is not None:
            try:
                self.move(self._core)
            except OSError as error:
                self.__exit__(None, None, None)
                raise ProcessFailed(
                    f"{self.name} cannot run on core {self._core}: {error}"
                ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it: ask, wait some seconds, then kill whatever is left of its session."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a message that it did not read
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _stdout(self) -> Any:
        return self._log

    @property
    def pid(self) -> int:
        """The process that was started; it may have children."""
        return self._process.pid

    def check(self) -> None:
        """Do nothing while it runs; :raises ProcessFailed: if it has ended."""
        if self._process.poll() is not None:
            raise self.failed(f"it ended with status {self._process.returncode}")

    def failed(self, reason: str) -> ProcessFailed:
        """An error that names the reason and quotes the end of the log."""
        self._log.seek(0)
        last = self._log.read()[-_LAST_WORDS:].strip() or "(it printed nothing)"
        return ProcessFailed(f"{self.name}: {reason}: {last}")

    def move(self, core: int) -> None:
        """Let all its threads run on this core, and those that they start."""
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has just ended
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), {core})

    def _pids(self) -> list[int]:
        """The processes of its session."""
        pids = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                if os.getsid(int(directory.name)) == self._process.pid:
                    pids.append(int(directory.name))
        return pids


class EngineProcess(ServerProcess):
    """A module's ``serve`` in a process of its own, and the messages to and from it."""

    def __init__(self, name: str, module: str, *, core: int | None = None) -> None:
        """:param module: it has ``serve(messages, send)``, see `main`."""
        super().__init__(name, ["-m", "bench.policies.engine_process", module], core=core)

    def _stdout(self) -> Any:
        return subprocess.PIPE

    def send(self, message: object) -> None:
        """Send one message. If the process has ended, the next `receive` says why."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()

    def receive(self, kind: type[T]) -> T:
        """Wait for the next answer; :raises ProcessFailed: if the process ends instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise self.failed("it failed")
        return msgspec.json.decode(line, type=kind)


# ---- in the new process


def main() -> None:
    """``python -m bench.policies.engine_process MODULE``.

    Calls ``MODULE.serve(messages, send)``: an iterator over the messages, as JSON, and a function
    that sends an answer. Standard output carries the answers alone; what libraries print goes to
    standard error.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.policies.engine_process")
    parser.add_argument("module", metavar="MODULE")
    module = parser.parse_args().module
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(answer: object) -> None:
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()

    messages = _messages()  # before vLLM is imported, which takes seconds
    importlib.import_module(module).serve(messages, send)


def _messages() -> Iterator[bytes]:
    """Lines of standard input. When it ends, so does this process, even during a run."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, name="standard-input", daemon=True).start()
    return iter(lines.get, None)


if __name__ == "__main__":
    main()
