"""The file of the store: its tables, their versions, and whether it can be used.

The file carries the version of its schema (``PRAGMA user_version``). One of an earlier version is
upgraded when it is opened; one of a later version, or of another program, is refused.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

# Increases with every change of the tables, which then needs a migration, and of what rows hold, if
# an earlier version would lose some of it. Version 2: conversations have calls, results, thoughts.
SCHEMA_VERSION = 4
# By the version that brought them; a file gets those of later versions than its own.
_MIGRATIONS = {
    1: (
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
    ),
    # The input items of responses, conversations of their own, and secrets.
    3: (
        "ALTER TABLE responses ADD COLUMN input BLOB NOT NULL DEFAULT X'5B5D'",  # "[]"
        """
        CREATE TABLE conversations (
            conversation_id TEXT PRIMARY KEY,
            owner TEXT NOT NULL,
            created_at REAL NOT NULL,
            changed_at REAL NOT NULL,
            metadata BLOB NOT NULL,
            size_bytes INTEGER NOT NULL,
            next_place INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE INDEX conversations_by_age ON conversations (changed_at)",
        """
        CREATE TABLE conversation_items (
            conversation_id TEXT NOT NULL,
            place INTEGER NOT NULL,
            item_id TEXT NOT NULL,
            item BLOB NOT NULL,
            PRIMARY KEY (conversation_id, place)
        ) WITHOUT ROWID
        """,
        "CREATE UNIQUE INDEX conversation_items_by_id "
        "ON conversation_items (conversation_id, item_id)",
        "CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    ),
    # API keys, and what was used with each on each day.
    4: (
        """
        CREATE TABLE api_keys (
            key_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            prefix TEXT NOT NULL,
            digest BLOB NOT NULL,
            scopes TEXT NOT NULL,
            requests_per_minute INTEGER,
            tokens_per_minute INTEGER,
            tokens_per_day INTEGER,
            concurrent INTEGER,
            priority TEXT NOT NULL,
            created_at REAL NOT NULL,
            revoked_at REAL
        ) WITHOUT ROWID
        """,
        "CREATE UNIQUE INDEX api_keys_by_name ON api_keys (name) WHERE revoked_at IS NULL",
        """
        CREATE TABLE key_usage (
            key_id TEXT NOT NULL,
            day INTEGER NOT NULL,
            requests INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            output_tokens INTEGER NOT NULL,
            PRIMARY KEY (key_id, day)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX key_usage_by_day ON key_usage (day)",
    ),
}
_ADDED, _ADDED_BY = {"input"}, 3
_COLUMNS = {"response_id", "owner", "created_at", "response", "conversation"} | _ADDED

_WAL_BYTES = 16 * 1024 * 1024  # size to which a larger write-ahead log is cut
_LOCKED_S = 5.0  # how long to wait for another process that writes to the file


class StoreUnusable(Exception):
    """The file cannot be opened as a store; the message names it, for the operator."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"The store {path} cannot be used: {reason}.")


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
        raise StoreUnusable(path, reason_of(error)) from error


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
    version = pragma(connection, "user_version")
    if version > SCHEMA_VERSION:
        versions = f"schema version {version}; this one knows {SCHEMA_VERSION}"
        raise StoreUnusable(path, f"a newer pascal-serve wrote it ({versions})")
    columns = {row[1] for row in connection.execute("PRAGMA table_info(responses)")}
    expected = _COLUMNS if version >= _ADDED_BY else _COLUMNS - _ADDED
    if tables and columns != expected:
        different = ", ".join(sorted(columns ^ expected))
        raise StoreUnusable(path, f"its table 'responses' has other columns: {different}")


def connect(path: Path) -> sqlite3.Connection:
    """Open a store of this version; a file of an earlier one is upgraded."""
    connection = sqlite3.connect(path, timeout=_LOCKED_S)
    try:
        if not pragma(connection, "page_count"):  # a new file: in others this has no effect
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        connection.execute("BEGIN IMMEDIATE")  # fails where the file cannot be written
        if (version := pragma(connection, "user_version")) < SCHEMA_VERSION:
            for added_by, statements in _MIGRATIONS.items():
                for statement in statements if added_by > version else ():
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


def reason_of(error: Exception) -> str:
    """What is wrong with the file, in a line."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
