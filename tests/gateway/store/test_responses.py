"""Responses in the store, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import orjson
import pytest
from structlog.testing import capture_logs

from gateway.store import DatabaseError, Place, ResponseStore, StoreError, name_of
from gateway.store import responses as module
from tests.gateway.store.stored import STORED, opened
from tests.gateway.support.scripted_service import until
from workers.messages import ChatMessage, ToolCall


async def test_what_was_put_survives_a_restart_and_belongs_to_its_owner(place: Place) -> None:
    async with opened(place) as store:
        assert await store.put(STORED)
    async with opened(place) as store:
        assert await store.get("resp_1", "alice") == STORED
        assert await store.get("resp_1", "bob") is None
        await store.delete("resp_1", "bob")
        assert await store.get("resp_1", "alice") == STORED
        await store.delete("resp_1", "alice")
        assert await store.get("resp_1", "alice") is None


async def test_calls_results_and_thoughts_are_stored(place: Place) -> None:
    call = ToolCall(call_id="call_1", name="add", arguments='{"a": 1}')
    conversation = (
        ChatMessage(role="user", content="hi", name="Ada"),
        ChatMessage(role="assistant", content="", reasoning="Add.", tool_calls=(call,)),
        ChatMessage(role="tool", content="2", tool_call_id="call_1", name="add"),
    )
    async with opened(place) as store:
        await store.put(replace(STORED, conversation=conversation))
        stored = await store.get("resp_1", "alice")
    assert stored is not None
    assert stored.conversation == conversation


async def test_text_that_is_encoded_already_is_stored_as_text(place: Place) -> None:
    output = orjson.Fragment(orjson.dumps(STORED.response["output"]))
    async with opened(place) as store:
        await store.put(replace(STORED, response={"id": "resp_1", "output": output}))
        assert await store.get("resp_1", "alice") == STORED


async def test_old_responses_are_forgotten(place: Place) -> None:
    async with opened(place) as store:
        await store.put(STORED)
        await store.put(replace(STORED, response_id="resp_2", created_at=200.0))
        assert await store.clean_up(150.0) == 1
        assert await store.get("resp_1", "alice") is None
        assert await store.get("resp_2", "alice") is not None


async def test_retention_goes_on_while_the_store_is_open(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CLEAN_UP_EVERY_S", 0.01)
    async with opened(place) as store:
        cleaning = asyncio.create_task(store.keep_clean(retention_s=86400.0))
        for index in range(3):
            await store.put(replace(STORED, response_id=f"resp_{index}"))  # of 1970: expired
            await _absent(store, f"resp_{index}")
        cleaning.cancel()


async def test_without_retention_nothing_is_forgotten(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned: list[float] = []
    async with opened(place) as store:
        await store.put(STORED)  # of 1970
        clean_up = store.clean_up

        async def noted(created_before: float) -> int:
            cleaned.append(await clean_up(created_before))
            return 0

        monkeypatch.setattr(store, "clean_up", noted)
        cleaning = asyncio.create_task(store.keep_clean(retention_s=0.0))
        while not cleaned:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        cleaning.cancel()
        assert cleaned == [0]
        assert await store.get(STORED.response_id, STORED.owner) is not None


def test_a_short_retention_is_kept_to_more_closely() -> None:
    pauses = [module._clean_up_pause_s(retention_s) for retention_s in (0, 1, 100, 86400)]
    assert pauses == [3600, 5, 25, 3600]


async def _absent(store: ResponseStore, response_id: str) -> None:
    for _ in range(10_000):
        if await store.get(response_id, "alice") is None:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{response_id} is still there")


@pytest.mark.parametrize("error", [DatabaseError("disk I/O error"), KeyError("a bug")])
async def test_a_clean_up_that_fails_is_counted_and_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def broken(_: ResponseStore, created_before: float) -> int:
        raise error

    monkeypatch.setattr(module, "_CLEAN_UP_EVERY_S", 0.001)
    async with opened(place) as store:
        monkeypatch.setattr(ResponseStore, "clean_up", broken)
        cleaning = asyncio.create_task(store.keep_clean(retention_s=0.0))
        await until(lambda: store.failures["clean_up"] >= 3)
        assert not cleaning.done()
        cleaning.cancel()


async def test_a_look_up_that_fails_is_a_refusal_that_does_not_name_the_file(
    place: Place,
) -> None:
    async with opened(place) as store:
        await store.put(STORED)
        await store._execute("ALTER TABLE responses RENAME TO gone", ())
        with capture_logs() as logs:
            with pytest.raises(StoreError) as caught:
                await store.get("resp_1", "alice")
            with pytest.raises(StoreError):
                await store.delete("resp_1", "alice")
        assert (caught.value.status, caught.value.code) == (503, "store_unavailable")
        assert name_of(place) not in caught.value.message
        assert [line["file"] for line in logs] == [name_of(place)] * 2
        assert store.failures == {"read": 1, "delete": 1}


async def test_calls_after_the_closing_are_failures_like_others(place: Place) -> None:
    async with opened(place) as store:
        pass
    assert not await store.put(STORED)
    with pytest.raises(StoreError):
        await store.get("resp_1", "alice")


async def test_one_row_that_cannot_be_read_is_absent_and_does_not_harm_others(
    place: Place,
) -> None:
    async with opened(place) as store:
        await store.put(STORED)
        await store.put(replace(STORED, response_id="resp_2"))
        changed = msgspec.json.encode([{"role": "user", "content": ["of a later version"]}])
        await store._execute(
            "UPDATE responses SET conversation = ? WHERE response_id = 'resp_1'", (changed,)
        )
        with capture_logs() as logs:
            assert await store.get("resp_1", "alice") is None
        assert [line["event"] for line in logs] == ["stored_response_unreadable"]
        assert store.failures == {"unreadable": 1}
        assert await store.get("resp_2", "alice") is not None
        await store.delete("resp_1", "alice")


async def test_ids_with_any_character_are_told_apart(place: Place) -> None:
    ids = ["a\0b", "a\\0b", "a\\b", "ab", "a\\\0b", "%s", "?", "é\U0001f600", ""]
    async with opened(place) as store:
        for response_id in ids:
            assert await store.get(response_id, "alice") is None
            assert await store.put(replace(STORED, response_id=response_id))
        assert await store.get("a\0b", "al\0ice") is None
        for response_id in ids:
            found = await store.get(response_id, "alice")
            assert found is not None
            assert found.response_id == response_id
            await store.delete(response_id, "alice")
        assert await store._execute("SELECT * FROM responses", ()) == []


async def test_a_response_is_replaced_whole(place: Place) -> None:
    async with opened(place) as store:
        await store.put(STORED)
        later = replace(STORED, created_at=7.5, response={"id": "x"}, input_items=b'[{"a":1}]')
        await store.put(later)
        assert await store.get("resp_1", "alice") == later


async def test_two_stores_make_one_secret(place: Place) -> None:
    async with opened(place) as one, opened(place) as two:
        made = await asyncio.gather(*(s.secret("x", bytes([i])) for i, s in enumerate([one, two])))
        assert made[0] == made[1]
        assert await one.secret("y", b"y") == b"y"


async def test_stores_that_open_a_new_place_at_once_do_not_collide(place: Place) -> None:
    stores = [ResponseStore(place) for _ in range(6)]
    try:
        await asyncio.gather(*(store.open() for store in stores))
        for number, store in enumerate(stores):
            assert await store.put(replace(STORED, response_id=f"resp_{number}"))
        assert await stores[0].get("resp_5", "alice") is not None
    finally:
        for store in stores:
            await store.close()


async def test_two_stores_that_clean_up_at_once_delete_everything(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SLICE_ROWS", 7)
    async with opened(place) as one, opened(place) as two:
        for number in range(100):
            await one.put(replace(STORED, response_id=f"resp_{number}"))
        deleted = await asyncio.gather(one.clean_up(200.0), two.clean_up(200.0))
        assert sum(deleted) == 100
        assert await one._execute("SELECT response_id FROM responses", ()) == []


async def test_what_waits_to_be_written_is_there_for_the_next_look_up(place: Place) -> None:
    async with opened(place) as store:
        writing = [
            asyncio.create_task(store.put(replace(STORED, response_id=f"resp_{number}")))
            for number in range(50)
        ]
        await asyncio.sleep(0)
        assert store.queued_bytes > 0
        assert await store.get("resp_49", "alice") is not None
        assert all(await asyncio.gather(*writing))
        assert store.queued_bytes == 0
