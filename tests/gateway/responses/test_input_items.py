"""``GET /v1/responses/{id}/input_items``: what was sent with a response, page by page."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.config import SessionConfig
from tests.gateway.api.test_apis import api
from tests.gateway.responses.turns import HI, openai_client, turn
from tests.gateway.support.scripted_service import until

INPUT: list[dict[str, Any]] = [
    {"role": "developer", "content": "rules"},
    {"role": "user", "content": [{"type": "input_text", "text": "hi"}], "id": "msg_of_the_client"},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
    {"role": "assistant", "content": "well"},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "namespace": "n"},
    {"type": "function_call_output", "call_id": "c1", "output": "3"},
    {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "x"},
    {
        "type": "custom_tool_call_output",
        "call_id": "c2",
        "output": [{"type": "input_text", "text": "4"}],
    },
    {"type": "function_call_output", "name": "goal", "namespace": "agent", "output": "5"},
]


async def listed(client: ClientSession, response_id: str, **query: str) -> dict[str, Any]:
    path = f"v1/responses/{response_id}/input_items"
    answer = await client.get(path, params=query)
    assert answer.status == 200, await answer.text()
    found: dict[str, Any] = await answer.json()
    return found


@pytest.mark.parametrize("kept_s", [0.0, 300.0])
async def test_each_kind_is_shown_in_the_form_of_the_api(tmp_path: Path, kept_s: float) -> None:
    """With and without the session of the response in memory."""
    async with api(tmp_path, session=SessionConfig(ttl_s=kept_s)) as (client, worker, service):
        response, _ = await turn(client, worker, input=INPUT)
        await until(lambda: not service._background and (kept_s or not service._sessions))
        page = await listed(client, response["id"], order="asc")
    assert (page["object"], page["has_more"]) == ("list", False)
    ids = [item.pop("id") for item in page["data"]]
    assert (page["first_id"], page["last_id"]) == (ids[0], ids[-1])
    assert len(set(ids)) == len(INPUT)
    assert {item.pop("status") for item in page["data"]} == {"completed"}
    developer, user, thoughts, assistant, *rest = page["data"]
    text = {"type": "input_text", "text": "rules"}
    assert developer == {"type": "message", "role": "developer", "content": [text]}
    assert user["content"] == [{"type": "input_text", "text": "hi"}]
    assert thoughts == INPUT[2]
    assert assistant["content"][0]["type"] == "output_text"
    assert rest == INPUT[4:]


async def test_pages(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        items = [{**HI, "content": f"m{number}"} for number in range(25)]
        response, _ = await turn(client, worker, input=items)
        whole = (await listed(client, response["id"], order="asc", limit="100"))["data"]
        first = await listed(client, response["id"])
        assert first["data"] == whole[:-21:-1]
        assert first["has_more"]
        rest = await listed(client, response["id"], after=first["last_id"])
        assert (rest["data"], rest["has_more"]) == (whole[4::-1], False)
        few = await listed(client, response["id"], order="asc", limit="5", after=whole[19]["id"])
        assert (few["data"], few["has_more"]) == (whole[20:], False)
        empty = await listed(client, response["id"], order="asc", after=whole[-1]["id"])
        assert (empty["data"], empty["first_id"], empty["has_more"]) == ([], None, False)


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ({"limit": "0"}, 400, "limit"),
        ({"limit": "101"}, 400, "limit"),
        ({"limit": "9" * 5000}, 400, "limit"),
        ({"limit": "-1"}, 400, "limit"),
        ({"limit": "²"}, 400, "limit"),
        ({"order": "up"}, 400, "order"),
        ({"after": "msg_1"}, 404, "after"),
    ],
)
async def test_a_wrong_parameter_is_named(
    tmp_path: Path, query: dict[str, str], status: int, param: str
) -> None:
    async with api(tmp_path) as (client, worker, _):
        response, _ = await turn(client, worker)
        path = f"v1/responses/{response['id']}/input_items"
        answer = await client.get(path, params=query)
        assert (answer.status, (await answer.json())["error"]["param"]) == (status, param)
        assert (await client.get("v1/responses/resp_x/input_items")).status == 404


async def test_they_can_be_referred_to(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        response, _ = await turn(client, worker, input=INPUT)
        page = await listed(client, response["id"], order="asc")
        items = [{"type": "item_reference", "id": item["id"]} for item in page["data"]]
        second, submit = await turn(client, worker, input=[*items, HI])
        assert [message.role for message in submit.messages] == [
            *("system", "user", "assistant", "tool", "assistant", "tool", "user", "user")
        ]
        assert submit.messages[2].reasoning == "hm"
        shown = await listed(client, second["id"], order="asc")
        assert [item["type"] for item in shown["data"][:-1]] == [i["type"] for i in page["data"]]


async def test_the_client_of_openai_reads_all_pages(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        response, _ = await turn(client, worker, input=INPUT)
        input_items = openai_client(client).responses.input_items
        pages = input_items.list(response["id"], limit=3, order="asc")
        kinds = [item.type async for item in pages]
        assert kinds == [item.get("type", "message") for item in INPUT]
        deleting = asyncio.create_task(client.delete(f"v1/responses/{response['id']}"))
        await deleting
        answer = await client.get(f"v1/responses/{response['id']}/input_items")
        assert answer.status == 404
