"""Stores conversations: their metadata, and their items in order.

Every call belongs to an owner, and finds nothing of others. Places of items only grow: one that was
deleted is not taken again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from gateway.store.database import Connection
from gateway.store.responses import ResponseStore

Item: TypeAlias = dict[str, Any]

_ITEM_BYTES = 1024  # that each item counts beside its text, so that their number is bounded, too


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """A conversation, without its items."""

    conversation_id: str
    created_at: float  # Unix time
    metadata: dict[str, str]
    size_bytes: int = 0  # of the items
    next_place: int = 0


class ConversationStore:
    """The conversations in the database of a `ResponseStore`. Every method raises `StoreError`."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def create(self, conversation_id: str, owner: str, metadata: dict[str, str]) -> None:
        """Add a conversation without items."""
        now = time.time()
        row = (conversation_id, owner, now, now, msgspec.json.encode(metadata))
        await self._store.transaction(
            "write",
            lambda connection: connection.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, ?, 0, 0)", row
            ),
        )

    async def get(self, conversation_id: str, owner: str) -> StoredConversation | None:
        """Look up a conversation."""
        return await self._store.transaction("read", lambda c: _row(c, conversation_id, owner))

    async def set_metadata(
        self, conversation_id: str, owner: str, metadata: dict[str, str]
    ) -> StoredConversation | None:
        """Replace the metadata; return the conversation, if there is one."""

        def work(connection: Connection) -> StoredConversation | None:
            connection.execute(
                "UPDATE conversations SET metadata = ?, changed_at = ? "
                "WHERE conversation_id = ? AND owner = ?",
                (msgspec.json.encode(metadata), time.time(), conversation_id, owner),
            )
            return _row(connection, conversation_id, owner)

        return await self._store.transaction("write", work)

    async def delete(self, conversation_id: str, owner: str) -> bool:
        """Delete a conversation and its items; return whether there was one."""

        def work(connection: Connection) -> bool:
            if _locked(connection, conversation_id, owner) is None:
                return False
            for table in ("conversation_items", "conversations"):
                connection.execute(
                    f"DELETE FROM {table} WHERE conversation_id = ?", (conversation_id,)
                )
            return True

        return await self._store.transaction("delete", work)

    async def items(
        self, conversation_id: str, owner: str
    ) -> tuple[StoredConversation, list[Item]] | None:
        """A conversation with all of its items."""

        def work(connection: Connection) -> tuple[StoredConversation, list[Item]] | None:
            if (found := _row(connection, conversation_id, owner)) is None:
                return None
            return found, _items(connection, conversation_id)

        return await self._store.transaction("read", work)

    async def page(
        self, conversation_id: str, *, after: str | None, limit: int, ascending: bool
    ) -> tuple[list[Item], bool] | None:
        """Some items, and whether others follow; None if there is no item ``after``.

        The caller has looked up the conversation.
        """
        compared, order = (">", "ASC") if ascending else ("<", "DESC")

        def work(connection: Connection) -> list[Any] | None:
            values: tuple[Any, ...] = (conversation_id,)
            bound = ""
            if after is not None:
                place = connection.execute(
                    "SELECT place FROM conversation_items "
                    "WHERE conversation_id = ? AND item_id = ?",
                    (conversation_id, after),
                ).fetchone()
                if place is None:
                    return None
                values += place
                bound = f"AND place {compared} ? "
            return connection.execute(
                f"SELECT item FROM conversation_items WHERE conversation_id = ? {bound}"
                f"ORDER BY place {order} LIMIT ?",
                (*values, limit + 1),
            ).fetchall()

        if (rows := await self._store.transaction("read", work)) is None:
            return None
        return [_item(row) for (row,) in rows[:limit]], len(rows) > limit

    async def item(self, conversation_id: str, owner: str, item_id: str) -> Item | None:
        """Look up one item."""

        def work(connection: Connection) -> Any:
            if _row(connection, conversation_id, owner) is None:
                return None
            return connection.execute(
                "SELECT item FROM conversation_items WHERE conversation_id = ? AND item_id = ?",
                (conversation_id, item_id),
            ).fetchone()

        row = await self._store.transaction("read", work)
        return None if row is None else _item(row[0])

    async def add(
        self,
        conversation_id: str,
        owner: str,
        make: Callable[[StoredConversation, Callable[[], list[Item]]], list[Item]],
        *,
        kept_bytes: int | None = None,
    ) -> list[Item] | None:
        """Add items at the end, and return them; None if there is no such conversation.

        An item whose id is there already takes no second place.

        :param make: makes them, of the conversation and of a function that reads its items. Both
            are of the same transaction, so nothing is added in between. What it raises is raised
            here, and then nothing is added. It runs in the thread of the store.
        :param kept_bytes: their size; they are added later if the database is away now, before any
            look-up. The answer is None then.
        """

        def work(connection: Connection) -> list[Item] | None:
            if (found := _locked(connection, conversation_id, owner)) is None:
                return None
            items = make(found, lambda: _items(connection, conversation_id))
            size_bytes = found.size_bytes
            for place, item in enumerate(items, found.next_place):
                text = msgspec.json.encode(item)
                added = connection.execute(
                    "INSERT INTO conversation_items VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (conversation_id, place, item["id"], text),
                )
                size_bytes += added.rowcount * (len(text) + _ITEM_BYTES)
            connection.execute(
                "UPDATE conversations SET changed_at = ?, next_place = ?, size_bytes = ? "
                "WHERE conversation_id = ?",
                (time.time(), found.next_place + len(items), size_bytes, conversation_id),
            )
            return items

        if kept_bytes is not None:
            return await self._store.keep(work, kept_bytes)
        return await self._store.transaction("write", work)

    async def delete_item(self, conversation_id: str, owner: str, item_id: str) -> bool:
        """Delete one item; return whether there was one."""

        def work(connection: Connection) -> bool:
            if _locked(connection, conversation_id, owner) is None:
                return False
            place = (conversation_id, item_id)
            row = connection.execute(
                "SELECT length(item) FROM conversation_items "
                "WHERE conversation_id = ? AND item_id = ?",
                place,
            ).fetchone()
            if row is None:
                return False
            connection.execute(
                "DELETE FROM conversation_items WHERE conversation_id = ? AND item_id = ?", place
            )
            connection.execute(
                "UPDATE conversations SET size_bytes = size_bytes - ?, changed_at = ? "
                "WHERE conversation_id = ?",
                (row[0] + _ITEM_BYTES, time.time(), conversation_id),
            )
            return True

        return await self._store.transaction("delete", work)


def size_of(items: list[Item]) -> int:
    """What these items count."""
    return sum(len(msgspec.json.encode(item)) + _ITEM_BYTES for item in items)


def _locked(connection: Connection, conversation_id: str, owner: str) -> StoredConversation | None:
    """A conversation that nobody else changes until the end of the transaction."""
    return _row(connection, conversation_id, owner, " FOR UPDATE")


def _row(
    connection: Connection, conversation_id: str, owner: str, lock: str = ""
) -> StoredConversation | None:
    row = connection.execute(
        "SELECT created_at, metadata, size_bytes, next_place FROM conversations "
        f"WHERE conversation_id = ? AND owner = ?{lock}",
        (conversation_id, owner),
    ).fetchone()
    if row is None:
        return None
    created_at, metadata, size_bytes, next_place = row
    return StoredConversation(
        conversation_id,
        created_at,
        msgspec.json.decode(metadata, type=dict[str, str]),
        size_bytes,
        next_place,
    )


def _items(connection: Connection, conversation_id: str) -> list[Item]:
    rows = connection.execute(
        "SELECT item FROM conversation_items WHERE conversation_id = ? ORDER BY place",
        (conversation_id,),
    )
    return [_item(row) for (row,) in rows]


def _item(row: bytes) -> Item:
    return msgspec.json.decode(row, type=dict[str, Any])
