"""The load of the demonstration: a child process that is watched, started again, and ended.

It is the project's load generator (`bench.load.live`), which sends real requests over real sockets.
It reads its level from a pipe. When the gateway ends, by whatever signal, the pipe closes and the
load ends too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.api.admin import DemoLevel

log = structlog.get_logger()

OFF: Final[DemoLevel] = "off"

_COMMAND: Final = ("-m", "bench.load.live", "--base-url")
_KEY_VARIABLE: Final = "PASCAL_API_KEY"  # where the generator looks for a key
_MOST_FAILURES = 3  # in a row
_PAUSE_S = 1.0
_END_S = 3.0  # time for it to cancel its requests; then it is killed
_KILLED_S = 5.0


class Told(msgspec.Struct, frozen=True):
    """What the generator says about itself. The counts are of clients."""

    level: str = OFF
    running: int = 0
    begun: int = 0
    completed: int = 0
    failed: int = 0
    error: str | None = None


class DemoLoad:
    """Keeps the generator running while a level is set. `close` must be called.

    :param api_key: for the generator, if the gateway asks for keys.
    :param log_path: for what it prints about faults.
    :param command: of the generator, without the address.
    """

    def __init__(
        self, log_path: Path, api_key: str | None = None, command: Sequence[str] = _COMMAND
    ) -> None:
        self.level: DemoLevel = OFF
        self.told = Told()
        self.error: str | None = None  # why it does not run
        self.pid: int | None = None
        self._log_path, self._api_key, self._command = log_path, api_key, tuple(command)
        self._stdin: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def set(self, level: DemoLevel, base_url: str) -> None:
        """Set the level; the generator is started when the first one is set."""
        self.level, self.error = level, None
        if self._stdin is not None:
            self._stdin.write(f"{level}\n".encode())
        elif level != OFF and (self._task is None or self._task.done()) and not self._closed:
            self._task = asyncio.create_task(self._keep(base_url))

    async def close(self) -> None:
        """End the generator, which cancels its requests first."""
        self._closed, self.level = True, OFF
        if self._task is None:
            return
        if self._stdin is not None:
            self._stdin.close()
        else:
            self._task.cancel()
        _, late = await asyncio.wait([self._task], timeout=_END_S)
        for task in late:
            task.cancel()
            await asyncio.wait([task])

    async def _keep(self, base_url: str) -> None:
        failures = 0
        while self.level != OFF:
            try:
                code = await self._run_once(base_url)
            except OSError as error:
                log.warning("demo_load_not_started", reason=str(error))
                code = -1
            if self._closed:
                return
            failures = 1 if self.told.completed else failures + 1
            log.warning("demo_load_ended", code=code, failures_in_a_row=failures)
            if failures >= _MOST_FAILURES:
                self.level = OFF
                self.error = f"The load generator ended with {code}; see {self._log_path}."
                return
            await asyncio.sleep(_PAUSE_S)

    async def _run_once(self, base_url: str) -> int:
        """Run the generator to its end; :return: its exit status."""
        self.told = Told()
        environment = dict(os.environ)
        if self._api_key is not None:
            environment[_KEY_VARIABLE] = self._api_key
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._command,
                base_url,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches only the gateway, which ends it
            )
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid, self._stdin = process.pid, process.stdin
        log.info("demo_load_started", pid=process.pid)
        try:
            self._stdin.write(f"{self.level}\n".encode())
            while line := await process.stdout.readline():
                self._hear(line)
            return await process.wait()
        finally:
            self.pid = self._stdin = None
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), _KILLED_S)

    def _hear(self, line: bytes) -> None:
        try:
            self.told = msgspec.json.decode(line, type=Told)
        except msgspec.MsgspecError:
            log.warning("demo_load_not_understood", line=line[:100].decode(errors="replace"))
