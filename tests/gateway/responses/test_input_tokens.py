"""The tokens of a response's prompt, counted by a worker that generates nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.api.test_apis import api
from tests.gateway.responses.turns import HI, openai_client, turn
from workers.messages import Count, Counted, Rejected

ROUTE = "v1/responses/input_tokens"
ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}


async def counted(worker: Any, tokens: int = 17) -> Count:
    """Answer the next question of the gateway."""
    count = await worker.next()
    assert isinstance(count, Count)
    await worker.say(Counted(request_id=count.prompt.request_id, prompt_tokens=tokens))
    return count


async def test_all_that_the_prompt_depends_on_is_counted(tmp_path: Path) -> None:
    body: Any = {"input": [HI], "tools": [ADD], "instructions": "Be kind."}
    async with api(tmp_path) as (client, worker, service):
        asking = asyncio.create_task(client.post(ROUTE, json=body))
        count = await counted(worker)
        assert [message.role for message in count.prompt.messages] == ["system", "user"]
        assert count.prompt.tools[0]["function"]["name"] == "add"
        assert await (await asking).json() == {
            "object": "response.input_tokens", "input_tokens": 17,
        }  # fmt: skip
        assert not service.cluster.counter._waiting


async def test_a_conversation_is_read_and_neither_changed_nor_locked(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        made = await (await client.post("v1/conversations", json={"items": [HI]})).json()
        body = {"input": "And then?", "conversation": made["id"]}
        asking = asyncio.create_task(client.post(ROUTE, json=body))
        assert len((await counted(worker)).prompt.messages) == 2
        assert (await asking).status == 200
        assert service.conversations._turns == {}
        refused = asyncio.create_task(client.post(ROUTE, json=body))
        count = await worker.next()
        assert isinstance(count, Count)
        wrong = Rejected(
            request_id=count.prompt.request_id, code="c", message="no", param="messages"
        )
        await worker.say(wrong)
        assert (await refused).status == 400
        assert service.conversations._turns == {}
        _, submit = await turn(client, worker, conversation=made["id"])
        assert len(submit.messages) == 2


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": []}, 400, "input"),
        ({"input": "x", "model": "another"}, 404, "model"),
        ({"input": "x", "tool": []}, 400, "tool"),
        ({"input": "x", "previous_response_id": "resp_0"}, 404, "previous_response_id"),
    ],
)
async def test_what_is_wrong_is_named(
    tmp_path: Path, body: dict[str, Any], status: int, param: str
) -> None:
    async with api(tmp_path) as (client, _, _service):
        answer = await client.post(ROUTE, json=body)
        assert (answer.status, (await answer.json())["error"]["param"]) == (status, param)


async def test_the_client_of_openai_counts(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _), openai_client(client) as openai:
        asking = asyncio.create_task(
            openai.responses.input_tokens.count(model="tiny-reasoner", input="x")
        )
        await counted(worker, 5)
        assert (await asking).input_tokens == 5
