"""Conversations in the store, the same on SQLite and on PostgreSQL, also for several gateways."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from gateway.store import ConversationStore, Place, StoredConversation
from gateway.store.conversations import size_of
from tests.gateway.store.stored import opened

ITEMS = [{"id": f"item_{number}", "text": "é" * number} for number in range(5)]


async def test_a_conversation_and_its_items(place: Place) -> None:
    async with opened(place) as store:
        conversations = ConversationStore(store)
        await conversations.create("conv", "alice", {"a": "b"})
        added = await conversations.add("conv", "alice", lambda *_: ITEMS[:3])
        assert added == ITEMS[:3]
        await conversations.add("conv", "alice", lambda *_: [ITEMS[2], *ITEMS[3:]])
        found = await conversations.items("conv", "alice")
        assert found is not None
        assert found[1] == ITEMS
        assert found[0].size_bytes == size_of(ITEMS)
        assert found[0].metadata == {"a": "b"}
        page = await conversations.page("conv", after="item_1", limit=2, ascending=True)
        assert page == (ITEMS[2:4], True)
        page = await conversations.page("conv", after=None, limit=4, ascending=False)
        assert page == (ITEMS[:0:-1], True)
        assert await conversations.page("conv", after="none", limit=2, ascending=True) is None
        assert await conversations.item("conv", "alice", "item_4") == ITEMS[4]
        assert await conversations.item("conv", "bob", "item_4") is None
        changed = await conversations.set_metadata("conv", "alice", {"c": "d"})
        assert changed is not None
        assert changed.metadata == {"c": "d"}
        assert await conversations.delete_item("conv", "alice", "item_4")
        assert not await conversations.delete_item("conv", "alice", "item_4")
        assert await conversations.add("conv", "bob", lambda *_: ITEMS) is None
        found = await conversations.items("conv", "alice")
        assert found is not None
        assert (found[1], found[0].size_bytes) == (ITEMS[:4], size_of(ITEMS[:4]))
        assert not await conversations.delete("conv", "bob")
        assert await conversations.delete("conv", "alice")
        assert await conversations.items("conv", "alice") is None
        assert await store._execute("SELECT * FROM conversation_items", ()) == []


async def test_conversations_that_did_not_change_are_forgotten(place: Place) -> None:
    async with opened(place) as store:
        conversations = ConversationStore(store)
        for name in ("old", "new"):
            await conversations.create(name, "alice", {})
            await conversations.add(name, "alice", lambda *_: ITEMS)
        changed = "UPDATE conversations SET changed_at = 1 WHERE conversation_id = 'old'"
        await store._execute(changed, (), writes=True)
        await store.clean_up(100.0)
        assert await conversations.get("old", "alice") is None
        assert await conversations.items("new", "alice") is not None
        rows = await store._execute("SELECT conversation_id FROM conversation_items", ())
        assert {row[0] for row in rows} == {"new"}


async def test_gateways_that_add_to_one_conversation_at_once_lose_no_item_and_no_place(
    place: Place,
) -> None:
    """Three stores, each like a gateway of its own, add, delete and change at the same time."""
    rounds = 20
    async with opened(place) as one, opened(place) as two, opened(place) as three:
        gateways = {n: ConversationStore(s) for n, s in enumerate((one, two, three))}
        await gateways[0].create("conv", "alice", {})

        async def work(number: int) -> None:
            for turn in range(rounds):
                name = f"{number}_{turn}"
                made = [{"id": f"{name}_{i}", "text": "x" * turn} for i in range(3)]

                def placed(
                    found: StoredConversation, _: Any, made: Any = made
                ) -> list[dict[str, Any]]:
                    first = found.next_place
                    return [item | {"place": first + i} for i, item in enumerate(made)]

                added = await gateways[number].add("conv", "alice", placed)
                assert added is not None
                assert await gateways[number].delete_item("conv", "alice", f"{name}_1")
                await gateways[number].set_metadata("conv", "alice", {"by": name})

        await asyncio.gather(*(work(number) for number in gateways))
        found = await gateways[1].items("conv", "alice")
        assert found is not None
        conversation, items = found
        expected = {f"{n}_{t}_{i}" for n in gateways for t in range(rounds) for i in (0, 2)}
        assert {item["id"] for item in items} == expected
        assert len(items) == len(expected)
        assert max(Counter(item["place"] for item in items).values()) == 1
        assert [item["place"] for item in items] == sorted(item["place"] for item in items)
        assert conversation.size_bytes == size_of(items)
        assert conversation.next_place == 3 * 3 * rounds
