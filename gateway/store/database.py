"""The database below the store: what SQLite and PostgreSQL have in common.

The SQL of the store is written once, in functions that get a `Connection` and run in a thread. It
has question marks for values, and ``FOR UPDATE`` where a row is read that is then changed: SQLite,
in which only one writes at a time, does without.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

Result = TypeVar("Result")
Place: TypeAlias = Path | str  # of a SQLite file, or the URL of a PostgreSQL database


class StoreUnusable(Exception):
    """It cannot be opened as a store; the message names it, for the operator."""

    def __init__(self, place: Place, reason: object) -> None:
        super().__init__(f"The store {name_of(place)} cannot be used: {reason}.")


class DatabaseError(Exception):
    """A transaction failed.

    :param passing: it may succeed if it is tried again.
    """

    def __init__(self, reason: object, *, passing: bool = False) -> None:
        super().__init__(str(reason))
        self.passing = passing


class Rows(Protocol):
    """What a statement has found or changed."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection within a transaction."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        """Execute a statement."""

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> None:
        """Execute a statement once for each row."""


Work: TypeAlias = Callable[[Connection], Result]


class Database(ABC):
    """One database. Call `open` before use, and `close` at the end."""

    name: str  # for logs, without a password
    size_bytes: int  # on disk

    @property
    def away(self) -> bool:
        """Whether the database cannot be reached at the moment."""
        return False

    @abstractmethod
    async def open(self) -> None:
        """Connect, and make the tables or those that are missing. Raises `StoreUnusable`."""

    @abstractmethod
    async def close(self, within_s: float) -> bool:
        """Disconnect after all writes that wait; :return: whether they were done in time."""

    @abstractmethod
    async def run(self, work: Work[Result], *, writes: bool) -> Result:
        """Do something in one transaction, after all writes that were asked for before.

        :param writes: it changes rows, or locks some.
        :raises DatabaseError: it was not done, or only maybe.
        """

    @abstractmethod
    def keep(self, work: Work[Result]) -> asyncio.Future[Result]:
        """Write something, as soon as the database is there; once, even if the connection breaks.

        It is done even if nobody waits for it any longer.

        :return: fails with `DatabaseError`.
        """

    async def until_away_or(self, kept: asyncio.Future[Any]) -> None:
        """Wait until something is written, or the database is away."""
        await asyncio.wait({kept})

    @abstractmethod
    async def compact(self) -> None:
        """Return the space of deleted rows, if the database does not do that itself."""


def name_of(place: Place) -> str:
    """How messages call a store: a URL without its password and its options."""
    if isinstance(place, Path):
        return str(place)
    scheme, _, rest = place.partition("://")
    rest = rest.partition("?")[0]
    user, at, host = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}"
