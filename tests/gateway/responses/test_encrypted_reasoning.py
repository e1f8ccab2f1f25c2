"""``include: ["reasoning.encrypted_content"]``: thoughts that only the server can read later."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.config import ServerConfig, StoreConfig
from gateway.config.load import ConfigError, load
from gateway.history.sealing import Sealer, key_of
from gateway.schemas.errors import InvalidRequest
from tests.gateway.api.test_apis import api, create, key, receive
from tests.gateway.responses.turns import HI, events_of, openai_client, refusal, spoken, turn

SEALED: dict[str, Any] = {"include": ["reasoning.encrypted_content"], "store": False}
KEYS = ("k" * 32, "l" * 32)


def hidden(item: dict[str, Any]) -> dict[str, Any]:
    """The item as clients keep it that show no thoughts."""
    kept = {name: item[name] for name in ("type", "id", "encrypted_content")}
    return {**kept, "summary": []}


def sealed_with(item: dict[str, Any], text: str) -> dict[str, Any]:
    return {**hidden(item), "encrypted_content": text}


async def test_the_model_gets_its_thoughts_back(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        first, _ = await turn(client, worker, **SEALED)
        thoughts, message = first["output"]
        assert thoughts["content"][0]["text"] == "hm"
        second, submit = await turn(client, worker, input=[HI, hidden(thoughts), message, HI])
        assert submit.messages[1].reasoning == "hm"
        assert "encrypted_content" not in second["output"][0]
        changed = {**thoughts, "content": [{"type": "reasoning_text", "text": "other"}]}
        _, submit = await turn(client, worker, input=[HI, changed, message, HI])
        assert submit.messages[1].reasoning == "hm"


@pytest.mark.parametrize("store", [StoreConfig(), StoreConfig(reasoning_keys=KEYS)])
async def test_it_survives_a_restart(tmp_path: Path, store: StoreConfig) -> None:
    async with api(tmp_path, store=store) as (client, worker, _):
        first, _ = await turn(client, worker, **SEALED)
    async with api(tmp_path, store=store) as (client, worker, _):
        _, submit = await turn(client, worker, input=[HI, hidden(first["output"][0]), HI])
        assert submit.messages[1].reasoning == "hm"


async def test_a_new_key_in_front_leaves_the_old_ones_readable(tmp_path: Path) -> None:
    async with api(tmp_path, store=StoreConfig(reasoning_keys=KEYS[1:])) as (client, worker, _):
        first, _ = await turn(client, worker, **SEALED)
    async with api(tmp_path, store=StoreConfig(reasoning_keys=KEYS)) as (client, worker, _):
        second, _ = await turn(client, worker, input=[hidden(first["output"][0]), HI], **SEALED)
    async with api(tmp_path, store=StoreConfig(reasoning_keys=KEYS[1:])) as (client, worker, _):
        found = await refusal(client, input=[hidden(second["output"][0])])
        assert found == (400, "invalid_encrypted_content", "input[0].encrypted_content")


async def test_events_and_the_object_have_the_same(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        body = {"input": "hi", "stream": True, "pacing": False, **SEALED}
        asking = asyncio.create_task(
            client.post("v1/responses", json={**body, "reasoning": {"summary": "auto"}})
        )
        await spoken(worker)
        events = await events_of(await asking)
        added, done = [e for e in events if e.get("item", {}).get("type") == "reasoning"]
        assert "encrypted_content" not in added["item"]
        assert done["item"]["encrypted_content"]
        assert events[-1]["response"]["output"][0] == done["item"]


async def test_tampered_foreign_and_senseless_ones_are_refused_by_name(tmp_path: Path) -> None:
    async with api(tmp_path, server=ServerConfig(api_keys=("a", "b"))) as (client, worker, _):
        first, _ = await turn(client, worker, headers=key("a"), **SEALED)
        thoughts = first["output"][0]
        data = base64.urlsafe_b64decode(thoughts["encrypted_content"])
        wrong: list[Any] = ["", "gAAA", "é", "x" * 100, 5, {}, data.hex()]
        for place in (0, 1, 5, 12, 13, 24, 25, len(data) - 1):  # each part of it
            changed = bytearray(data)
            changed[place] ^= 1
            wrong.append(base64.urlsafe_b64encode(changed).decode())
        ends = (1, 12, 25, 30, len(data) - 1)
        wrong += [base64.urlsafe_b64encode(data[:end]).decode() for end in ends]
        assert len(set(map(str, wrong))) == len(wrong)
        for text in wrong:
            body = {"input": [HI, {**thoughts, "encrypted_content": text}, HI]}
            answer = await client.post("v1/responses", json=body, headers=key("a"))
            error = (await answer.json())["error"]
            assert (answer.status, error["param"]) == (400, "input[1].encrypted_content"), text
        body = {"input": [hidden(thoughts), HI]}
        answer = await client.post("v1/responses", json=body, headers=key("b"))
        assert (await answer.json())["error"]["code"] == "invalid_encrypted_content"
        assert worker.unread() == 0


def test_old_ones_are_refused() -> None:
    sealer = Sealer([key_of("s" * 32)], longest_s=100.0)
    sealed = sealer.seal("hm \ud800", "alice", 1000.0)
    assert sealer.open(sealed, "alice", 1100.0, "x") == "hm \ud800"
    with pytest.raises(InvalidRequest) as caught:
        sealer.open(sealed, "alice", 1101.0, "x")
    assert (caught.value.code, caught.value.param) == ("encrypted_content_expired", "x")
    assert Sealer([key_of("s" * 32)], longest_s=0).open(sealed, "alice", 1e9, "x")
    assert sealer.seal("hm", "alice", 1000.0) != sealer.seal("hm", "alice", 1000.0)
    long = base64.urlsafe_b64decode(sealer.seal("a thought of the model", "alice", 1000.0))
    assert b"thought" not in long


async def test_the_age_is_that_of_the_setting(tmp_path: Path) -> None:
    store = StoreConfig(reasoning_keys=KEYS, reasoning_days=1.0)
    old = Sealer([key_of(KEYS[0])], 0).seal("hm", "", time.time() - 86500)
    async with api(tmp_path, store=store) as (client, _worker, _):
        found = await refusal(client, input=[{"type": "reasoning", "encrypted_content": old}])
        assert found == (400, "encrypted_content_expired", "input[0].encrypted_content")


async def test_without_a_store_there_is_no_key(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _worker, service):
        await service.store._execute("DROP TABLE secrets", ())
        assert await refusal(client, input="hi", **SEALED) == (503, "store_unavailable", None)


async def test_over_a_websocket_and_with_the_client_of_openai(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        async with client.ws_connect("/v1/responses") as socket:
            await create(socket, **SEALED)
            await spoken(worker)
            first = (await receive(socket, "response.completed"))["response"]
            await create(socket, input=[HI, sealed_with(first["output"][0], "gAAA")])
            error = (await receive(socket, "error"))["error"]
            assert error["param"] == "input[1].encrypted_content"
        items: Any = [HI, hidden(first["output"][0]), HI]
        asking = asyncio.create_task(
            openai_client(client).responses.create(
                input=items,
                model="tiny-reasoner",
                store=False,
                include=["reasoning.encrypted_content"],
            )
        )
        submit = await spoken(worker)
        assert submit.messages[1].reasoning == "hm"
        thoughts = (await asking).output[0]
        assert thoughts.type == "reasoning"
        assert thoughts.encrypted_content


def test_the_secrets_are_read_from_a_file_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("\n".join(KEYS))
    flags = {"store.reasoning_keys_file": str(file)}
    assert load(environment={}, flags=flags).store.reasoning_keys == KEYS
    given = load(environment={"PASCAL_STORE_REASONING_KEYS": ",".join(KEYS)})
    assert given.store.reasoning_keys == KEYS
    assert KEYS[0] not in repr(given)
    for text, what in (("short", "needs 32 characters"), (" ", "is empty")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=rf"store\.reasoning_keys_file: .*{what}"):
            load(environment={}, flags=flags)
    with pytest.raises(ConfigError, match=r"store\.reasoning_keys_file: /nowhere: No such"):
        load(environment={}, flags={"store.reasoning_keys_file": "/nowhere"})
