"""A PostgreSQL database below the store, which may be away for a while.

Calls run in threads, one transaction each. Reads have connections of their own; all writes go
through one connection, in the order in which they were asked for, and a read comes after the writes
that were asked for before it. The event loop ends a call that takes too long by shutting the socket
of its connection down, so that a server that is silent holds nobody.

If the database is away, what a caller waits for fails at once, and what is to be kept waits in
memory until a connection succeeds again. A write whose connection broke while it was committed is
not repeated if the server says that it is there (``pg_xact_status``).
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic

import psycopg
import structlog

from gateway.store import postgres
from gateway.store.database import (
    Connection,
    Database,
    DatabaseError,
    Result,
    StoreUnusable,
    Work,
    name_of,
)
from gateway.store.postgres import Lost, OpenTransaction

log = structlog.get_logger()

_READERS = 4  # reads at a time
_THREADS = _READERS + 2  # with the writer, and who looks whether the database is back
_CALL_S = 5.0  # time for a transaction, connecting included
_BATCH = 64  # most writes in one transaction
_ATTEMPTS = 5  # for a write that may succeed if it is tried again
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_LOOK_S = 30.0  # between two looks at the size, which also notice that the database is away


@dataclass(slots=True)
class _Progress(Generic[Result]):
    """How far a transaction has come."""

    transaction: str = ""  # its number, if it is asked for
    committing: bool = False
    result: Result | None = None


@dataclass(slots=True)
class _Job:
    """A write that waits."""

    work: Work[Any]
    done: asyncio.Future[Any]
    kept: bool


class _Call:
    """What runs in a thread, and can be ended from the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._overdue = False

    @contextmanager
    def on(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Use a connection that `end` will cut."""
        with self._lock:
            if self._overdue:
                raise Lost("no answer in time")
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    @property
    def overdue(self) -> bool:
        """Whether it took too long."""
        return self._overdue

    def end(self) -> None:
        """Let the thread find its connection broken."""
        with self._lock:
            self._overdue = True
            if self._connection is not None and not self._connection.closed:
                with (
                    suppress(OSError),
                    socket.socket(fileno=os.dup(self._connection.fileno())) as own,
                ):
                    own.shutdown(socket.SHUT_RDWR)


class PostgresDatabase(Database):
    """A PostgreSQL database; its tables are made if they are not there."""

    def __init__(self, url: str) -> None:
        self.name = name_of(url)
        self.size_bytes = 0
        self._url = url
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")
        self._readers = asyncio.Semaphore(_READERS)
        self._idle: list[psycopg.Connection[Any]] = []
        self._jobs: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._new_job = asyncio.Event()
        self._there = asyncio.Event()
        self._turned: asyncio.Future[None] | None = None  # done when the database goes away
        self._away_since_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._coming_back: asyncio.Task[None] | None = None
        self._closing = False  # takes nothing new
        self._closed = False

    @property
    def away(self) -> bool:
        """Whether the database cannot be reached at the moment."""
        return not self._there.is_set()

    async def open(self) -> None:
        """Connect, and make the tables or those that are missing. Raises `StoreUnusable`."""
        try:
            await self._in_thread(self._prepare, postgres.MIGRATION_S + _CALL_S)
        except DatabaseError as error:
            raise StoreUnusable(self._url, error) from error
        self._there.set()
        self._turned = asyncio.get_running_loop().create_future()
        self._tasks = [
            asyncio.create_task(self._write_jobs()),
            asyncio.create_task(self._look()),
        ]

    async def close(self, within_s: float) -> bool:
        """Disconnect after all writes that wait."""
        self._closing = True
        waiting = {job.done for job in (*self._running, *self._jobs)}
        if waiting:
            await asyncio.wait(waiting, timeout=within_s)
        self._closed = True
        for task in (*self._tasks, self._coming_back):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        left = [job for job in (*self._running, *self._jobs) if not job.done.done()]
        for job in left:
            job.done.set_exception(DatabaseError("the store is closed"))
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._drop_idle()
        return not left

    async def run(self, work: Work[Result], *, writes: bool) -> Result:
        """Do something in one transaction; fails at once while the database is away."""
        self._check_there()
        if writes:
            return await self._queued(work, kept=False)
        if queued := [*self._running, *self._jobs]:
            await self._until_away_or(queued[-1].done, _CALL_S)
            self._check_there()
        async with self._readers:
            self._check_there()
            return await self._transaction(work, _Progress())

    def keep(self, work: Work[Result]) -> asyncio.Future[Result]:
        """Write something, as soon as the database is there."""
        return self._queued(work, kept=True)

    async def until_away_or(self, kept: asyncio.Future[Any]) -> None:
        """Wait until something is written, or the database is away."""
        if not self.away:
            await self._until_away_or(kept, None)

    async def compact(self) -> None:
        """Nothing: PostgreSQL uses the space of deleted rows again by itself (autovacuum)."""
        self.size_bytes = await self.run(postgres.size_in, writes=False)

    # ---- writes, one after another ------------------------------------------------------------

    def _queued(self, work: Work[Result], *, kept: bool) -> asyncio.Future[Result]:
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if self._closing or not self._tasks:
            done.set_exception(DatabaseError("the store is not open"))
            return done
        self._jobs.append(_Job(work, done, kept))
        self._new_job.set()
        return done

    async def _write_jobs(self) -> None:
        while True:
            await self._new_job.wait()
            self._new_job.clear()
            while self._jobs:
                self._running = self._next_jobs()
                await self._write(self._running)
                self._running = []

    def _next_jobs(self) -> list[_Job]:
        """The next ones that are written in one transaction: one, or several that are kept."""
        jobs = [self._jobs.popleft()]
        while jobs[0].kept and self._jobs and self._jobs[0].kept and len(jobs) < _BATCH:
            jobs.append(self._jobs.popleft())
        return jobs

    async def _write(self, jobs: list[_Job]) -> None:
        (first, *others) = jobs
        if not first.kept:
            if not first.done.done():  # else nobody waits any more
                await self._write_once(first)
            return
        works = [job.work for job in jobs]
        try:
            results = await self._write_to_the_end(lambda one: [work(one) for work in works])
        except Exception as error:  # noqa: BLE001 -- whoever waits gets it
            if not others:
                _fail(first, error)
                return
            for job in jobs:  # one of them cannot be written
                await self._write([job])
            return
        for job, result in zip(jobs, results, strict=True):
            _finish(job, result)

    async def _write_once(self, job: _Job) -> None:
        try:
            self._check_there()
            _finish(job, await self._transaction(job.work, _Progress()))
        except Exception as error:  # noqa: BLE001 -- whoever waits gets it
            _fail(job, error)

    async def _write_to_the_end(self, work: Work[Result]) -> Result:
        """Repeat a transaction until the database is there and has it.

        :raises DatabaseError: the database refuses it.
        """
        progress: _Progress[Result] = _Progress()
        refused = 0
        while True:
            await self._there.wait()
            try:
                if progress.committing:
                    state = await self._state_of(progress.transaction)
                    if state == "committed":
                        return progress.result  # type: ignore[return-value]
                    if state == "in progress":
                        await asyncio.sleep(_FIRST_PAUSE_S)
                        continue
                progress = _Progress()
                return await self._transaction(work, progress, numbered=True)
            except Lost:
                continue
            except DatabaseError as error:
                refused += 1
                if not error.passing or refused == _ATTEMPTS:
                    raise
                await asyncio.sleep(_pause_s(refused))

    async def _state_of(self, transaction: str) -> str:
        """Whether the server has committed a transaction: its word for it."""

        def ask(connection: Connection) -> str:
            row = connection.execute("SELECT pg_xact_status(?::text::xid8)", (transaction,))
            return str(row.fetchone()[0])

        try:
            return await self._transaction(ask, _Progress())
        except Lost:
            raise
        except DatabaseError:  # another server has taken over, and knows no such transaction
            return "aborted"

    # ---- whether it is there ------------------------------------------------------------------

    def _check_there(self) -> None:
        if self._closing:
            raise DatabaseError("the store is closed")
        if self.away:
            raise DatabaseError("the database is away")

    async def _until_away_or(self, done: asyncio.Future[Any], within_s: float | None) -> None:
        assert self._turned is not None
        await asyncio.wait(
            {done, self._turned}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED
        )

    def _lost(self, error: Lost) -> None:
        if self.away or self._closed:
            return
        self._there.clear()
        self._away_since_s = time.monotonic()
        log.error("store_away", file=self.name, reason=str(error))
        if self._turned is not None:
            self._turned.set_result(None)
        self._turned = asyncio.get_running_loop().create_future()
        self._coming_back = asyncio.create_task(self._come_back())

    async def _come_back(self) -> None:
        attempt = 0
        while self.away:
            attempt += 1
            await asyncio.sleep(_pause_s(attempt))
            try:
                await self._transaction(_nothing, _Progress())
            except DatabaseError:
                continue
            except Exception:
                log.exception("store_not_reached")
                continue
            self._there.set()
            away_s = round(time.monotonic() - self._away_since_s, 1)
            log.info("store_back", file=self.name, away_s=away_s, waiting=len(self._jobs))

    async def _look(self) -> None:
        while True:
            with suppress(DatabaseError):  # it was noted
                self.size_bytes = await self.run(postgres.size_in, writes=False)
            await asyncio.sleep(_LOOK_S)

    # ---- transactions in threads --------------------------------------------------------------

    async def _transaction(
        self, work: Work[Result], progress: _Progress[Result], *, numbered: bool = False
    ) -> Result:
        return await self._in_thread(
            lambda call: self._transact(call, work, progress, numbered=numbered), _CALL_S
        )

    async def _in_thread(self, function: Callable[[_Call], Result], within_s: float) -> Result:
        """:raises DatabaseError: it failed, or took too long."""
        loop = asyncio.get_running_loop()
        call = _Call()
        timer = loop.call_later(within_s, call.end)
        running = self._threads.submit(function, call)
        running.add_done_callback(lambda _: _soon(loop, timer.cancel))
        try:
            # A thread that is not in a connection, but looks up a name, cannot be ended.
            async with asyncio.timeout(within_s + 1):
                return await asyncio.wrap_future(running)
        except TimeoutError:
            error = Lost("no answer in time")
            self._lost(error)
            raise error from None
        except Lost as error:
            self._lost(error)
            raise

    def _prepare(self, call: _Call) -> None:
        connection = postgres.connect(self._url)
        try:
            with call.on(connection):
                postgres.prepare(self._url, connection)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def _transact(
        self, call: _Call, work: Work[Result], progress: _Progress[Result], *, numbered: bool
    ) -> Result:
        """One transaction; another one if the first was on a connection that had died unnoticed."""
        while True:
            connection, used = self._take()
            try:
                with call.on(connection):
                    return self._work_on(connection, work, progress, numbered=numbered)
            except psycopg.Error as error:
                failure = postgres.error_of(error, broken=connection.broken)
                if isinstance(failure, Lost):
                    connection.close()
                    self._drop_idle()
                    if used and not progress.committing and not call.overdue:
                        continue
                raise failure from error
            finally:
                self._give_back(connection)

    def _work_on(
        self,
        connection: psycopg.Connection[Any],
        work: Work[Result],
        progress: _Progress[Result],
        *,
        numbered: bool,
    ) -> Result:
        with connection.transaction():
            one = OpenTransaction(connection)
            if numbered:
                row = one.execute("SELECT pg_current_xact_id()::text").fetchone()
                progress.transaction = row[0]
            progress.result = result = work(one)
            progress.committing = True
        progress.committing = False
        return result

    def _take(self) -> tuple[psycopg.Connection[Any], bool]:
        """A connection, and whether it was used before."""
        try:
            return self._idle.pop(), True
        except IndexError:
            return postgres.connect(self._url), False

    def _give_back(self, connection: psycopg.Connection[Any]) -> None:
        idle = psycopg.pq.TransactionStatus.IDLE
        if self._closing or connection.info.transaction_status != idle:
            connection.close()
        elif not connection.closed:
            self._idle.append(connection)

    def _drop_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


def _nothing(connection: Connection) -> None:
    connection.execute("SELECT 1")


def _pause_s(attempt: int) -> float:
    longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 10))
    return longest * random.uniform(0.5, 1.0)


def _finish(job: _Job, result: Any) -> None:
    if not job.done.done():
        job.done.set_result(result)


def _fail(job: _Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop was closed in the meantime
        loop.call_soon_threadsafe(function)
