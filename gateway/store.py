"""Stores responses in a SQLite file in WAL mode, so that conversations outlive their sessions.

All access goes through one thread, since SQLite calls block and the event loop must not. A row
holds the final response object and the conversation up to and including it. A later request with
``previous_response_id`` continues from there.

The file carries the version of its schema (``PRAGMA user_version``). A failure of the store does
not fail a response: one that cannot be written is logged and counted, and its client still gets it.
A look-up that fails is a `StoreError`. Log lines name the file, errors for clients do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
import orjson
import structlog

from gateway.schemas.errors import Unavailable
from workers.messages import ChatMessage

log = structlog.get_logger()

Result = TypeVar("Result")
Failure: TypeAlias = Literal["write", "read", "delete", "clean_up", "queue_full", "unreadable"]

SCHEMA_VERSION = 1  # increases with every change of `_SCHEMA`, which then needs a migration
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS responses (
        response_id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        created_at REAL NOT NULL,
        response BLOB NOT NULL,
        conversation BLOB NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS responses_by_age ON responses (created_at)",
)
_COLUMNS = {"response_id", "owner", "created_at", "response", "conversation"}

MAX_QUEUED_BYTES = 64 * 1024 * 1024  # most bytes of responses that wait for the thread of the store
_SLICE_ROWS = 500  # rows deleted in one transaction, which takes about ten milliseconds
_SLICE_PAGES = 2000  # pages returned to the file system in one transaction
_CLEAN_UP_EVERY_S = 3600.0  # longest pause between clean-ups; a short retention needs shorter ones
_CLEAN_UP_LEAST_S = 5.0
_WAL_BYTES = 16 * 1024 * 1024  # size to which a larger write-ahead log is cut
_LOCKED_S = 5.0  # how long to wait for another process that writes to the file
_ANSWER_S = 15.0  # time for a look-up, including earlier calls in the queue
_CLOSE_S = 10.0  # time for queued calls; a disk that hangs must not delay a shutdown


class StoreError(Unavailable):
    """A stored response cannot be looked up or deleted at the moment."""

    def __init__(self) -> None:
        super().__init__(
            "The store of responses cannot be used at the moment.", code="store_unavailable"
        )


class StoreUnusable(Exception):
    """The file cannot be opened as a store; the message names it, for the operator."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"The store {path} cannot be used: {reason}.")


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A finished response. ``conversation`` ends with its answer, without the reasoning."""

    response_id: str
    owner: str
    created_at: float  # Unix time
    response: dict[str, Any]  # may hold `orjson.Fragment` until it is stored
    conversation: tuple[ChatMessage, ...]


class ResponseStore:
    """The stored responses of one gateway; call `open` before use, and `close` at the end.

    :param max_queued_bytes: most bytes that wait to be written; beyond, new responses are dropped.
    """

    def __init__(self, path: Path, *, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self.failures: Counter[Failure] = Counter()  # since the start
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None
        self._max_queued_bytes = max_queued_bytes
        self._queued_bytes = 0
        self._closing = False
        self._compacting = False  # the thread runs a VACUUM, which may take long

    @property
    def size_bytes(self) -> int:
        """Size of the file and its write-ahead log on disk."""
        total = 0
        for path in (self._path, self._path.with_name(f"{self._path.name}-wal")):
            with contextlib.suppress(OSError):  # it does not exist (yet)
                total += path.stat().st_size
        return total

    async def open(self) -> None:
        """Open the file, or create it. Raises `StoreUnusable`."""
        await self._call(self._open)

    async def close(self) -> None:
        """Close the file after all queued writes, unless these take longer than 10 s."""
        self._closing = True
        if self._compacting and self._connection is not None:
            self._connection.interrupt()
        try:
            await asyncio.wait_for(self._in_thread(self._close), _CLOSE_S)
        except TimeoutError:
            log.error("store_not_closed", file=str(self._path), waited_s=_CLOSE_S)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def put(self, stored: StoredResponse) -> bool:
        """Write a response, replacing one with the same id; return when it is on disk.

        :return: whether it was written. If not, the failure was logged and counted.
        """
        row = (
            stored.response_id,
            stored.owner,
            stored.created_at,
            orjson.dumps(stored.response),
            orjson.dumps(stored.conversation, default=msgspec.to_builtins),
        )
        size_bytes = len(row[3]) + len(row[4])
        if self._queued_bytes + size_bytes > self._max_queued_bytes:
            reason = f"{self._queued_bytes} bytes wait to be written already"
            self._failed("queue_full", "response_not_stored", reason, stored.response_id)
            return False
        self._queued_bytes += size_bytes
        try:
            await self._execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            self._failed("write", "response_not_stored", error, stored.response_id)
            return False
        finally:
            self._queued_bytes -= size_bytes
        return True

    async def get(self, response_id: str, owner: str) -> StoredResponse | None:
        """Look up a response of this owner; one that this version cannot read counts as absent.

        :raises StoreError: the file cannot be read within 15 s.
        """
        try:
            async with asyncio.timeout(_ANSWER_S):
                rows = await self._execute(
                    "SELECT created_at, response, conversation FROM responses "
                    "WHERE response_id = ? AND owner = ?",
                    (response_id, owner),
                )
        except (sqlite3.Error, TimeoutError) as error:
            self._failed("read", "store_not_read", error, response_id)
            raise StoreError from error
        for created_at, response, conversation in rows:
            try:
                return StoredResponse(
                    response_id,
                    owner,
                    created_at,
                    msgspec.json.decode(response, type=dict[str, Any]),
                    msgspec.json.decode(conversation, type=tuple[ChatMessage, ...]),
                )
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._failed("unreadable", "stored_response_unreadable", error, response_id)
        return None

    async def delete(self, response_id: str, owner: str) -> None:
        """Delete a response of this owner, if there is one. Raises `StoreError`."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._execute(
                    "DELETE FROM responses WHERE response_id = ? AND owner = ?",
                    (response_id, owner),
                )
        except (sqlite3.Error, TimeoutError) as error:
            self._failed("delete", "response_not_deleted", error, response_id)
            raise StoreError from error

    # ---- keeping it small ---------------------------------------------------------------------

    async def keep_clean(self, retention_s: float) -> None:
        """Clean up at intervals until cancelled, also after a clean-up that failed.

        The interval is a quarter of the retention, from 5 s to an hour.

        :param retention_s: age at which a response is deleted; 0: never.
        """
        pause_s = _clean_up_pause_s(retention_s)
        while True:
            try:
                await self.clean_up(time.time() - retention_s if retention_s else 0.0)
            except sqlite3.Error as error:
                self._failed("clean_up", "store_not_cleaned", error)
            except Exception:  # a bug; later clean-ups must go on
                self.failures["clean_up"] += 1
                log.exception("store_not_cleaned", file=str(self._path))
            await asyncio.sleep(pause_s)

    async def clean_up(self, created_before: float) -> int:
        """Delete responses created before this Unix time, and return their space.

        It works in slices, with other calls in between. A file from before version 1 cannot return
        space in slices: it is rewritten once, and other calls wait for that.

        :return: the number of deleted responses.
        :raises sqlite3.Error: the file cannot be written.
        """
        forgotten = 0
        while deleted := await self._call(lambda: self._delete_slice(created_before)):
            forgotten += deleted
        if await self._call(self._needs_rewriting):
            await self._call(self._rewrite)
        while await self._call(self._give_back_slice):
            pass
        await self._call(self._cut_log)
        if forgotten:
            log.info("store_cleaned", forgotten=forgotten, size_bytes=self.size_bytes)
        return forgotten

    def _delete_slice(self, created_before: float) -> int:
        connection = self._opened()
        with connection:
            return connection.execute(
                "DELETE FROM responses WHERE response_id IN (SELECT response_id FROM responses "
                "WHERE created_at < ? ORDER BY created_at LIMIT ?)",
                (created_before, _SLICE_ROWS),
            ).rowcount

    def _give_back_slice(self) -> bool:
        """Return some space; :return: whether there is more."""
        connection = self._opened()
        before = _pragma(connection, "freelist_count")
        if not before or not _pragma(connection, "auto_vacuum"):
            return False
        connection.execute(f"PRAGMA incremental_vacuum({_SLICE_PAGES})").fetchall()
        return 0 < _pragma(connection, "freelist_count") < before

    def _needs_rewriting(self) -> bool:
        return not _pragma(self._opened(), "auto_vacuum")

    def _rewrite(self) -> None:
        connection, begun_s = self._opened(), time.monotonic()
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._compacting = True
        try:
            if not self._closing:
                connection.execute("VACUUM")
        finally:
            self._compacting = False
        seconds = round(time.monotonic() - begun_s, 2)
        log.info("store_rewritten", file=str(self._path), seconds=seconds)

    def _cut_log(self) -> None:
        self._opened().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # ---- inside -------------------------------------------------------------------------------

    async def _execute(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        def run() -> list[Any]:
            connection = self._opened()
            with connection:
                return connection.execute(statement, values).fetchall()

        return await self._call(run)

    async def _call(self, function: Callable[[], Result]) -> Result:
        if self._closing:
            raise sqlite3.ProgrammingError("the store is closed")
        return await self._in_thread(function)

    async def _in_thread(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the store is not open")
        return self._connection

    def _open(self) -> None:
        check_store(self._path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self._path)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnusable(self._path, _reason(error)) from error

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _failed(
        self, kind: Failure, event: str, reason: object, response_id: str | None = None
    ) -> None:
        self.failures[kind] += 1
        reason = "no answer in time" if isinstance(reason, TimeoutError) else str(reason)
        log.error(event, file=str(self._path), reason=reason, request_id=response_id)


def check_store(path: Path) -> None:
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
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_LOCKED_S)) as connection:
            _check_schema(path, connection)
            connection.execute("BEGIN IMMEDIATE")  # fails where the file cannot be written
            connection.execute("ROLLBACK")
    except (OSError, sqlite3.Error) as error:  # such as a folder that cannot be read
        raise StoreUnusable(path, _reason(error)) from error


def _check_folder(path: Path) -> None:
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise StoreUnusable(path, f"{folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreUnusable(path, f"no permission to write to {folder}")


def _check_schema(path: Path, connection: sqlite3.Connection) -> None:
    """Accept a store of this or an earlier version, and an empty file.

    :raises StoreUnusable: it is another database, or of a later version.
    """
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    if tables and "responses" not in tables:
        raise StoreUnusable(path, "it is a database of another program: no table 'responses'")
    version = _pragma(connection, "user_version")
    if version > SCHEMA_VERSION:
        versions = f"schema version {version}; this one knows {SCHEMA_VERSION}"
        raise StoreUnusable(path, f"a newer pascal-serve wrote it ({versions})")
    columns = {row[1] for row in connection.execute("PRAGMA table_info(responses)")}
    if tables and columns != _COLUMNS:
        different = ", ".join(sorted(columns ^ _COLUMNS))
        raise StoreUnusable(path, f"its table 'responses' has other columns: {different}")


def _connect(path: Path) -> sqlite3.Connection:
    """Open a store of this version; a file from before version 1 is upgraded."""
    connection = sqlite3.connect(path, timeout=_LOCKED_S)
    try:
        if not _pragma(connection, "page_count"):  # a new file: in others this has no effect
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        connection.execute("BEGIN IMMEDIATE")  # fails where the file cannot be written
        if _pragma(connection, "user_version") < SCHEMA_VERSION:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _clean_up_pause_s(retention_s: float) -> float:
    if not retention_s:
        return _CLEAN_UP_EVERY_S
    return min(_CLEAN_UP_EVERY_S, max(_CLEAN_UP_LEAST_S, retention_s / 4))
