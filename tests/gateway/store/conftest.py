"""A store of each kind: tests that take `place` run on SQLite, and on PostgreSQL where it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store import Place
from tests.support.postgresql import PostgresqlServer, postgresql_server
from tests.support.programs import POSTGRESQL, PSYCOPG, needs

KINDS = ["sqlite", pytest.param("postgresql", marks=[needs(POSTGRESQL), needs(PSYCOPG)])]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store: a file that is not there yet, or a new database."""
    if request.param == "sqlite":
        return tmp_path / "deep" / "store.sqlite3"
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A server of PostgreSQL that all tests share."""
    with postgresql_server() as server:
        yield server


@pytest.fixture(scope="module")
def _stoppable() -> Iterator[PostgresqlServer]:
    with postgresql_server() as server:
        yield server


@pytest.fixture
def own_postgresql(_stoppable: PostgresqlServer) -> Iterator[PostgresqlServer]:
    """A server that the test may stop."""
    yield _stoppable
    if _stoppable.is_running:
        _stoppable.go_on()
    else:
        _stoppable.start()
