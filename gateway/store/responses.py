"""Stores responses in a SQLite file in WAL mode, so that conversations outlive their sessions.

All access goes through one thread, since SQLite calls block and the event loop must not. A row
holds the final response object and the conversation up to and including it. A later request with
``previous_response_id`` continues from there.

A failure of the store does not fail a response: one that cannot be written is logged and counted,
and its client still gets it. A look-up that fails is a `StoreError`. Log lines name the file,
errors for clients do not.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from gateway.schemas.input_items import with_ids
from gateway.store.schema import StoreUnusable, check_store, connect, pragma, reason_of
from workers.messages import ChatMessage

log = structlog.get_logger()

Result = TypeVar("Result")
Failure: TypeAlias = Literal["write", "read", "delete", "clean_up", "queue_full", "unreadable"]

MAX_QUEUED_BYTES = 64 * 1024 * 1024  # most bytes of responses that wait for the thread of the store
_SLICE_ROWS = 500  # rows deleted in one transaction, which takes about ten milliseconds
_SLICE_PAGES = 2000  # pages returned to the file system in one transaction
_CLEAN_UP_EVERY_S = 3600.0  # longest pause between clean-ups; a short retention needs shorter ones
_CLEAN_UP_LEAST_S = 5.0
_ANSWER_S = 15.0  # time for a look-up, including earlier calls in the queue
_CLOSE_S = 10.0  # time for queued calls; a disk that hangs must not delay a shutdown


class StoreError(Unavailable):
    """A stored response cannot be looked up or deleted at the moment."""

    def __init__(self) -> None:
        super().__init__(
            "The store of responses cannot be used at the moment.", code="store_unavailable"
        )


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A finished response. ``conversation`` ends with what the model said and called."""

    response_id: str
    owner: str
    created_at: float  # Unix time
    response: dict[str, Any]  # may hold `orjson.Fragment` until it is stored
    conversation: tuple[ChatMessage, ...]
    input_items: bytes = b"[]"  # of its own request, as a JSON array


class _Output(msgspec.Struct):
    """What is read of a response object."""

    output: list[dict[str, Any]] = []


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
            stored.input_items,
        )
        size_bytes = len(row[3]) + len(row[4]) + len(row[5])
        if self._queued_bytes + size_bytes > self._max_queued_bytes:
            reason = f"{self._queued_bytes} bytes wait to be written already"
            self._failed("queue_full", "response_not_stored", reason, stored.response_id)
            return False
        self._queued_bytes += size_bytes
        try:
            await self._execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?)", row)
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
        rows = await self._read(
            "SELECT created_at, response, conversation, input FROM responses "
            "WHERE response_id = ? AND owner = ?",
            (response_id, owner),
        )
        for created_at, response, conversation, input_items in rows:
            try:
                return StoredResponse(
                    response_id,
                    owner,
                    created_at,
                    msgspec.json.decode(response, type=dict[str, Any]),
                    msgspec.json.decode(conversation, type=tuple[ChatMessage, ...]),
                    input_items,
                )
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._failed("unreadable", "stored_response_unreadable", error, response_id)
        return None

    async def items(self, response_id: str, owner: str) -> list[dict[str, Any]]:
        """All items of a response of this owner, of its input and its output; empty without one.

        :raises StoreError: as `get`.
        """
        rows = await self._read(
            "SELECT input, response FROM responses WHERE response_id = ? AND owner = ?",
            (response_id, owner),
        )
        for input_items, response in rows:
            try:
                found = with_ids(input_items, response_id)
                return found + msgspec.json.decode(response, type=_Output).output
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._failed("unreadable", "stored_response_unreadable", error, response_id)
        return []

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

    async def secret(self, name: str, made: bytes) -> bytes:
        """A secret that outlives the process: ``made``, if there is none by this name yet.

        :raises StoreError: the file cannot be used.
        """

        def take(connection: sqlite3.Connection) -> bytes:
            connection.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, made))
            row = connection.execute("SELECT value FROM secrets WHERE name = ?", (name,))
            return bytes(row.fetchone()[0])

        return await self.transaction("read", take)

    async def transaction(
        self,
        kind: Failure,
        work: Callable[[sqlite3.Connection], Result],
        within_s: float | None = _ANSWER_S,
    ) -> Result:
        """Do something in one transaction of the file.

        :param kind: what a failure is counted as.
        :param within_s: how long the caller waits; None: to the end. What takes longer may still
            be done.
        :raises StoreError: the file cannot be used, or not in time.
        """

        def run() -> Result:
            connection = self._opened()
            with connection:
                return work(connection)

        try:
            async with asyncio.timeout(within_s):
                return await self._call(run)
        except (sqlite3.Error, TimeoutError) as error:
            self._failed(kind, "store_not_used", error)
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

        Of conversations, those go that have not changed since.

        It works in slices, with other calls in between. A file from before version 1 cannot return
        space in slices: it is rewritten once, and other calls wait for that.

        :return: the number of deleted responses.
        :raises sqlite3.Error: the file cannot be written.
        """
        forgotten = 0
        while deleted := await self._call(lambda: self._delete_slice(created_before)):
            forgotten += deleted
        while await self._call(lambda: self._delete_conversation(created_before)):
            pass
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

    def _delete_conversation(self, changed_before: float) -> bool:
        """Delete the oldest conversation; :return: whether there was one that is old enough."""
        connection = self._opened()
        with connection:
            row = connection.execute(
                "SELECT conversation_id FROM conversations WHERE changed_at < ? "
                "ORDER BY changed_at LIMIT 1",
                (changed_before,),
            ).fetchone()
            for table in ("conversation_items", "conversations") if row else ():
                connection.execute(f"DELETE FROM {table} WHERE conversation_id = ?", row)
            return row is not None

    def _give_back_slice(self) -> bool:
        """Return some space; :return: whether there is more."""
        connection = self._opened()
        before = pragma(connection, "freelist_count")
        if not before or not pragma(connection, "auto_vacuum"):
            return False
        connection.execute(f"PRAGMA incremental_vacuum({_SLICE_PAGES})").fetchall()
        return 0 < pragma(connection, "freelist_count") < before

    def _needs_rewriting(self) -> bool:
        return not pragma(self._opened(), "auto_vacuum")

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

    async def _read(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        """The rows of a query whose first value is the id of a response. Raises `StoreError`."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._execute(statement, values)
        except (sqlite3.Error, TimeoutError) as error:
            self._failed("read", "store_not_read", error, values[0])
            raise StoreError from error

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
            self._connection = connect(self._path)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnusable(self._path, reason_of(error)) from error

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


def _clean_up_pause_s(retention_s: float) -> float:
    if not retention_s:
        return _CLEAN_UP_EVERY_S
    return min(_CLEAN_UP_EVERY_S, max(_CLEAN_UP_LEAST_S, retention_s / 4))
