"""The store in a SQLite file in WAL mode.

All access goes through one thread, since SQLite calls block and the event loop must not. Other
processes may use the same file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog

from gateway.store.database import (
    Connection,
    Database,
    DatabaseError,
    Result,
    Rows,
    StoreUnusable,
    Work,
)
from gateway.store.schema import SCHEMA_VERSION, Types, check_schema, statements_since

log = structlog.get_logger()

TYPES = Types(
    blob="BLOB", real="REAL", integer="INTEGER", table="WITHOUT ROWID", empty_list="X'5B5D'"
)
_WAL_BYTES = 16 * 1024 * 1024  # size to which a larger write-ahead log is cut
_LOCKED_S = 5.0  # how long to wait for another process that writes to the file
_SLICE_PAGES = 2000  # pages returned to the file system in one transaction


class SqliteDatabase(Database):
    """A SQLite file, which is created if it is not there."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None
        self._closing = False
        self._compacting = False  # the thread runs a VACUUM, which may take long

    @property
    def size_bytes(self) -> int:  # type: ignore[override]  # the write-ahead log included
        """Size of the file and its write-ahead log on disk."""
        total = 0
        for path in (self._path, self._path.with_name(f"{self._path.name}-wal")):
            with contextlib.suppress(OSError):  # it does not exist (yet)
                total += path.stat().st_size
        return total

    async def open(self) -> None:
        """Open the file, or create it. Raises `StoreUnusable`."""
        await self._call(self._open)

    async def close(self, within_s: float) -> bool:
        """Close the file after all queued calls."""
        self._closing = True
        if self._compacting and self._connection is not None:
            self._connection.interrupt()
        try:
            await asyncio.wait_for(self._in_thread(self._close), within_s)
        except TimeoutError:
            return False
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)
        return True

    async def run(self, work: Work[Result], *, writes: bool) -> Result:
        """Do something in one transaction."""
        return await self._call(lambda: self._transact(work, writes=writes))

    def keep(self, work: Work[Result]) -> asyncio.Future[Result]:
        """Write something, once."""
        if self._closing:
            failed: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            failed.set_exception(DatabaseError("the store is closed"))
            return failed
        return self._in_thread(lambda: self._transact(work, writes=True))

    async def compact(self) -> None:
        """Return free pages to the file system, in slices.

        A file from before version 1 cannot return space in slices: it is rewritten once, and other
        calls wait for that.
        """
        if await self._call(self._needs_rewriting):
            await self._call(self._rewrite)
        while await self._call(self._give_back_slice):
            pass
        await self._call(self._cut_log)

    def _transact(self, work: Work[Result], *, writes: bool) -> Result:
        with _failures(), _transaction(self._opened(), writes=writes) as connection:
            return work(connection)

    def _give_back_slice(self) -> bool:
        """Return some space; :return: whether there is more."""
        with _failures():
            connection = self._opened()
            before = pragma(connection, "freelist_count")
            if not before or not pragma(connection, "auto_vacuum"):
                return False
            connection.execute(f"PRAGMA incremental_vacuum({_SLICE_PAGES})").fetchall()
            return 0 < pragma(connection, "freelist_count") < before

    def _needs_rewriting(self) -> bool:
        with _failures():
            return not pragma(self._opened(), "auto_vacuum")

    def _rewrite(self) -> None:
        connection, begun_s = self._opened(), time.monotonic()
        self._compacting = True
        try:
            with _failures():
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                if not self._closing:
                    connection.execute("VACUUM")
        finally:
            self._compacting = False
        seconds = round(time.monotonic() - begun_s, 2)
        log.info("store_rewritten", file=self.name, seconds=seconds)

    def _cut_log(self) -> None:
        with _failures():
            self._opened().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    async def _call(self, function: Callable[[], Result]) -> Result:
        if self._closing:
            raise DatabaseError("the store is closed")
        return await self._in_thread(function)

    def _in_thread(self, function: Callable[[], Result]) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise DatabaseError("the store is not open")
        return self._connection

    def _open(self) -> None:
        check_file(self._path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = connect(self._path)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnusable(self._path, _reason_of(error)) from error

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def check_file(path: Path) -> None:
    """Check that a gateway could use this file, without changing or creating anything.

    :raises StoreUnusable: it could not.
    """
    try:
        if not path.exists():
            _check_folder(path)
            return
        if not path.is_file():
            raise StoreUnusable(path, "it is not a file")
        if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
            raise StoreUnusable(path, "no permission to write the file and its folder")
        # Not read-only: a read-only connection leaves files of the write-ahead log behind.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=_LOCKED_S)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            columns = {row[1] for row in connection.execute("PRAGMA table_info(responses)")}
            check_schema(path, tables, columns, pragma(connection, "user_version"))
            connection.execute("BEGIN IMMEDIATE")  # fails where the file cannot be written
            connection.execute("ROLLBACK")
    except (OSError, sqlite3.Error) as error:  # such as a folder that cannot be read
        raise StoreUnusable(path, _reason_of(error)) from error


@contextmanager
def transaction_in_file(path: Path, *, create: bool) -> Iterator[Connection]:
    """One transaction of the file, which has to be there unless it may be created."""
    if not create and not path.exists():
        raise StoreUnusable(path, "there is no such file")
    check_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(connect(path)) as opened, _transaction(opened, writes=True) as connection:
            yield connection
    except (OSError, sqlite3.Error) as error:
        raise StoreUnusable(path, _reason_of(error)) from error


def connect(path: Path) -> sqlite3.Connection:
    """Open a store of this version; a file of an earlier one is upgraded."""
    connection = sqlite3.connect(
        path, timeout=_LOCKED_S, isolation_level=None, check_same_thread=True
    )
    try:
        if not pragma(connection, "page_count"):  # a new file: in others this has no effect
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        connection.execute("BEGIN IMMEDIATE")  # fails where the file cannot be written
        if (version := pragma(connection, "user_version")) < SCHEMA_VERSION:
            for statement in statements_since(version, TYPES):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """The value of a setting of SQLite, as a number."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


class _Connection:
    """A connection within a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        return self._connection.execute(_own(statement), values)

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> None:
        self._connection.executemany(_own(statement), rows)


@lru_cache(maxsize=256)
def _own(statement: str) -> str:
    return statement.replace(" FOR UPDATE SKIP LOCKED", "").replace(" FOR UPDATE", "")


@contextmanager
def _transaction(connection: sqlite3.Connection, *, writes: bool) -> Iterator[Connection]:
    # Who reads and then writes must be alone from the beginning.
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        yield _Connection(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DatabaseError(error) from error


def _check_folder(path: Path) -> None:
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise StoreUnusable(path, f"{folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreUnusable(path, f"no permission to write to {folder}")


def _reason_of(error: Exception) -> str:
    """What is wrong with the file, in a line."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
