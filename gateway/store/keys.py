"""Stores API keys, as digests, and what was used with each of them.

A command in another process adds and revokes keys while a gateway runs, and counts these changes.
The gateway looks at this number, and reads the keys again.

Revoked keys stay in the store: their usage can still be listed, and a gateway whose last key was
revoked does not become open to everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from gateway.store.database import Connection
from gateway.store.places import transaction_in
from gateway.store.responses import ResponseStore

Scope: TypeAlias = Literal["chat", "operations", "admin"]
Priority: TypeAlias = Literal["normal", "low"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PRIORITIES: tuple[Priority, ...] = get_args(Priority)

MOST_KEYS = 10_000  # that are not revoked
_KEPT_DAYS = 400  # of usage
_USAGE_BYTES = 256  # that the usage of one key counts while it waits to be written
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
    """The keys of a store, as a gateway needs them."""

    keys: tuple[StoredKey, ...]  # that are not revoked
    any_ever: bool  # also if all are revoked
    usage: Usages  # of one day


def _version(connection: Connection) -> int:
    row = connection.execute("SELECT value FROM counters WHERE name = 'api_keys'").fetchone()
    return int(row[0])


class KeyStore:
    """The keys in the database of a `ResponseStore`. Every method raises `StoreError`."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def version(self) -> int:
        """A number that changes when a key is added or revoked."""
        return await self._store.transaction("read", _version, None)

    async def load(self, day: int) -> StoredKeys:
        """All keys, and what was used on one day, in days since 1970."""

        def work(connection: Connection) -> StoredKeys:
            keys = keys_in(connection)
            valid = tuple(key for key in keys if key.revoked_at is None)
            return StoredKeys(valid, bool(keys), usage_in(connection, day, day))

        return await self._store.transaction("read", work, None)

    async def add_usage(self, used: Mapping[tuple[str, int], KeyUsage]) -> None:
        """Add what was used, by key and day, and forget what is older than 400 days."""

        def work(connection: Connection) -> None:
            connection.executemany(
                "INSERT INTO key_usage VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (key_id, day) DO UPDATE SET "
                "requests = key_usage.requests + excluded.requests, "
                "prompt_tokens = key_usage.prompt_tokens + excluded.prompt_tokens, "
                "output_tokens = key_usage.output_tokens + excluded.output_tokens",
                [  # in one order, so that two gateways do not wait for each other
                    (key_id, day, usage.requests, usage.prompt_tokens, usage.output_tokens)
                    for (key_id, day), usage in sorted(used.items())
                ],
            )
            oldest = max(day for _, day in used) - _KEPT_DAYS
            connection.execute("DELETE FROM key_usage WHERE day < ?", (oldest,))

        if used:
            # Without a time limit: what is written late must not be written twice.
            await self._store.keep(work, _USAGE_BYTES * len(used), to_the_end=True)


# ---- for commands, which have a connection of their own -----------------------------------------


key_file = transaction_in


def add_key(connection: Connection, key: StoredKey) -> None:
    """Add a key.

    :raises KeyNotAdded: another key that is not revoked has this name, or there are too many.
    """
    _count_change(connection)
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


def revoke_key(connection: Connection, name: str, now: float) -> StoredKey | None:
    """Revoke the key with this name or id, at this Unix time; None: there is no such key."""
    _count_change(connection)
    for key in keys_in(connection):
        if key.revoked_at is None and name in (key.name, key.key_id):
            connection.execute(
                "UPDATE api_keys SET revoked_at = ? WHERE key_id = ?", (now, key.key_id)
            )
            return key
    return None


def _count_change(connection: Connection) -> None:
    """Let gateways notice; first, because others who change keys then wait for the end of this."""
    connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'api_keys'")


def keys_in(connection: Connection) -> list[StoredKey]:
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


def usage_in(connection: Connection, first_day: int, last_day: int) -> Usages:
    """What was used from one day to another, in days since 1970."""
    rows = connection.execute(
        "SELECT key_id, CAST(sum(requests) AS BIGINT), CAST(sum(prompt_tokens) AS BIGINT), "
        "CAST(sum(output_tokens) AS BIGINT) FROM key_usage "
        "WHERE day BETWEEN ? AND ? GROUP BY key_id",
        (first_day, last_day),
    )
    return {key_id: KeyUsage(*counts) for key_id, *counts in rows}
