"""The store on a real PostgreSQL: which databases are refused, and how those are named."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.store import (
    SCHEMA_VERSION,
    ConversationStore,
    ResponseStore,
    StoreUnusable,
    check_store,
    name_of,
    schema,
)
from pascal import main
from tests.gateway.store.stored import STORED, opened, statements_of
from tests.gateway.support.real_workers import free_port
from tests.support.postgresql import PostgresqlServer
from tests.support.programs import POSTGRESQL, PSYCOPG, needs

pytestmark = [needs(POSTGRESQL), needs(PSYCOPG)]

OLD = "CREATE TABLE pascal_schema (only_row BOOLEAN PRIMARY KEY DEFAULT true, version BIGINT)"


def execute(url: str, *statements: str) -> list[Any]:
    import psycopg

    with closing(psycopg.connect(url, autocommit=True)) as connection:
        rows: list[Any] = []
        for statement in statements:
            cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
        return rows


def tables_in(url: str) -> set[str]:
    rows = execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row[0] for row in rows}


def make_version(url: str, version: int) -> None:
    from gateway.store.postgres import TYPES

    first = schema._MIGRATIONS[1][0].format(blob="BYTEA", real="DOUBLE PRECISION", table="")
    later = statements_of(version, TYPES)
    insert = f"INSERT INTO pascal_schema (version) VALUES ({version})"
    execute(url, first, *later, OLD, insert)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
async def test_a_store_of_an_earlier_version_is_taken_over(
    postgresql: PostgresqlServer, version: int
) -> None:
    url = postgresql.new_database()
    make_version(url, version)
    row = r"('old', 'alice', 1, '{}'::bytea, '[]'::bytea)"
    columns = "response_id, owner, created_at, response, conversation"
    execute(url, f"INSERT INTO responses ({columns}) VALUES {row}")
    check_store(url)
    # Several gateways that are started together.
    stores = [ResponseStore(url) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    found = await stores[3].get("old", "alice")
    assert found is not None
    assert found.input_items == b"[]"
    await ConversationStore(stores[0]).create("conv", "alice", {})
    assert await ConversationStore(stores[1]).get("conv", "alice") is not None
    for store in stores:
        await store.close()
    assert execute(url, "SELECT version FROM pascal_schema") == [(SCHEMA_VERSION,)]
    assert tables_in(url) == {*schema.TABLES, "pascal_schema"}


async def test_a_database_that_is_no_store_is_refused_and_not_changed(
    postgresql: PostgresqlServer,
) -> None:
    newer, other, altered = (postgresql.new_database() for _ in range(3))
    async with opened(newer):
        pass
    execute(newer, "UPDATE pascal_schema SET version = version + 1")
    execute(other, "CREATE TABLE conversations (id INTEGER)")
    async with opened(altered):
        pass
    execute(altered, "ALTER TABLE responses RENAME COLUMN owner TO possessor")
    nobody = newer.replace("pascal@", "nobody_known@")
    absent = newer + "_absent"
    for url, reason in (
        (newer, r"a newer pascal-serve wrote it \(schema version 6; this one knows 5\)"),
        (other, "schema 'public' has tables of another program"),
        (altered, "its table 'responses' has other columns: owner, possessor"),
        (absent, 'database "pascal_.*_absent" does not exist'),
        (nobody, 'role "nobody_known" does not exist'),
        (newer + "?options=-csearch_path%3Dnone", "names no schema that exists"),
    ):
        tables = tables_in(url) if url == other else None
        for attempt in (check_store, lambda url: asyncio.run(ResponseStore(url).open())):
            with pytest.raises(StoreUnusable, match=reason) as caught:
                await asyncio.to_thread(attempt, url)
            assert f"The store {name_of(url)} cannot be used: " in str(caught.value)
            assert "\n" not in str(caught.value)
        assert tables is None or tables_in(url) == tables


async def test_a_user_who_may_not_create_tables_is_told(postgresql: PostgresqlServer) -> None:
    url = postgresql.new_database()
    execute(url, "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN PASSWORD 'x'")
    execute(url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(StoreUnusable, match="no permission to create tables in schema 'public'"):
        check_store(url.replace("pascal@", "reader:x@"))


async def test_two_schemas_of_one_database_are_two_stores(postgresql: PostgresqlServer) -> None:
    url = postgresql.new_database()
    execute(url, "CREATE SCHEMA one")
    async with opened(url) as public, opened(url + "?options=-csearch_path%3Done") as other:
        await public.put(STORED)
        assert await other.get(STORED.response_id, STORED.owner) is None


async def test_of_several_hosts_the_one_that_can_be_written_is_used(
    postgresql: PostgresqlServer,
) -> None:
    url = postgresql.new_database()
    host = f"127.0.0.1:{postgresql.port}"
    async with opened(url.replace(host, f"127.0.0.1:{free_port()},{host}")) as store:
        assert await store.put(STORED)
    execute(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnusable, match="session is read-only"):
        check_store(url)


def test_a_check_creates_nothing(postgresql: PostgresqlServer) -> None:
    url = postgresql.new_database()
    check_store(url)
    assert tables_in(url) == set()


@pytest.mark.parametrize("command", ["check", "serve", "keys"])
def test_a_server_that_is_not_there_is_named_without_the_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    port = free_port()
    url = f"postgresql://me:hush-hush@127.0.0.1:{port}/gateways?application_name=x"
    for given, reason in ((url, "refused"), (url.replace(f":{port}", ":70000"), "port")):
        store = [f"--set=store.url={given}", f"--set=server.state_dir={tmp_path}"]
        words = ["keys", "list"] if command == "keys" else [command, "--port=0"]
        assert main.main([*words, *store]) == 1
        shown = capsys.readouterr()
        assert (
            f"The store postgresql://me@127.0.0.1:{given.split('@')[1][10:]}".split("?")[0]
            in shown.err
        )
        assert reason in shown.err
        assert "hush" not in shown.err + shown.out


def test_the_configuration_is_printed_without_the_url(
    postgresql: PostgresqlServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgresql.new_database().replace("pascal@", "pascal:hush-hush@")
    arguments = [f"--set=store.url={url}", f"--set=server.state_dir={tmp_path}", "--port=0"]
    assert main.main(["check", *arguments]) == 0
    shown = capsys.readouterr()
    assert 'url = "(hidden)"' in shown.out
    assert "hush" not in shown.err + shown.out


def test_keys_are_added_listed_and_revoked(
    postgresql: PostgresqlServer, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--set", f"store.url={postgresql.new_database()}"]
    assert main.main(["keys", "add", "alice", *store]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("pk-") or shown.out.strip()
    assert "is in postgresql://pascal@127.0.0.1:" in shown.err
    assert main.main(["keys", "add", "alice", *store]) == 1
    assert main.main(["keys", "list", *store]) == 0
    assert "alice" in capsys.readouterr().out
    assert main.main(["keys", "revoke", "alice", *store]) == 0
    assert main.main(["keys", "list", *store]) == 0
    assert "There are no keys in postgresql://" in capsys.readouterr().out
