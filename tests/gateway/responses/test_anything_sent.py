"""Whatever a client sends to these routes is taken, or refused with a field; never a 500."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.api.test_apis import STOP, api
from tests.gateway.responses.turns import HI, turn
from tests.gateway.schemas.test_anything import changed
from tests.gateway.support.scripted_worker import ScriptedWorker
from workers.messages import Cancel, Submit

STRANGE = ["", "x", "-1", "0", "9" * 30, "é", "%00", "a/b", "..", "null", "1.5", "[]"]
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}


async def speak(worker: ScriptedWorker) -> None:
    """Answer whatever comes."""
    while True:
        match await worker.received():
            case Submit() as submit:
                await worker.accept(submit)
                await worker.tokens(submit.request_id, 0, "a")
                await worker.tokens(submit.request_id, 1, "b", finish=STOP)
            case Cancel() | _:
                pass


def bodies(conversation_id: str, item_id: str) -> dict[str, dict[str, Any]]:
    """A right body of each route."""
    items = [HI, {"type": "item_reference", "id": item_id}, REASONING]
    response = {
        "input": [*items, {"id": item_id}],
        "conversation": {"id": conversation_id},
        "background": True,
        "truncation": "auto",
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"summary": "auto", "effort": "high"},
        "client_metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "max_tool_calls": 3,
        "store": True,
        "pacing": False,
    }
    path = f"v1/conversations/{conversation_id}"
    return {
        "v1/responses": response,
        "v1/conversations": {"items": items, "metadata": {"a": "b"}},
        path: {"metadata": {"a": "b"}},
        f"{path}/items": {"items": items, "include": ["message.output_text.logprobs"]},
    }


@pytest.mark.parametrize("seed", range(4))
async def test_no_body_is_a_500(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    taken = refused = 0
    async with api(tmp_path) as (client, worker, service):
        first, _ = await turn(client, worker)
        made = await (await client.post("v1/conversations", json={"items": [HI]})).json()
        right = bodies(made["id"], first["output"][1]["id"])
        speaking = asyncio.create_task(speak(worker))
        for _ in range(250):
            path = chance.choice(list(right))
            body = changed(right[path], chance)
            if chance.random() < 0.8 and isinstance(body.get("input", body.get("items")), list):
                name = "input" if "input" in body else "items"
                body[name] = [item for item in body[name] if item != REASONING]
            answer = await client.post(path, json=body)
            text = await answer.text()
            assert answer.status in (200, 400, 404), (path, body, text)
            if answer.status == 200:
                taken += 1
            else:
                refused += 1
                error = json.loads(text)["error"]
                assert error["param"] is not None or error["code"] == "unknown_parameter", text
        speaking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await speaking
        assert min(taken, refused) > 20
        assert service.store.failures == {}


async def test_no_path_or_query_is_a_500(tmp_path: Path) -> None:
    chance = random.Random(5)
    async with api(tmp_path) as (client, worker, _):
        first, _ = await turn(client, worker)
        made = await (await client.post("v1/conversations", json={"items": [HI]})).json()
        ids = [*STRANGE, first["id"], made["id"], first["output"][0]["id"]]
        for _ in range(400):
            one, two = chance.choice(ids), chance.choice(ids)
            path = chance.choice(
                [
                    f"v1/responses/{one}",
                    f"v1/responses/{one}/input_items",
                    f"v1/conversations/{one}",
                    f"v1/conversations/{one}/items",
                    f"v1/conversations/{one}/items/{two}",
                ]
            )
            names = chance.sample(["limit", "order", "after", "include", "starting_after"], 2)
            query = {name: chance.choice([*STRANGE, "asc", "7", two]) for name in names}
            answer = await client.get(path, params=query)
            assert answer.status in (200, 400, 404, 405), (path, query, await answer.text())
