"""The tables of the store and their versions.

A store carries the version of its schema. One of an earlier version is upgraded when it is opened;
one of a later version, or of another program, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.store.database import Place, StoreUnusable

# Increases with every change of the tables, which then needs a migration, and of what rows hold, if
# an earlier version would lose some of it. Version 2: conversations have calls, results, thoughts.
SCHEMA_VERSION = 5


@dataclass(frozen=True, slots=True)
class Types:
    """What a database calls the types of columns."""

    blob: str
    real: str
    integer: str
    table: str  # what follows the columns of a table
    empty_list: str  # the bytes "[]"


# By the version that brought them; a store gets those of later versions than its own.
_MIGRATIONS = {
    1: (
        """
        CREATE TABLE IF NOT EXISTS responses (
            response_id TEXT PRIMARY KEY,
            owner TEXT NOT NULL,
            created_at {real} NOT NULL,
            response {blob} NOT NULL,
            conversation {blob} NOT NULL
        ) {table}
        """,
        "CREATE INDEX IF NOT EXISTS responses_by_age ON responses (created_at)",
    ),
    # The input items of responses, conversations of their own, and secrets.
    3: (
        "ALTER TABLE responses ADD COLUMN input {blob} NOT NULL DEFAULT {empty_list}",
        """
        CREATE TABLE conversations (
            conversation_id TEXT PRIMARY KEY,
            owner TEXT NOT NULL,
            created_at {real} NOT NULL,
            changed_at {real} NOT NULL,
            metadata {blob} NOT NULL,
            size_bytes {integer} NOT NULL,
            next_place {integer} NOT NULL
        ) {table}
        """,
        "CREATE INDEX conversations_by_age ON conversations (changed_at)",
        """
        CREATE TABLE conversation_items (
            conversation_id TEXT NOT NULL,
            place {integer} NOT NULL,
            item_id TEXT NOT NULL,
            item {blob} NOT NULL,
            PRIMARY KEY (conversation_id, place)
        ) {table}
        """,
        "CREATE UNIQUE INDEX conversation_items_by_id "
        "ON conversation_items (conversation_id, item_id)",
        "CREATE TABLE secrets (name TEXT PRIMARY KEY, value {blob} NOT NULL) {table}",
    ),
    # API keys, and what was used with each on each day.
    4: (
        """
        CREATE TABLE api_keys (
            key_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            prefix TEXT NOT NULL,
            digest {blob} NOT NULL,
            scopes TEXT NOT NULL,
            requests_per_minute {integer},
            tokens_per_minute {integer},
            tokens_per_day {integer},
            concurrent {integer},
            priority TEXT NOT NULL,
            created_at {real} NOT NULL,
            revoked_at {real}
        ) {table}
        """,
        "CREATE UNIQUE INDEX api_keys_by_name ON api_keys (name) WHERE revoked_at IS NULL",
        """
        CREATE TABLE key_usage (
            key_id TEXT NOT NULL,
            day {integer} NOT NULL,
            requests {integer} NOT NULL,
            prompt_tokens {integer} NOT NULL,
            output_tokens {integer} NOT NULL,
            PRIMARY KEY (key_id, day)
        ) {table}
        """,
        "CREATE INDEX key_usage_by_day ON key_usage (day)",
    ),
    # How often the API keys were changed.
    5: (
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value {integer} NOT NULL) {table}",
        "INSERT INTO counters VALUES ('api_keys', 0)",
    ),
}
_ADDED, _ADDED_BY = {"input"}, 3
_COLUMNS = {"response_id", "owner", "created_at", "response", "conversation"} | _ADDED
TABLES = (
    "responses",
    "conversations",
    "conversation_items",
    "secrets",
    "api_keys",
    "key_usage",
    "counters",
)


def statements_since(version: int, types: Types) -> Iterator[str]:
    """What makes a store of this version one of the present version; 0: an empty one."""
    names = {name: getattr(types, name) for name in types.__slots__}
    for added_by, statements in _MIGRATIONS.items():
        for statement in statements if added_by > version else ():
            yield statement.format(**names)


def check_schema(place: Place, tables: set[str], columns: set[str], version: int) -> None:
    """Accept a store of this or an earlier version, and an empty database.

    :param columns: of the table ``responses``.
    :raises StoreUnusable: it is another database, or of a later version.
    """
    if tables and "responses" not in tables:
        raise StoreUnusable(place, "it is a database of another program: no table 'responses'")
    if version > SCHEMA_VERSION:
        versions = f"schema version {version}; this one knows {SCHEMA_VERSION}"
        raise StoreUnusable(place, f"a newer pascal-serve wrote it ({versions})")
    expected = _COLUMNS if version >= _ADDED_BY else _COLUMNS - _ADDED
    if tables and columns != expected:
        different = ", ".join(sorted(columns ^ expected))
        raise StoreUnusable(place, f"its table 'responses' has other columns: {different}")
