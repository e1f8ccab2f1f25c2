"""The store in a PostgreSQL database: connections, tables and transactions.

Each transaction has the isolation of PostgreSQL's default, *read committed*: what is read to be
changed is locked by ``FOR UPDATE``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from typing import Any, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict

from gateway.store.database import Connection, DatabaseError, Rows, StoreUnusable
from gateway.store.schema import SCHEMA_VERSION, TABLES, Types, check_schema, statements_since

TYPES = Types(
    blob="BYTEA",
    real="DOUBLE PRECISION",
    integer="BIGINT",
    table="",
    empty_list=r"'\x5B5D'::bytea",
)
# A server that is reached answers within these, or says that it does not; a gateway that stops in
# the middle of a transaction holds its locks no longer than this.
_SETTINGS = (
    ("statement_timeout", "4s"),
    ("lock_timeout", "3s"),
    ("idle_in_transaction_session_timeout", "10s"),
)
_CONNECTING = {  # unless the URL says otherwise
    "connect_timeout": "3",
    "application_name": "pascal-serve",
    "target_session_attrs": "read-write",  # of several hosts, the one that can be written
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "5000",
}
MIGRATION_S = 60.0  # most time for it, and for that of another gateway that was first
_MIGRATION_LOCK = 0x70617363616C  # "pascal"
# Of SQLSTATE, by beginning. The server goes, is going or cannot be written any more:
_GONE = ("08", "57P", "25006")
# Too few resources, a deadlock, a lock or a statement that took too long:
_PASSING = ("53", "40", "55P03", "57014")


class Lost(DatabaseError):
    """The connection broke, or there was none to be had."""

    def __init__(self, reason: object) -> None:
        super().__init__(reason, passing=True)


def check_database(url: str) -> None:
    """Check that a gateway could use this database, without changing or creating anything.

    :raises StoreUnusable: it could not.
    """
    with _usable(url), closing(connect(url)) as connection, connection.transaction():
        _check(url, connection)


def prepare(url: str, connection: psycopg.Connection[Any]) -> None:
    """Make the tables, or those that are missing; one gateway at a time.

    :raises StoreUnusable: the database cannot be used.
    """
    with _usable(url), connection.transaction():
        for name in ("statement_timeout", "lock_timeout"):
            connection.execute(b"SELECT set_config(%s, %s, true)", (name, f"{MIGRATION_S:.0f}s"))
        connection.execute(b"SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        if (version := _check(url, connection)) == SCHEMA_VERSION:
            return
        for statement in statements_since(version, TYPES):
            connection.execute(statement.encode())
        connection.execute(
            b"CREATE TABLE IF NOT EXISTS pascal_schema "
            b"(only_row BOOLEAN PRIMARY KEY DEFAULT true CHECK (only_row), version BIGINT NOT NULL)"
        )
        connection.execute(
            b"INSERT INTO pascal_schema (version) VALUES (%s) "
            b"ON CONFLICT (only_row) DO UPDATE SET version = excluded.version",
            (SCHEMA_VERSION,),
        )


@contextmanager
def transaction_at(url: str) -> Iterator[Connection]:
    """One transaction, on a connection of its own. Raises `StoreUnusable`."""
    with _usable(url), closing(connect(url)) as connection:
        prepare(url, connection)
        with connection.transaction():
            yield OpenTransaction(connection)


def connect(url: str) -> psycopg.Connection[Any]:
    """A new connection.

    :raises Lost: there is none to be had.
    :raises DatabaseError: the URL is none.
    """
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its text may have the password
        raise DatabaseError("its URL is not one of PostgreSQL") from None
    try:
        connection = psycopg.connect(**(_CONNECTING | parameters), autocommit=True)
    except psycopg.Error as error:
        raise Lost(reason_of(error)) from None
    try:
        for name, value in _SETTINGS:
            connection.execute(b"SELECT set_config(%s, %s, false)", (name, value))
    except psycopg.Error as error:
        connection.close()
        raise Lost(reason_of(error)) from error
    return connection


def error_of(error: psycopg.Error, *, broken: bool) -> DatabaseError:
    """What a failure means.

    :param broken: its connection cannot be used any more.
    """
    state = error.sqlstate or ""
    if broken or state.startswith(_GONE):
        return Lost(reason_of(error))
    return DatabaseError(reason_of(error), passing=state.startswith(_PASSING))


def reason_of(error: BaseException) -> str:
    """What is wrong with the database, in a line."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


def size_in(connection: Connection) -> int:
    """Bytes on disk of the tables and their indexes."""
    row = connection.execute(
        "SELECT COALESCE(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class "
        "WHERE relnamespace = to_regnamespace(current_schema()) AND relname = ANY(?)",
        (list(TABLES),),
    ).fetchone()
    return int(row[0])


class OpenTransaction:
    """A connection within a transaction."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        """Execute a statement."""
        cursor = self._connection.execute(_own(statement), _storable(values), binary=True)
        return cast(Rows, cursor if cursor.description else _Changed(cursor.rowcount))

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> None:
        """Execute a statement once for each row."""
        with self._connection.cursor() as cursor:
            cursor.executemany(_own(statement), [_storable(values) for values in rows])


class _Changed:
    """The result of a statement that returns no rows."""

    def __init__(self, rowcount: int) -> None:
        self.rowcount = rowcount

    def fetchone(self) -> Any:
        return None

    def fetchall(self) -> list[Any]:
        return []

    def __iter__(self) -> Iterator[Any]:
        return iter(())


@lru_cache(maxsize=256)
def _own(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()


def _storable(values: Sequence[Any]) -> list[Any]:
    return [_escaped(value) if isinstance(value, str) else value for value in values]


def _escaped(text: str) -> str:
    r"""A text without zero characters, which PostgreSQL refuses; different for different texts."""
    return text.replace("\\", r"\\").replace("\0", r"\0")


def _check(url: str, connection: psycopg.Connection[Any]) -> int:
    """Check the tables; :return: their version, 0 if there are none."""
    schema, may_create = _row(
        connection,
        b"SELECT current_schema(), has_schema_privilege(current_schema(), 'CREATE')",
    )
    if schema is None:
        raise StoreUnusable(url, "its search_path names no schema that exists")
    columns = {
        name
        for (name,) in connection.execute(
            b"SELECT column_name FROM information_schema.columns "
            b"WHERE table_schema = %s AND table_name = 'responses'",
            (schema,),
        )
    }
    if _row(connection, b"SELECT to_regclass('pascal_schema')")[0] is None:
        others = _row(
            connection,
            b"SELECT count(*) FROM pg_tables WHERE schemaname = %s AND tablename = ANY(%s)",
            (schema, list(TABLES)),
        )[0]
        if others:
            reason = f"schema '{schema}' has tables of another program; use a database of its own"
            raise StoreUnusable(url, reason)
        if not may_create:
            raise StoreUnusable(url, f"no permission to create tables in schema '{schema}'")
        return 0
    version = int(_row(connection, b"SELECT version FROM pascal_schema")[0])
    check_schema(url, {"responses"} if columns else {"pascal_schema"}, columns, version)
    return version


def _row(
    connection: psycopg.Connection[Any], statement: bytes, values: Sequence[Any] = ()
) -> tuple[Any, ...]:
    row = connection.execute(statement, values).fetchone()
    return tuple(row) if row is not None else (None,)


@contextmanager
def _usable(url: str) -> Iterator[None]:
    try:
        yield
    except (DatabaseError, psycopg.Error) as error:
        raise StoreUnusable(url, reason_of(error)) from error
