"""Stored responses: a SQLite file in WAL mode, so that a conversation outlives its session.

All access goes through one thread: SQLite calls block, and the event loop must not. A row holds the
final response object and the conversation up to and including it, which is what a later request
with ``previous_response_id`` goes on from.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from workers.messages import ChatMessage

Result = TypeVar("Result")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    response_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    created_at REAL NOT NULL,
    response BLOB NOT NULL,
    conversation BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS responses_by_age ON responses (created_at);
"""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One finished response. ``conversation`` ends with its answer, without the thoughts."""

    response_id: str
    owner: str
    created_at: float  # Unix time
    response: dict[str, Any]
    conversation: tuple[ChatMessage, ...]


class ResponseStore:
    """Open it with `open`, close it with `close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Create the file and its table if need be. Raises sqlite3.Error if it cannot be used."""
        await self._call(self._open)

    async def close(self) -> None:
        """Close the file; what was put before is in it."""
        await self._call(self._close)
        self._thread.shutdown()

    async def put(self, stored: StoredResponse) -> None:
        """Keep a response; one with the same id is replaced."""
        row = (
            stored.response_id,
            stored.owner,
            stored.created_at,
            msgspec.json.encode(stored.response),
            msgspec.json.encode(stored.conversation),
        )
        await self._execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?)", row)

    async def get(self, response_id: str, owner: str) -> StoredResponse | None:
        """A response of this owner."""
        rows = await self._execute(
            "SELECT created_at, response, conversation FROM responses "
            "WHERE response_id = ? AND owner = ?",
            (response_id, owner),
        )
        for created_at, response, conversation in rows:
            return StoredResponse(
                response_id,
                owner,
                created_at,
                msgspec.json.decode(response),
                msgspec.json.decode(conversation, type=tuple[ChatMessage, ...]),
            )
        return None

    async def delete(self, response_id: str, owner: str) -> None:
        """Forget a response of this owner, if there is one."""
        await self._execute(
            "DELETE FROM responses WHERE response_id = ? AND owner = ?", (response_id, owner)
        )

    async def delete_older(self, created_before: float) -> None:
        """Forget what was created before this Unix time."""
        await self._execute("DELETE FROM responses WHERE created_at < ?", (created_before,))

    async def _execute(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        def run() -> list[Any]:
            assert self._connection is not None, "the store is not open"
            with self._connection:
                return self._connection.execute(statement, values).fetchall()

        return await self._call(run)

    async def _call(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(self._path)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
