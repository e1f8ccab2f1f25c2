"""The `ray` launcher: runs each worker as a process of an actor in an existing Ray cluster.

Ray chooses the machine of an actor, gives it its GPUs and restarts it when it or its machine fails.
The actor starts a plain worker process there, reports its address, and ends with it. The gateway
dials that worker like any other that runs elsewhere. Actors are detached: when a gateway dies, the
next one takes them over; when it is stopped, it ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import ray
import structlog
from ray.exceptions import RayError

from gateway.config import Config
from gateway.launchers.dialer import Dialler, Place
from gateway.launchers.local import CannotServe
from gateway.launchers.worker_settings import worker_settings
from gateway.routing.cluster import Cluster
from gateway.routing.worker_link import LinkError
from workers.settings import WorkerSettings

log = structlog.get_logger()

_CONNECT_S = 30.0  # to join the cluster, which takes a few seconds
_ANSWER_S = 10.0  # for a call of an actor; one with a machine answers at once
_CALL_S = 30.0  # for a call of Ray, which may wait for the head of the cluster
_STABLE_S = 60.0  # a worker that served this long is restarted after a short pause
_LISTENING = "0A"  # state of a socket in /proc/net/tcp


class WorkerActor:
    """Starts a worker on the machine of the actor. Of Ray it uses only the machine's address."""

    def __init__(self, settings: str, pause_s: float, long_pause_s: float) -> None:
        """Start the process.

        :param settings: `WorkerSettings` as JSON, without address, token and pipe.
        :param pause_s: pause before a restart of a worker that served well; else ``long_pause_s``.
        """
        self._settings = settings
        self._pauses_s = (pause_s, long_pause_s)
        host = ray.util.get_node_ip_address()
        # Bound but not listening, so that no other process gets the port while the engine loads.
        self._port = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind((host, 0))
        shown = f"[{host}]" if ":" in host else host
        self._address = f"tcp://{shown}:{self._port.getsockname()[1]}"
        self._token = secrets.token_urlsafe(32)
        # The worker exits when this end closes, however this process ends.
        read_end, self._pipe = os.pipe()
        complete = msgspec.structs.replace(
            msgspec.json.decode(settings, type=WorkerSettings),
            listen=self._address,
            token=self._token,
            parent_fd=read_end,
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workers.process", "--settings", "-"],
            stdin=subprocess.PIPE,
            pass_fds=(read_end,),
            start_new_session=True,
        )
        os.close(read_end)
        assert self._process.stdin is not None
        with self._process.stdin as pipe:
            pipe.write(msgspec.json.encode(complete))
        threading.Thread(target=self._follow, name="worker-watch", daemon=True).start()

    def place(self) -> dict[str, Any]:
        """Return the settings, address, token and process id of the worker."""
        return {
            "settings": self._settings,
            "address": self._address,
            "token": self._token,
            "pid": self._process.pid,
        }

    def _follow(self) -> None:
        """Exit with an error when the worker ends, so that Ray restarts both."""
        port = self._port.getsockname()[1]
        serves_since_s: float | None = None
        while self._process.poll() is None:
            if serves_since_s is None and listens(port):  # a worker listens once it can serve
                serves_since_s = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        short_s, long_s = self._pauses_s
        stable = serves_since_s is not None and time.monotonic() - serves_since_s > _STABLE_S
        time.sleep(short_s if stable else long_s)  # Ray itself makes no pause
        os._exit(1)


class RayLauncher:
    """Creates ``config.workers.count`` actors and dials their workers."""

    restartable = True

    def __init__(self, config: Config, cluster: Cluster) -> None:
        self.count = config.workers.count
        self.restarts_total = 0
        self._config = config
        self._dialler = Dialler(config, cluster)
        self._names = [f"worker-{index}" for index in range(self.count)]
        self._actors: dict[str, Any] = {}
        self._killing: set[asyncio.Task[None]] = set()
        self._pids: dict[str, tuple[str, int]] = {}  # last known address and process of each worker

    @property
    def names(self) -> Collection[str]:
        """Names of all its instances."""
        return self._names

    @property
    def failures(self) -> Mapping[str, int]:
        """Consecutive failures to reach each worker."""
        return self._dialler.failures

    @property
    def restart_timeout_s(self) -> float:
        """How long a restart may take, including the pause of the actor before it."""
        workers = self._config.workers
        return workers.start_timeout_s + workers.restart_backoff_max_s + _CALL_S

    def restart(self, instance_id: str) -> None:
        """Kill an actor and its worker; Ray restarts it."""
        if (actor := self._actors.get(instance_id)) is not None:
            task = asyncio.create_task(_kill(instance_id, actor, no_restart=False))
            self._killing.add(task)
            task.add_done_callback(self._killing.discard)

    def describe(self) -> str:
        """Describe what `run` starts, in one line for the terminal."""
        plural = "s" * (self.count != 1)
        where = f"the Ray cluster at {self._config.launcher.address}"
        return f"Starting {self.count} worker{plural} on {where} with {self._config.model_line}"

    async def run(self) -> None:
        """Keep all workers connected until cancelled, then end every actor.

        :raises CannotServe: the cluster cannot be joined.
        """
        address = self._config.launcher.address
        try:
            await _check_cluster(address)
            # In another thread: in the main thread Ray would handle SIGTERM.
            await in_thread(
                partial(
                    ray.init,
                    address=address,
                    namespace=self._config.launcher.namespace,
                    log_to_driver=False,
                    configure_logging=False,
                )
            )
        except (ConnectionError, RuntimeError, TimeoutError, ValueError, RayError) as error:
            raise CannotServe(
                f"launcher.address: no Ray cluster at {address!r}: {_first_line(error)}"
            ) from error
        try:
            async with asyncio.TaskGroup() as tasks:
                for name in self._names:
                    locate = partial(self._locate, name)
                    tasks.create_task(self._dialler.keep_connected(name, locate))
        finally:
            try:
                await in_thread(self._end)
            except TimeoutError as error:
                log.error("ray_actors_not_ended", reason=str(error))

    async def _locate(self, name: str) -> Place:
        try:
            if name not in self._actors:
                self._actors[name] = await in_thread(partial(self._create, name))
            place = await asyncio.wait_for(self._actors[name].place.remote(), _ANSWER_S)
        except NoAnswer as error:
            raise LinkError(f"its Ray actor cannot be created: {error}") from error
        except TimeoutError as error:
            raise LinkError(
                "its Ray actor has no machine yet; `ray status` shows what is missing"
            ) from error
        except (RayError, ValueError) as error:
            self._actors.pop(name, None)
            raise LinkError(f"its Ray actor failed: {_first_line(error)}") from error
        if place["settings"] != self._settings(name):
            await _kill(name, self._actors.pop(name), no_restart=True)
            raise LinkError("another gateway started it with other settings; it is started again")
        pid = (place["address"], place["pid"])
        if self._pids.setdefault(name, pid) != pid:
            self._pids[name] = pid
            self.restarts_total += 1
            log.info("worker_restarted", instance_id=name, address=place["address"])
        return Place(place["address"], place["token"])

    def _create(self, name: str) -> Any:
        """Create the actor of this name, or find it."""
        launcher, workers = self._config.launcher, self._config.workers
        gpus = launcher.gpus
        if gpus < 0:
            on_gpus = worker_settings(self._config, name, "").engine == "async"
            gpus = workers.tensor_parallel_size if on_gpus else 0
        actor = ray.remote(WorkerActor).options(
            name=name,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            num_cpus=launcher.cpus,
            num_gpus=gpus,
        )
        return actor.remote(
            self._settings(name), workers.restart_backoff_s, workers.restart_backoff_max_s
        )

    def _settings(self, name: str) -> str:
        return msgspec.json.encode(worker_settings(self._config, name, "")).decode()

    def _end(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor, no_restart=True)
        ray.shutdown()


class NoAnswer(TimeoutError):
    """A call of Ray did not return in time."""


async def in_thread(function: Callable[[], Any]) -> Any:
    """Call Ray in a thread, without blocking the event loop and with a time-out.

    :raises NoAnswer: it takes longer than 30 s. The thread goes on, but unlike one of asyncio's own
        it does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if answer.done():
            return  # it timed out
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    def call() -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 (handed to the caller)
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=call, name="ray-call", daemon=True).start()
    done, _ = await asyncio.wait([answer], timeout=_CALL_S)
    if not done:
        raise NoAnswer(f"Ray does not answer within {_CALL_S:.0f} s")
    return answer.result()


async def _kill(name: str, actor: Any, *, no_restart: bool) -> None:
    try:
        await in_thread(partial(ray.kill, actor, no_restart=no_restart))
    except (RayError, TimeoutError, ValueError) as error:
        log.error("ray_actor_not_killed", instance_id=name, reason=_first_line(error))


def listens(port: int) -> bool:
    """Whether a process of this machine accepts TCP connections on a port."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):  # no IPv6
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    return True
    return False


async def _check_cluster(address: str) -> None:
    """Join the cluster from another process, and leave it.

    If there is no cluster, Ray tries for many minutes and would block this process.

    :raises ConnectionError: with Ray's message.
    """
    code = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, address),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), _CONNECT_S)
    except TimeoutError as error:
        raise ConnectionError(f"no answer within {_CONNECT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = errors.decode("utf-8", "replace").strip().splitlines()
        raise ConnectionError(lines[-1] if lines else f"exit status {process.returncode}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
