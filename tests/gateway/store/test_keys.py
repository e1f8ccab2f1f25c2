"""Keys in the store, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio

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
    Place,
    add_key,
    key_file,
    keys_in,
    revoke_key,
)
from gateway.store import keys as module
from tests.gateway.store.stored import STORED, opened


def add(place: Place, name: str = "alice") -> None:
    with key_file(place, create=True) as connection:
        add_key(connection, new_key(name)[1])


def revoke(place: Place, name: str = "alice") -> bool:
    with key_file(place) as connection:
        return revoke_key(connection, name, 1.0) is not None


def test_a_key_comes_back_as_it_was_added(place: Place) -> None:
    limits = KeyLimits(1, 2, 3, 4)
    _, key = new_key("alice", ["chat", "admin"], limits, "low")
    with key_file(place, create=True) as connection:
        add_key(connection, key)
    with key_file(place) as connection:
        assert keys_in(connection) == [key]


def test_the_number_of_keys_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEYS", 2)
    for name in ("a", "b"):
        add(place, name)
    with pytest.raises(KeyNotAdded):
        add(place, "c")
    assert revoke(place, "a")
    assert not revoke(place, "a")
    add(place, "c")


async def test_commands_that_add_a_key_at_once_add_one_of_each_name(place: Place) -> None:
    add(place, "first")
    tries = [asyncio.to_thread(add, place, f"key-{number % 3}") for number in range(9)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(one is None for one in done) == 3
    assert sum(isinstance(one, KeyNotAdded) for one in done) == 6
    async with opened(place) as store:
        names = sorted(key.name for key in (await KeyStore(store).load(1)).keys)
        assert names == ["first", "key-0", "key-1", "key-2"]


async def test_gateways_that_count_at_once_count_everything(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        stores = [KeyStore(one), KeyStore(two)]
        keys = [f"key_{number}" for number in range(8)]
        for _ in range(10):
            await asyncio.gather(
                stores[0].add_usage({(key, 5): KeyUsage(1, 2, 3) for key in keys}),
                stores[1].add_usage({(key, 5): KeyUsage(1, 0, 1) for key in reversed(keys)}),
            )
        usage = (await stores[0].load(5)).usage
        assert usage == dict.fromkeys(keys, KeyUsage(20, 20, 40))


@pytest.mark.parametrize(("days", "left"), [(0, 3), (1, 10)])
async def test_a_key_that_was_not_used_yet_has_the_use_of_its_own_day(
    place: Place, days: int, left: int
) -> None:
    """A gateway reads the keys on one day, and the first request comes on another."""
    with key_file(place, create=True) as connection:
        add_key(connection, new_key("alice", ["chat"], KeyLimits(tokens_per_day=10), "normal")[1])
        (key,) = keys_in(connection)
    async with opened(place) as store:
        await KeyStore(store).add_usage({(key.key_id, 1000): KeyUsage(1, 3, 4)})
        day = 1000
        keys = Keys((), KeyStore(store), 1, lambda: Moment(0.0, day * 86400.0))
        await keys.refresh()
        day += days
        standing = keys.standings(key).tokens
        assert standing is not None
        assert standing.remaining == left


async def test_the_use_of_long_ago_is_forgotten(place: Place) -> None:
    async with opened(place) as store:
        await forgets(KeyStore(store))


async def forgets(keys: KeyStore) -> None:
    for day in (1000, 1399, 1400):
        await keys.add_usage({("key_1", day): KeyUsage(1, 2, 3)})
        await keys.add_usage({("key_1", day): KeyUsage(1, 2, 3)})
    assert (await keys.load(1000)).usage == {"key_1": KeyUsage(2, 4, 6)}
    await keys.add_usage({("key_2", 1401): KeyUsage(1, 0, 0)})
    assert (await keys.load(1000)).usage == {}
    assert (await keys.load(1399)).usage == {"key_1": KeyUsage(2, 4, 6)}


async def test_the_version_changes_with_the_keys_alone(place: Place) -> None:
    async with opened(place) as store:
        keys = KeyStore(store)
        seen = [await keys.version()]
        await keys.add_usage({("key_1", 1): KeyUsage(1)})
        await store.put(STORED)
        assert await keys.version() == seen[0]
        await asyncio.to_thread(add, place)
        seen.append(await keys.version())
        await asyncio.to_thread(revoke, place)
        seen.append(await keys.version())
        assert len(set(seen)) == 3


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
