"""Keys in the file of the store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.keys.keys import Keys
from gateway.keys.limits import Moment
from gateway.keys.making import new_key
from gateway.keys.registry import Registry
from gateway.store import (
    KeyLimits,
    KeyNotAdded,
    KeyStore,
    KeyUsage,
    ResponseStore,
    add_key,
    key_file,
    keys_in,
)
from gateway.store import keys as module
from tests.gateway.support import stored_keys


async def opened(folder: Path) -> ResponseStore:
    store = ResponseStore(folder / stored_keys.FILE)
    await store.open()
    return store


def test_a_key_comes_back_as_it_was_added(tmp_path: Path) -> None:
    limits = KeyLimits(1, 2, 3, 4)
    _, key = new_key("alice", ["chat", "admin"], limits, "low")
    with key_file(tmp_path / "store", create=True) as connection:
        add_key(connection, key)
    with key_file(tmp_path / "store") as connection:
        assert keys_in(connection) == [key]


def test_the_number_of_keys_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEYS", 2)
    for name in ("a", "b"):
        stored_keys.add(tmp_path, name)
    with pytest.raises(KeyNotAdded):
        stored_keys.add(tmp_path, "c")
    stored_keys.revoke(tmp_path, "a")
    stored_keys.add(tmp_path, "c")


async def test_the_use_of_long_ago_is_forgotten(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    keys = KeyStore(store)
    for day in (1000, 1399, 1400):
        await keys.add_usage({("key_1", day): KeyUsage(1, 2, 3)})
        await keys.add_usage({("key_1", day): KeyUsage(1, 2, 3)})
    assert (await keys.load(1000)).usage == {"key_1": KeyUsage(2, 4, 6)}
    await keys.add_usage({("key_2", 1401): KeyUsage(1, 0, 0)})
    assert (await keys.load(1000)).usage == {}
    assert (await keys.load(1399)).usage == {"key_1": KeyUsage(2, 4, 6)}
    await store.close()


@pytest.mark.parametrize(("days", "left"), [(0, 3), (1, 10)])
async def test_a_key_that_was_not_used_yet_has_the_use_of_its_own_day(
    tmp_path: Path, days: int, left: int
) -> None:
    """A gateway reads the keys on one day, and the first request comes on another."""
    stored_keys.add(tmp_path, tokens_per_day=10)
    with key_file(tmp_path / stored_keys.FILE) as connection:
        (key,) = keys_in(connection)
    store = await opened(tmp_path)
    await KeyStore(store).add_usage({(key.key_id, 1000): KeyUsage(1, 3, 4)})
    day = 1000
    keys = Keys((), KeyStore(store), 1, lambda: Moment(0.0, day * 86400.0))
    await keys.refresh()
    day += days
    standing = keys.standings(key).tokens
    assert standing is not None
    assert standing.remaining == left
    await store.close()


async def test_the_version_changes_with_what_others_write(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    keys = KeyStore(store)
    before = await keys.version()
    await keys.add_usage({("key_1", 1): KeyUsage(1)})
    assert await keys.version() == before
    await asyncio.to_thread(stored_keys.add, tmp_path)
    assert await keys.version() != before
    await store.close()


def test_keys_with_the_same_beginning_are_told_apart() -> None:
    one, key = new_key("one")
    registry = Registry(())
    twin = new_key("two")[1]
    same = type(key)(
        twin.key_id,
        twin.name,
        key.prefix,
        twin.digest,
        twin.scopes,
        twin.limits,
        twin.priority,
        twin.created_at,
    )
    for keys in ([key, same], [same, key]):
        registry.set_stored(keys, any_ever=True)
        caller = registry.find(one)
        assert caller is not None
        assert caller.owner == key.key_id
        assert registry.find(one[:-1]) is None
        assert registry.find(key.prefix) is None
        assert registry.find("") is None
        assert registry.find("\udcff") is None
