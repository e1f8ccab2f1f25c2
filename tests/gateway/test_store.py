"""The store on a real SQLite file."""

from dataclasses import replace
from pathlib import Path

from gateway.store import ResponseStore, StoredResponse
from workers.messages import ChatMessage

STORED = StoredResponse(
    "resp_1",
    "alice",
    100.0,
    {"id": "resp_1", "output": [{"text": "é"}]},
    (ChatMessage(role="user", content="hi"), ChatMessage(role="assistant", content="é")),
)


async def test_what_was_put_survives_a_restart_and_belongs_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.sqlite3"
    store = ResponseStore(path)
    await store.open()
    await store.put(STORED)
    await store.close()
    store = ResponseStore(path)
    await store.open()
    assert await store.get("resp_1", "alice") == STORED
    assert await store.get("resp_1", "bob") is None
    await store.delete("resp_1", "bob")
    assert await store.get("resp_1", "alice") == STORED
    await store.delete("resp_1", "alice")
    assert await store.get("resp_1", "alice") is None
    await store.close()


async def test_old_responses_are_forgotten(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "store.sqlite3")
    await store.open()
    await store.put(STORED)
    await store.put(replace(STORED, response_id="resp_2", created_at=200.0))
    await store.delete_older(150.0)
    assert await store.get("resp_1", "alice") is None
    assert await store.get("resp_2", "alice") is not None
    await store.close()
