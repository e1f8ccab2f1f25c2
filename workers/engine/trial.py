"""Compiles structures on trial, each in a process of its own.

A hostile structure may need all time and all memory, or crash the process that compiles it. So a
host process is forked before the engine is loaded, while this process has few threads and little
memory. It forks again for each trial. A trial has bounds for its time and its memory, and however
it ends, it harms nobody.

    worker --(a socket)--> host: fork --> trial: read the structure, compile it, answer, exit
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import multiprocessing
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable

import msgspec
import structlog

from workers.errors import RequestRejected
from workers.messages import Structure

_log = structlog.get_logger()

MAX_MEMORY = 2 << 30  # bytes of address space that a trial may take beyond what the host has
MAX_WAIT_S = 60.0  # for the answer of a trial, however busy the machine is
_STACK = 4 << 20  # bytes; less than the engine has, so that what passes here passes there
_NICE = 5  # streams that run go first
_LONGEST_ANSWER = 64 * 1024  # bytes

Compile = Callable[[Structure], None]


class Outcome(enum.Enum):
    """How a trial ended."""

    RIGHT = "right"
    LATE = "late"  # it was ended, because it took too long
    CRASHED = "crashed"


class _Answer(msgspec.Struct, frozen=True):
    """What a trial says about its structure; no code: it is right."""

    code: str | None = None
    message: str = ""
    param: str | None = None


class HostGone(Exception):
    """The host process has ended."""


class TrialHost:
    """The process that forks the trials."""

    def __init__(self, prepare: Callable[[], object], compile_one: Compile) -> None:
        """Fork the host; must be called before this process has many threads.

        :param prepare: runs once in the host, before the first trial.
        :param compile_one: runs in the trial; raises `RequestRejected` for a wrong structure.
        """
        ours, theirs = socket.socketpair()
        self._socket = ours
        # Forked, not spawned: a new interpreter would need seconds to import vLLM.
        context = multiprocessing.get_context("fork")
        self._process = context.Process(
            target=_host, args=(theirs, prepare, compile_one), name="structures", daemon=True
        )
        self._process.start()
        theirs.close()

    async def run(self, structure: Structure, cpu_s: float) -> Outcome:
        """Try a structure in a process of its own.

        :param cpu_s: processor time that the trial may take.
        :raises RequestRejected: it is wrong, and the trial knows why.
        :raises HostGone: there is no host process.
        """
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self._socket, [b"+"], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise HostGone from error
        finally:
            theirs.close()
        request = msgspec.json.encode((cpu_s, structure))
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                with contextlib.suppress(ConnectionError):  # it ended before it read all
                    writer.write(request)
                    writer.write_eof()
                    await writer.drain()
                said = await _read_all(reader)
        except TimeoutError:
            return Outcome.LATE
        finally:
            writer.close()
        if said == b"":
            return Outcome.CRASHED
        if said == _LATE:
            return Outcome.LATE
        answer = msgspec.json.decode(said, type=_Answer)
        if answer.code is not None:
            raise RequestRejected(answer.code, answer.message, answer.param)
        return Outcome.RIGHT

    def close(self) -> None:
        """End the host."""
        self._socket.close()


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(ConnectionError):
        return await reader.read(_LONGEST_ANSWER)
    return b""


# ---- in the host, and in the processes that it forks -------------------------------------------

_LATE = b"late"
_TIMERS = (signal.SIGPROF, signal.SIGALRM)


def _host(connection: socket.socket, prepare: Callable[[], object], compile_one: Compile) -> None:
    """Fork for each trial, until the worker is gone."""
    _forget_the_worker(connection)
    prepared = False
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        if not data:
            os._exit(0)
        if not prepared:
            prepare()
            prepared = True
        for descriptor in descriptors:
            if not os.fork():
                connection.close()
                _supervise(socket.socket(fileno=descriptor), compile_one)
            os.close(descriptor)


def _forget_the_worker(connection: socket.socket) -> None:
    """Close what belongs to the worker, and undo what it set for signals."""
    keep = connection.fileno()
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != keep:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(int(name))
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the worker
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the trials


def _supervise(connection: socket.socket, compile_one: Compile) -> None:
    """Run a trial, and answer in its place if it is killed. Does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = b""
    while part := connection.recv(65536):
        request += part
    child = os.fork()
    if not child:
        _try(connection, request, compile_one)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in _TIMERS:
        connection.sendall(_LATE)
    os._exit(0)


def _try(connection: socket.socket, request: bytes, compile_one: Compile) -> None:
    """Compile the structure within the bounds, and answer. Does not return."""
    cpu_s, structure = msgspec.json.decode(request, type=tuple[float, Structure])
    _bound(cpu_s)
    answers: list[_Answer] = []
    threading.stack_size(_STACK)
    thread = threading.Thread(target=lambda: answers.append(_answer(structure, compile_one)))
    thread.start()
    thread.join()
    if answers:
        with contextlib.suppress(OSError):  # the worker has gone
            connection.sendall(msgspec.json.encode(answers[0]))
    os._exit(0)


def _bound(cpu_s: float) -> None:
    for timer in _TIMERS:
        signal.signal(timer, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, MAX_WAIT_S / 2)
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_MEMORY, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICE)


def _answer(structure: Structure, compile_one: Compile) -> _Answer:
    try:
        compile_one(structure)
    except RequestRejected as rejection:
        return _Answer(rejection.code, rejection.message[:1000], rejection.param)
    return _Answer()
