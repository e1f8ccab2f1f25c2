"""The `local` launcher: starts, watches and restarts worker processes on this machine.

One task per instance owns its process: it starts it, dials it, serves the link, kills it, pauses
and starts it again. Pauses grow with every failure (`gateway.launchers.backoff`). Each worker holds
the read end of a pipe from the gateway. If the gateway dies, by whatever signal, the pipe closes
and the worker exits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec
import structlog

from gateway.config import Config
from gateway.launchers import gpus
from gateway.launchers.backoff import Backoff
from gateway.launchers.liveness import check_alive
from gateway.launchers.worker_log import WorkerLog
from gateway.launchers.worker_settings import local_settings, needs_gpus, worker_name
from gateway.routing.cluster import Cluster
from gateway.routing.worker_link import LinkError, WorkerLink, open_link
from workers.settings import WorkerSettings

log = structlog.get_logger()

_DIAL_INTERVAL_S = 0.1
_REAPED_S = 0.2
# Consecutive failures of one worker after which a gateway that never served gives up. A gateway
# that has served logs `worker_failed_repeatedly` instead.
_MAX_FAILED_STARTS = 3
_STABLE_S = 60.0  # the failures of a worker that served this long are forgotten
_STOP_S = 3.0  # time for a worker to stop; then it is killed
_KILLED_S = 10.0  # time for a killed worker to end; one that hangs in a driver may never end
_WORKER_NICENESS = (
    5  # below the gateway: a late timer hurts every reader, a late step only one batch
)


class WorkerExited(Exception):
    """The worker process ended without being told to."""


class _RestartAskedFor(Exception):
    """The process is to be replaced by a new one."""


class CannotServe(Exception):
    """No worker could be started; the message gives the reason of the last failure."""


class _Life:
    """When one worker process began to serve."""

    def __init__(self) -> None:
        self.served_since_s: float | None = None

    @property
    def served_s(self) -> float | None:
        """How long it has served; None: it never did."""
        return None if self.served_since_s is None else time.monotonic() - self.served_since_s


class LocalSupervisor:
    """Keeps ``config.workers.count`` workers running until cancelled."""

    restartable = True

    def __init__(self, config: Config, cluster: Cluster, socket_dir: Path) -> None:
        self.count = config.workers.count
        self.restarts_total = 0
        self._config = config
        self._cluster = cluster
        self._socket_dir = socket_dir
        self._log_dir = Path(config.server.state_dir) / "logs"
        # Setting one restarts the worker of that name.
        self._again = {worker_name(i): asyncio.Event() for i in range(config.workers.count)}
        workers = config.workers
        self._backoffs = {
            name: Backoff(
                workers.restart_backoff_s, workers.restart_backoff_max_s, stable_s=_STABLE_S
            )
            for name in self._again
        }

    @property
    def failures(self) -> Mapping[str, int]:
        """Consecutive failures of each worker."""
        return {name: backoff.failures for name, backoff in self._backoffs.items()}

    @property
    def restart_timeout_s(self) -> float:
        """How long a restart may take; a longer one has failed."""
        return self._config.workers.start_timeout_s + _STOP_S + _KILLED_S

    @property
    def names(self) -> Collection[str]:
        """Names of all its instances, connected or not."""
        return self._again.keys()

    def restart(self, instance_id: str) -> None:
        """End the process of an instance and start it again, unless it is starting now."""
        self._again[instance_id].set()

    def describe(self) -> str:
        """Describe what `run` starts, in one line for the terminal."""
        plural = "s" * (self.count != 1)
        what = f"{self.count} worker{plural} with {self._config.model_line}"
        return f"Starting {what}; logs in {self._log_dir}"

    async def run(self) -> None:
        """Keep the workers running until cancelled; every process has ended when it returns.

        :raises CannotServe: one worker failed several times, and none ever served.
        """
        self._log_dir.mkdir(parents=True, exist_ok=True)
        try:
            async with asyncio.TaskGroup() as tasks:
                for index in range(self._config.workers.count):
                    tasks.create_task(self._keep_running(index))
        except* CannotServe as group:
            failure = group.exceptions[0]
        else:
            return
        raise failure

    async def _keep_running(self, index: int) -> None:
        name = worker_name(index)
        backoff = self._backoffs[name]
        while True:
            life = _Life()
            try:
                await self._run_once(index, life)
            except _RestartAskedFor:
                log.info("worker_restart_scheduled", instance_id=name, in_s=0.0)
                self.restarts_total += 1
                continue
            except Exception as error:
                pause_s = backoff.failed(life.served_s)
                self._say_failed(name, error, backoff.failures)
                if backoff.failures >= _MAX_FAILED_STARTS and not self._cluster.ever_served:
                    raise CannotServe(f"{name} {error}") from error
            else:
                pause_s = backoff.failed(life.served_s)
            log.info("worker_restart_scheduled", instance_id=name, in_s=round(pause_s, 2))
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))
            self.restarts_total += 1

    def _say_failed(self, name: str, error: Exception, failures: int) -> None:
        if not isinstance(error, LinkError | WorkerExited | OSError):
            log.exception("worker_handling_failed", instance_id=name)
        log.error("worker_failed", instance_id=name, reason=str(error), failures_in_a_row=failures)
        if failures == _MAX_FAILED_STARTS:
            longest_s = self._config.workers.restart_backoff_max_s
            log.error("worker_failed_repeatedly", instance_id=name, tried_again_every_s=longest_s)

    async def _run_once(self, index: int, life: _Life) -> None:
        """Run one process of a worker from its start to its end."""
        settings = local_settings(self._config, index, self._socket_dir)
        printed = WorkerLog.begun(self._log_dir / f"{settings.instance_id}.log")
        read_end, write_end = os.pipe()
        try:
            process = await self._spawn(settings, index, read_end, printed.path)
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        try:
            link = await self._dial(settings, process, printed)
            try:
                life.served_since_s = time.monotonic()
                again = self._again[settings.instance_id]
                again.clear()
                async with asyncio.TaskGroup() as tasks:
                    watch = tasks.create_task(self._watch(link, process, life))
                    asked = tasks.create_task(_until_asked(again))
                    try:
                        await self._cluster.serve(link)
                    finally:
                        watch.cancel()
                        asked.cancel()
            except ExceptionGroup as group:
                if isinstance(group.exceptions[0], _RestartAskedFor):
                    raise group.exceptions[0] from None
                with contextlib.suppress(TimeoutError):  # a link may end before its process does
                    await asyncio.wait_for(process.wait(), _REAPED_S)
                if process.returncode is not None:
                    why = printed.why_ended(process.returncode, "while serving")
                    raise WorkerExited(why) from group
                raise group.exceptions[0] from group
            finally:
                await link.close()
        finally:
            await _end_process(process, settings.instance_id)
            os.close(write_end)

    async def _spawn(
        self, settings: WorkerSettings, index: int, read_end: int, log_path: Path
    ) -> asyncio.subprocess.Process:
        os.set_inheritable(read_end, True)
        settings = msgspec.structs.replace(settings, parent_fd=read_end)
        environment = dict(os.environ)
        if needs_gpus(settings.engine):
            size = settings.tensor_parallel_size
            environment[gpus.VARIABLE] = gpus.of_worker(environment, index, size)
        with log_path.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "workers.process",
                "--settings",
                msgspec.json.encode(settings).decode(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(read_end,),
                env=environment,
                start_new_session=True,  # Ctrl-C reaches only the gateway, which ends workers
            )
        _lower_priority(process.pid)
        log.info("worker_started", instance_id=settings.instance_id, pid=process.pid)
        return process

    async def _dial(
        self, settings: WorkerSettings, process: asyncio.subprocess.Process, printed: WorkerLog
    ) -> WorkerLink:
        timeout_s = self._config.workers.start_timeout_s
        deadline_s = time.monotonic() + timeout_s
        while True:
            if process.returncode is not None:
                raise WorkerExited(printed.why_ended(process.returncode, "while starting"))
            try:
                return await open_link(settings.listen, settings.token, self._cluster.gateway)
            except LinkError as error:
                if time.monotonic() > deadline_s:
                    raise LinkError(
                        f"does not serve {timeout_s:.0f} s after its start "
                        f"(workers.start_timeout_s; log: {printed.path}): {error}"
                    ) from error
            await asyncio.sleep(_DIAL_INTERVAL_S)

    async def _watch(
        self, link: WorkerLink, process: asyncio.subprocess.Process, life: _Life
    ) -> None:
        """End the link of a worker that exits or falls silent."""
        timeout_s = self._config.workers.heartbeat_timeout_s
        instance_id = link.welcome.instance_id
        backoff = self._backoffs[instance_id]
        while True:
            try:
                code = await asyncio.wait_for(process.wait(), timeout=1.0)
            except TimeoutError:
                check_alive(link, self._cluster, instance_id, timeout_s)
                backoff.forgive(life.served_s or 0.0)
            else:
                raise LinkError(f"the process ended with {code}")


async def _until_asked(again: asyncio.Event) -> None:
    await again.wait()
    raise _RestartAskedFor


def _lower_priority(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended already: `_dial` notices
        os.setpriority(os.PRIO_PROCESS, pid, _WORKER_NICENESS)
    # Linux may share the processor between sessions first. The niceness of a process then counts
    # only within its session, where the worker is alone, so the session gets the niceness, too.
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(f"{_WORKER_NICENESS}\n", encoding="ascii")


async def _end_process(process: asyncio.subprocess.Process, instance_id: str) -> None:
    """Ask a worker to stop, then kill it and its children, which share its process group."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            log.warning("worker_killed", instance_id=instance_id, pid=process.pid)
    with contextlib.suppress(ProcessLookupError):  # the whole group may have ended already
        os.killpg(process.pid, signal.SIGKILL)
    try:
        await asyncio.wait_for(process.wait(), _KILLED_S)
    except TimeoutError:
        log.error("worker_not_killed", instance_id=instance_id, pid=process.pid, waited_s=_KILLED_S)
