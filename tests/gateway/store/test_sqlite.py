"""The store on a real SQLite file: what concerns the file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from gateway.store import (
    SCHEMA_VERSION,
    Connection,
    ConversationStore,
    DatabaseError,
    ResponseStore,
    StoreError,
    StoreUnusable,
    check_store,
    sqlite,
)
from gateway.store import responses as module
from gateway.store.sqlite import SqliteDatabase
from tests.gateway.store.stored import STORED, opened, statements_of
from tests.gateway.support.scripted_service import until

# What the code before schema versions created.
UNVERSIONED = """
CREATE TABLE responses (
    response_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    created_at REAL NOT NULL,
    response BLOB NOT NULL,
    conversation BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX responses_by_age ON responses (created_at);
"""


def database_of(store: ResponseStore) -> SqliteDatabase:
    assert isinstance(store._database, SqliteDatabase)
    return store._database


def fill(path: Path, count: int, created_at: float = 1.0) -> None:
    """Rows of about 4 kB, as real ones have."""
    response = msgspec.json.encode({"text": "x" * 4000})
    conversation = msgspec.json.encode(STORED.conversation)
    rows = [(f"old_{i}", "alice", created_at, response, conversation) for i in range(count)]
    columns = "response_id, owner, created_at, response, conversation"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(f"INSERT INTO responses ({columns}) VALUES (?, ?, ?, ?, ?)", rows)


@pytest.mark.parametrize("versioned", [True, False])
async def test_cleaning_up_lets_others_in_and_gives_the_space_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versioned: bool
) -> None:
    monkeypatch.setattr(module, "_SLICE_ROWS", 50)
    monkeypatch.setattr(sqlite, "_SLICE_PAGES", 100)
    path = tmp_path / "store.sqlite3"
    if versioned:
        async with opened(path):
            pass
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(UNVERSIONED)
    fill(path, 1500)
    slices = 0
    own = module._delete_slice

    def counted(connection: Connection, created_before: float) -> int:
        nonlocal slices
        slices += 1
        return own(connection, created_before)

    monkeypatch.setattr(module, "_delete_slice", counted)
    async with opened(path) as store:
        before = store.size_bytes
        assert before > 6_000_000
        cleaning = asyncio.create_task(store.clean_up(50.0))
        served_at = []
        while not cleaning.done():
            assert await store.put(STORED)
            assert await store.get("resp_1", "alice") == STORED
            served_at.append(slices)
        assert await cleaning == 1500
        assert slices == 31
        assert len(set(served_at)) > 10  # two calls for each slice or two, not all at the end
        assert store.size_bytes < before / 20
        log_path = path.with_name("store.sqlite3-wal")
        assert log_path.stat().st_size < 1_000_000
        # What a later clean-up has to do needs no rewriting any more.
        assert not await database_of(store)._call(database_of(store)._needs_rewriting)


async def test_a_full_queue_drops_the_newest_and_never_waits(tmp_path: Path) -> None:
    free = threading.Event()
    async with opened(tmp_path / "store.sqlite3", max_queued_bytes=5000) as store:
        blocked = asyncio.create_task(database_of(store)._call(free.wait))
        await asyncio.sleep(0)
        large = replace(STORED, response={"text": "x" * 2000})
        puts = [
            asyncio.create_task(store.put(replace(large, response_id=f"resp_{i}")))
            for i in range(50)
        ]
        with capture_logs() as logs:
            done, waiting = await asyncio.wait(puts, timeout=0.1)
        assert (len(waiting), {task.result() for task in done}) == (2, {False})
        assert store.failures["queue_full"] == 48
        assert len(logs) == 48
        assert logs[0]["event"] == "response_not_stored"
        assert logs[0]["file"] == str(tmp_path / "store.sqlite3")
        free.set()
        await blocked
        assert [await task for task in puts[:2]] == [True, True]
        assert await store.put(large)  # there is room again
        assert await store.get("resp_0", "alice") is not None
        assert await store.get("resp_7", "alice") is None


async def test_a_full_disk_costs_only_the_responses_that_found_no_room(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    async with opened(path) as store:
        await store.put(STORED)
        await store._execute("PRAGMA max_page_count = 8", ())
        large = replace(STORED, response_id="resp_2", response={"text": "x" * 100_000})
        with capture_logs() as logs:
            assert not await store.put(large)
        assert store.failures == {"write": 1}
        (line,) = logs
        assert (line["event"], line["file"]) == ("response_not_stored", str(path))
        assert line["reason"] == "database or disk is full"
        assert line["request_id"] == "resp_2"
        assert await store.get("resp_1", "alice") == STORED
        assert await store.get("resp_2", "alice") is None
        await store._execute("PRAGMA max_page_count = 1000", ())
        assert await store.put(large)


async def test_a_disk_that_hangs_ends_the_look_up_and_the_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_S", 0.01)
    monkeypatch.setattr(module, "_CLOSE_S", 0.01)
    free = threading.Event()
    store = ResponseStore(tmp_path / "store.sqlite3")
    await store.open()
    blocked = asyncio.create_task(database_of(store)._call(free.wait))
    await asyncio.sleep(0)
    try:
        with pytest.raises(StoreError):
            await store.get("resp_1", "alice")
        with pytest.raises(StoreError):
            await store.delete("resp_1", "alice")
        with capture_logs() as logs:
            await store.close()
        assert [line["event"] for line in logs] == ["store_not_closed"]
    finally:
        free.set()
        await blocked


async def test_closing_interrupts_a_file_that_is_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(UNVERSIONED)
    fill(path, 20_000)
    store = ResponseStore(path)
    await store.open()
    cleaning = asyncio.create_task(store.clean_up(0.0))
    await until(lambda: database_of(store)._compacting)
    await store.close()
    with pytest.raises(DatabaseError, match="interrupted"):
        await cleaning


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


@pytest.mark.parametrize("version", range(SCHEMA_VERSION))
async def test_a_store_of_an_earlier_version_is_taken_over(tmp_path: Path, version: int) -> None:
    path = tmp_path / "store.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{UNVERSIONED} PRAGMA user_version = {version};")
        for statement in statements_of(version, sqlite.TYPES):
            connection.execute(statement)
    fill(path, 3)
    async with opened(path) as store:
        stored = await store.get("old_2", "alice")
        assert stored is not None
        assert stored.conversation == STORED.conversation
        assert stored.input_items == b"[]"
        conversations = ConversationStore(store)
        await conversations.create("conv_1", "alice", {"a": "b"})
        assert await conversations.get("conv_1", "bob") is None
        found = await conversations.get("conv_1", "alice")
        assert found is not None
        assert found.metadata == {"a": "b"}
        assert await store.secret("x", b"first") == await store.secret("x", b"second") == b"first"
    assert version_of(path) == SCHEMA_VERSION


def execute(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_file_where_its_folder_should_be(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


def other_text(path: Path) -> None:
    path.write_text("This is no database, and long enough to be looked at. " * 20)


def a_corrupt_page(path: Path) -> None:
    execute(path, UNVERSIONED)
    with path.open("r+b") as file:
        file.seek(200)
        file.write(b"\xff" * 3000)
        file.seek(100)
        file.write(b"\x07" * 60)


def without_a_column(path: Path) -> None:
    execute(path, "CREATE TABLE responses (response_id TEXT PRIMARY KEY, owner TEXT)")


def of_another_program(path: Path) -> None:
    execute(path, "CREATE TABLE bookmarks (url TEXT)")


def of_newer_code(path: Path) -> None:
    execute(path, f"{UNVERSIONED} PRAGMA user_version = {SCHEMA_VERSION + 1};")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (a_folder, "it is not a file"),
        (a_file_where_its_folder_should_be, "is not a folder"),
        (other_text, "file is not a database"),
        (a_corrupt_page, "malformed"),
        (without_a_column, "its table 'responses' has other columns: conversation, created_at, re"),
        (of_another_program, "it is a database of another program"),
        (of_newer_code, r"a newer pascal-serve wrote it \(schema version 6; this one knows 5\)"),
    ],
)
async def test_a_file_that_is_no_store_is_refused_by_name(
    tmp_path: Path, make: Any, reason: str
) -> None:
    path = tmp_path / "state" / "store.sqlite3"
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreUnusable, match=reason) as caught:
        check_store(path)
    assert f"The store {path} cannot be used: " in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreUnusable, match=reason):
        await ResponseStore(path).open()
    assert before == (path.read_bytes() if path.is_file() else None)


async def test_a_store_that_cannot_be_written_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.sqlite3"
    async with opened(path):
        pass

    def denied(_: Any, mode: int) -> bool:
        return not mode & os.W_OK  # permissions do not count for root, who may run this test

    with monkeypatch.context() as patched:
        patched.setattr(os, "access", denied)
        with pytest.raises(StoreUnusable, match=rf"{path} .*no permission to write"):
            check_store(path)
        with pytest.raises(StoreUnusable, match=rf"no permission to write to {tmp_path}"):
            check_store(tmp_path / "new" / "store.sqlite3")
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(sqlite, "_LOCKED_S", 0.01)
        with pytest.raises(StoreUnusable, match="database is locked"):
            check_store(path)


async def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "state" / "store.sqlite3"
    check_store(path)
    assert names_in(tmp_path) == []
    async with opened(path) as store:
        await store.put(STORED)
        check_store(path)  # beside a gateway that runs
        await store.put(replace(STORED, response_id="resp_2"))
    check_store(path)
    assert names_in(path.parent) == ["store.sqlite3"]


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())
