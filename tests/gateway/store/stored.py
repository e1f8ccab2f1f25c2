"""What the tests of the store write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.store import Place, ResponseStore, StoredResponse, schema
from workers.messages import ChatMessage

STORED = StoredResponse(
    "resp_1",
    "alice",
    100.0,
    {"id": "resp_1", "output": [{"text": "é"}]},
    (ChatMessage(role="user", content="hi"), ChatMessage(role="assistant", content="é")),
)


@asynccontextmanager
async def opened(place: Place, **options: Any) -> AsyncIterator[ResponseStore]:
    store = ResponseStore(place, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def statements_of(version: int, types: schema.Types) -> list[str]:
    """What brings the tables of version 1 to a later one."""
    since = list(schema.statements_since(1, types))
    return since[: len(since) - len(list(schema.statements_since(max(version, 1), types)))]
