"""What kind of database a place names: a path is a SQLite file, a URL a PostgreSQL database."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from gateway.store.database import Connection, Database, Place, StoreUnusable
from gateway.store.sqlite import SqliteDatabase, check_file, transaction_in_file


def open_database(place: Place) -> Database:
    """The database at this place, not yet opened. Raises `StoreUnusable`."""
    if isinstance(place, Path):
        return SqliteDatabase(place)
    return _driven(place, "postgres_database").PostgresDatabase(place)  # type: ignore[no-any-return]


def check_store(place: Place) -> None:
    """Check that a gateway could use this store, without changing or creating anything.

    :raises StoreUnusable: it could not.
    """
    if isinstance(place, Path):
        check_file(place)
    else:
        _driven(place, "postgres").check_database(place)


def transaction_in(place: Place, *, create: bool = False) -> AbstractContextManager[Connection]:
    """One transaction, on a connection of its own: for commands.

    :param create: make the store if it is not there.
    :raises StoreUnusable: it cannot be used.
    """
    if isinstance(place, Path):
        return transaction_in_file(place, create=create)
    return _driven(place, "postgres").transaction_at(place)  # type: ignore[no-any-return]


def _driven(place: Place, module: str) -> Any:
    """A module of PostgreSQL, whose driver is not installed everywhere."""
    try:
        return importlib.import_module(f"gateway.store.{module}")
    except ImportError as error:
        raise StoreUnusable(
            place,
            f"its driver is missing ({error}); install the extra `postgresql` of pascal-serve, or "
            "`psycopg[binary]`",
        ) from error
