"""Stores API keys, as digests, and what was used with each of them.

A command in another process adds and revokes keys in the file while a gateway runs. The gateway
asks SQLite whether another connection has written (``PRAGMA data_version``), and reads the keys
again.

Revoked keys stay in the file: their usage can still be listed, and a gateway whose last key was
revoked does not become open to everybody.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from gateway.store.responses import ResponseStore
from gateway.store.schema import StoreUnusable, check_store, connect, pragma, reason_of

Scope: TypeAlias = Literal["chat", "operations", "admin"]
Priority: TypeAlias = Literal["normal", "low"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PRIORITIES: tuple[Priority, ...] = get_args(Priority)

MOST_KEYS = 10_000  # that are not revoked
_KEPT_DAYS = 400  # of usage
_COLUMNS = (
    "key_id, name, prefix, digest, scopes, requests_per_minute, tokens_per_minute, "
    "tokens_per_day, concurrent, priority, created_at, revoked_at"
)


class KeyNotAdded(Exception):
    """A key cannot be added; the message says why, for the operator."""


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What may be used with a key; None: as much as the server has."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # of prompts and outputs
    tokens_per_day: int | None = None  # from midnight to midnight, UTC
    concurrent: int | None = None  # responses that are being generated


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key without its text."""

    key_id: str
    name: str
    prefix: str  # the beginning of its text, by which people and look-ups find it
    digest: bytes  # SHA-256 of its text
    scopes: frozenset[Scope]
    limits: KeyLimits
    priority: Priority
    created_at: float  # Unix time
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """What was used with a key in some time."""

    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt_tokens + self.output_tokens

    def __add__(self, other: KeyUsage) -> KeyUsage:
        return KeyUsage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.output_tokens + other.output_tokens,
        )


Usages: TypeAlias = dict[str, KeyUsage]  # by the id of the key


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """The keys of a file, as a gateway needs them."""

    keys: tuple[StoredKey, ...]  # that are not revoked
    any_ever: bool  # also if all are revoked
    usage: Usages  # of one day


def _version(connection: sqlite3.Connection) -> int:
    return pragma(connection, "data_version")


class KeyStore:
    """The keys in the file of a `ResponseStore`. Every method raises `StoreError`."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def version(self) -> int:
        """A number that changes when another process has written to the file."""
        return await self._store.transaction("read", _version, None)

    async def load(self, day: int) -> StoredKeys:
        """All keys, and what was used on one day, in days since 1970."""

        def work(connection: sqlite3.Connection) -> StoredKeys:
            keys = keys_in(connection)
            valid = tuple(key for key in keys if key.revoked_at is None)
            return StoredKeys(valid, bool(keys), usage_in(connection, day, day))

        return await self._store.transaction("read", work, None)

    async def add_usage(self, used: Mapping[tuple[str, int], KeyUsage]) -> None:
        """Add what was used, by key and day, and forget what is older than 400 days."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO key_usage VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "requests = requests + excluded.requests, "
                "prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
                "output_tokens = output_tokens + excluded.output_tokens",
                [
                    (key_id, day, usage.requests, usage.prompt_tokens, usage.output_tokens)
                    for (key_id, day), usage in used.items()
                ],
            )
            oldest = max(day for _, day in used) - _KEPT_DAYS
            connection.execute("DELETE FROM key_usage WHERE day < ?", (oldest,))

        if used:
            # Without a time limit: what is written late must not be written twice.
            await self._store.transaction("write", work, within_s=None)


# ---- for commands, which have a connection of their own -----------------------------------------


@contextmanager
def key_file(path: Path, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    """One transaction of the file.

    :param create: make the file if it is not there.
    :raises StoreUnusable: the file cannot be used.
    """
    if not create and not path.exists():
        raise StoreUnusable(path, "there is no such file")
    check_store(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(connect(path)) as connection, connection:
            yield connection
    except (OSError, sqlite3.Error) as error:
        raise StoreUnusable(path, reason_of(error)) from error


def add_key(connection: sqlite3.Connection, key: StoredKey) -> None:
    """Add a key.

    :raises KeyNotAdded: another key that is not revoked has this name, or there are too many.
    """
    valid = [other for other in keys_in(connection) if other.revoked_at is None]
    if any(other.name == key.name for other in valid):
        raise KeyNotAdded(f"there is a key named '{key.name}' already; revoke it first")
    if len(valid) >= MOST_KEYS:
        raise KeyNotAdded(f"there are {len(valid)} keys, the most that are possible")
    limits = key.limits
    connection.execute(
        f"INSERT INTO api_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key.key_id,
            key.name,
            key.prefix,
            key.digest,
            " ".join(sorted(key.scopes)),
            limits.requests_per_minute,
            limits.tokens_per_minute,
            limits.tokens_per_day,
            limits.concurrent,
            key.priority,
            key.created_at,
            key.revoked_at,
        ),
    )


def revoke_key(connection: sqlite3.Connection, name: str, now: float) -> StoredKey | None:
    """Revoke the key with this name or id, at this Unix time; None: there is no such key."""
    for key in keys_in(connection):
        if key.revoked_at is None and name in (key.name, key.key_id):
            connection.execute(
                "UPDATE api_keys SET revoked_at = ? WHERE key_id = ?", (now, key.key_id)
            )
            return key
    return None


def keys_in(connection: sqlite3.Connection) -> list[StoredKey]:
    """All keys, also those that are revoked, the oldest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, key_id")
    return [
        StoredKey(
            key_id,
            name,
            prefix,
            digest,
            frozenset(scope for scope in SCOPES if scope in scopes.split()),
            KeyLimits(requests, tokens, of_day, concurrent),
            priority,
            created_at,
            revoked_at,
        )
        for (
            key_id,
            name,
            prefix,
            digest,
            scopes,
            requests,
            tokens,
            of_day,
            concurrent,
            priority,
            created_at,
            revoked_at,
        ) in rows
    ]


def usage_in(connection: sqlite3.Connection, first_day: int, last_day: int) -> Usages:
    """What was used from one day to another, in days since 1970."""
    rows = connection.execute(
        "SELECT key_id, sum(requests), sum(prompt_tokens), sum(output_tokens) FROM key_usage "
        "WHERE day BETWEEN ? AND ? GROUP BY key_id",
        (first_day, last_day),
    )
    return {key_id: KeyUsage(*counts) for key_id, *counts in rows}
