"""Stores responses, so that conversations outlive their sessions.

A row holds the final response object and the conversation up to and including it. A later request
with ``previous_response_id`` continues from there.

A failure of the store does not fail a response: one that cannot be written is logged and counted,
and its client still gets it. A look-up that fails is a `StoreError`. Log lines name the database,
errors for clients do not.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import msgspec
import orjson
import structlog

from gateway.schemas.errors import Unavailable
from gateway.schemas.input_items import with_ids
from gateway.store.database import (
    Connection,
    DatabaseError,
    Place,
    Result,
    Work,
)
from gateway.store.places import open_database
from workers.messages import ChatMessage

log = structlog.get_logger()

Failure: TypeAlias = Literal["write", "read", "delete", "clean_up", "queue_full", "unreadable"]

MAX_QUEUED_BYTES = 64 * 1024 * 1024  # most bytes that wait to be written
_SLICE_ROWS = 500  # rows deleted in one transaction, which takes about ten milliseconds
_CLEAN_UP_EVERY_S = 3600.0  # longest pause between clean-ups; a short retention needs shorter ones
_CLEAN_UP_LEAST_S = 5.0
_ANSWER_S = 15.0  # time for a look-up, including earlier calls in the queue
_CLOSE_S = 10.0  # time for queued calls; a disk that hangs must not delay a shutdown
_PUT = (
    "INSERT INTO responses (response_id, owner, created_at, response, conversation, input) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (response_id) DO UPDATE SET owner = excluded.owner, "
    "created_at = excluded.created_at, response = excluded.response, "
    "conversation = excluded.conversation, input = excluded.input"
)


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

    :param place: a SQLite file, or the URL of a PostgreSQL database.
    :param max_queued_bytes: most bytes that wait to be written; beyond, new responses are dropped.
    """

    def __init__(self, place: Place, *, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self.failures: Counter[Failure] = Counter()  # since the start
        self.queued_bytes = 0  # that wait to be written
        self._place = place
        self._database = open_database(place)
        self._max_queued_bytes = max_queued_bytes

    @property
    def size_bytes(self) -> int:
        """Size on disk."""
        return self._database.size_bytes

    @property
    def away(self) -> bool:
        """Whether the database cannot be reached at the moment."""
        return self._database.away

    async def open(self) -> None:
        """Open the store, or create it. Raises `StoreUnusable`."""
        await self._database.open()

    async def close(self) -> None:
        """Close the store after all queued writes, unless these take longer than 10 s."""
        if not await self._database.close(_CLOSE_S):
            log.error("store_not_closed", file=self._database.name, waited_s=_CLOSE_S)

    async def put(self, stored: StoredResponse) -> bool:
        """Write a response, replacing one with the same id; return when it is on disk.

        A database that is away is waited for.

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

        def work(connection: Connection) -> None:
            connection.execute(_PUT, row)

        size_bytes = len(row[3]) + len(row[4]) + len(row[5])
        kept = self._keep(work, size_bytes, "response_not_stored", stored.response_id)
        if kept is None:
            return False
        try:
            await asyncio.shield(kept)
        except DatabaseError:
            return False
        return True

    async def get(self, response_id: str, owner: str) -> StoredResponse | None:
        """Look up a response of this owner; one that this version cannot read counts as absent.

        :raises StoreError: the database cannot be read, or not in time.
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
                    writes=True,
                )
        except (DatabaseError, TimeoutError) as error:
            self._failed("delete", "response_not_deleted", error, response_id)
            raise StoreError from error

    async def secret(self, name: str, made: bytes) -> bytes:
        """A secret that outlives the process: ``made``, if there is none by this name yet.

        :raises StoreError: the database cannot be used.
        """

        def take(connection: Connection) -> bytes:
            connection.execute(
                "INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING", (name, made)
            )
            row = connection.execute("SELECT value FROM secrets WHERE name = ?", (name,))
            return bytes(row.fetchone()[0])

        return await self.transaction("write", take)

    async def transaction(
        self, kind: Failure, work: Work[Result], within_s: float | None = _ANSWER_S
    ) -> Result:
        """Do something in one transaction of the database.

        :param kind: what a failure is counted as. Only ``read`` changes nothing.
        :param within_s: how long the caller waits; None: to the end. What takes longer may still
            be done.
        :raises StoreError: the database cannot be used, or not in time.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self._database.run(work, writes=kind != "read")
        except (DatabaseError, TimeoutError) as error:
            self._failed(kind, "store_not_used", error)
            raise StoreError from error

    async def keep(
        self, work: Work[Result], size_bytes: int, *, to_the_end: bool = False
    ) -> Result | None:
        """Write something once, as soon as the database is there, whatever becomes of the caller.

        :param size_bytes: how much of the queue it takes.
        :param to_the_end: wait for a database that is away, too.
        :return: what ``work`` returns; None if the database is away and it will be done later.
        :raises StoreError: it could not be written; this was logged and counted.
        """
        kept = self._keep(work, size_bytes, "store_not_used")
        if kept is None:
            raise StoreError
        try:
            if not to_the_end:
                await self._database.until_away_or(kept)
                if not kept.done():
                    return None
            return await asyncio.shield(kept)
        except DatabaseError as error:
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
            except DatabaseError as error:
                self._failed("clean_up", "store_not_cleaned", error)
            except Exception:  # a bug; later clean-ups must go on
                self.failures["clean_up"] += 1
                log.exception("store_not_cleaned", file=self._database.name)
            await asyncio.sleep(pause_s)

    async def clean_up(self, created_before: float) -> int:
        """Delete responses created before this Unix time, and return their space.

        Of conversations, those go that have not changed since. It works in slices, with other calls
        in between.

        :return: the number of deleted responses.
        :raises DatabaseError: the database cannot be written.
        """
        forgotten = 0
        while deleted := await self._database.run(
            lambda connection: _delete_slice(connection, created_before), writes=True
        ):
            forgotten += deleted
        while await self._database.run(
            lambda connection: _delete_conversation(connection, created_before), writes=True
        ):
            pass
        await self._database.compact()
        if forgotten:
            log.info("store_cleaned", forgotten=forgotten, size_bytes=self.size_bytes)
        return forgotten

    # ---- inside -------------------------------------------------------------------------------

    async def _read(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        """The rows of a query whose first value is the id of a response. Raises `StoreError`."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._execute(statement, values)
        except (DatabaseError, TimeoutError) as error:
            self._failed("read", "store_not_read", error, values[0])
            raise StoreError from error

    async def _execute(
        self, statement: str, values: tuple[Any, ...], *, writes: bool = False
    ) -> list[Any]:
        return await self._database.run(
            lambda connection: connection.execute(statement, values).fetchall(), writes=writes
        )

    def _keep(
        self, work: Work[Result], size_bytes: int, event: str, response_id: str | None = None
    ) -> asyncio.Future[Result] | None:
        """Queue a write; None: there is no room. Every failure is logged and counted."""
        if self.queued_bytes + size_bytes > self._max_queued_bytes:
            reason = f"{self.queued_bytes} bytes wait to be written already"
            self._failed("queue_full", event, reason, response_id)
            return None
        kept = self._database.keep(work)
        self.queued_bytes += size_bytes
        kept.add_done_callback(partial(self._written, size_bytes, event, response_id))
        return kept

    def _written(
        self, size_bytes: int, event: str, response_id: str | None, kept: asyncio.Future[Any]
    ) -> None:
        self.queued_bytes -= size_bytes
        if kept.cancelled():
            self._failed("write", event, "the store is closed", response_id)
        elif (error := kept.exception()) is not None:
            self._failed("write", event, error, response_id)

    def _failed(
        self, kind: Failure, event: str, reason: object, response_id: str | None = None
    ) -> None:
        self.failures[kind] += 1
        reason = "no answer in time" if isinstance(reason, TimeoutError) else str(reason)
        log.error(event, file=self._database.name, reason=reason, request_id=response_id)


def _delete_slice(connection: Connection, created_before: float) -> int:
    return connection.execute(
        "DELETE FROM responses WHERE response_id IN (SELECT response_id FROM responses "
        "WHERE created_at < ? ORDER BY created_at LIMIT ? FOR UPDATE SKIP LOCKED)",
        (created_before, _SLICE_ROWS),
    ).rowcount


def _delete_conversation(connection: Connection, changed_before: float) -> bool:
    """Delete the oldest conversation; :return: whether there was one that is old enough."""
    row = connection.execute(
        "SELECT conversation_id FROM conversations WHERE changed_at < ? "
        "ORDER BY changed_at LIMIT 1 FOR UPDATE SKIP LOCKED",
        (changed_before,),
    ).fetchone()
    for table in ("conversation_items", "conversations") if row else ():
        connection.execute(f"DELETE FROM {table} WHERE conversation_id = ?", row)
    return row is not None


def _clean_up_pause_s(retention_s: float) -> float:
    if not retention_s:
        return _CLEAN_UP_EVERY_S
    return min(_CLEAN_UP_EVERY_S, max(_CLEAN_UP_LEAST_S, retention_s / 4))
