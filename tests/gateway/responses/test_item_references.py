"""``item_reference``: items of earlier responses, as the AI SDK sends them in every later turn."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.config import ServerConfig, SessionConfig
from gateway.history import references
from tests.gateway.api.test_apis import accepted, api, create, key, receive
from tests.gateway.responses.turns import (
    ADD,
    CALLS_ADD,
    HI,
    openai_client,
    refusal,
    spoken,
    turn,
)
from tests.gateway.support.scripted_service import until

NOWHERE = "msg_" + "0" * 32


def ref(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "item_reference", "id": item["id"]}


@pytest.mark.parametrize("kept_s", [0.0, 300.0])
async def test_the_items_stand_where_they_are_referred_to(tmp_path: Path, kept_s: float) -> None:
    """With and without the session of the response in memory."""
    async with api(tmp_path, session=SessionConfig(ttl_s=kept_s)) as (client, worker, service):
        first, _ = await turn(client, worker)
        await until(lambda: not service._background and (kept_s or not service._sessions))
        thoughts, message = first["output"]
        items = [HI, ref(thoughts), {"id": message["id"]}, {**HI, "content": "and now?"}]
        second, submit = await turn(client, worker, input=items)
        user, assistant, last = submit.messages
        assert (user.content, last.content) == ("hi", "and now?")
        assert (assistant.reasoning, assistant.content) == ("hm", "the answer")
        assert second["status"] == "completed"


async def test_a_call_is_referred_to_and_its_result_is_sent(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        first, _ = await turn(client, worker, CALLS_ADD, tools=[ADD])
        call = next(item for item in first["output"] if item["type"] == "function_call")
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "3"}
        _, submit = await turn(client, worker, input=[HI, ref(call), result], tools=[ADD])
        assert submit.messages[1].tool_calls[0].arguments == '{"a": 1}'
        assert submit.messages[2].content == "3"


async def test_one_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        first, _ = await turn(client, worker)
        wrong = first["output"][1]["id"].replace("msg", "fc")
        for item_id in (NOWHERE, wrong, "msg_1", "", "x" * 4000, first["id"]):
            found = await refusal(client, input=[HI, {"type": "item_reference", "id": item_id}])
            assert found == (404, "item_not_found", "input[1].id")
        for bad in ({"type": "item_reference"}, {"type": "item_reference", "id": 5}):
            assert await refusal(client, input=[bad]) == (400, "invalid_value", "input[0].id")
        twice = [ref(first["output"][1])] * 2
        assert await refusal(client, input=twice) == (400, "invalid_value", "input[1].id")


@pytest.mark.parametrize("kept_s", [0.0, 300.0])
async def test_those_of_another_key_and_of_a_running_response_do_not_exist(
    tmp_path: Path, kept_s: float
) -> None:
    tables = {
        "server": ServerConfig(api_keys=("a", "b")),
        "session": SessionConfig(ttl_s=kept_s),
    }
    async with api(tmp_path, **tables) as (client, worker, service):
        first, _ = await turn(client, worker, headers=key("a"))
        await until(lambda: not service._background and (kept_s or not service._sessions))
        found = await refusal(client, headers=key("b"), input=[ref(first["output"][1])])
        assert found == (404, "item_not_found", "input[0].id")
        async with client.ws_connect("/v1/responses", headers=key("a")) as socket:
            await create(socket, stream_id="1")
            request_id = await accepted(worker)
            await worker.tokens(request_id, 0, "a")
            added = await receive(socket, "response.output_item.added")
            await create(socket, stream_id="2", input=[ref(added["item"])])
            error = await receive(socket, "error")
            assert (error["status"], error["error"]["param"]) == (404, "input[0].id")


async def test_what_they_lead_to_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api(tmp_path, server=ServerConfig(hard_message_bytes=1024)) as (client, worker, _):
        first, _ = await turn(client, worker)
        long, _ = await turn(client, worker, (1, {"texts": ("x" * 900,)}))
        both = [ref(item) for item in (*first["output"], *long["output"])]
        assert await refusal(client, input=both) == (400, "invalid_value", "input[2].id")
        short, _ = await turn(client, worker)
        few = [ref(first["output"][1]), ref(short["output"][1])]
        await turn(client, worker, input=few)
        monkeypatch.setattr(references, "MOST_RESPONSES", 1)
        assert await refusal(client, input=few) == (400, "invalid_value", "input[1].id")


async def test_over_a_websocket_and_with_the_client_of_openai(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        first, _ = await turn(client, worker)
        items: Any = [HI, *map(ref, first["output"]), HI]
        async with client.ws_connect("/v1/responses") as socket:
            await create(socket, input=items)
            submit = await spoken(worker)
            assert submit.messages[1].content == "the answer"
            await receive(socket, "response.completed")
        asking = asyncio.create_task(
            openai_client(client).responses.create(input=items, model="tiny-reasoner")
        )
        submit = await spoken(worker)
        assert submit.messages[1].content == "the answer"
        assert (await asking).output_text == "the answer"
