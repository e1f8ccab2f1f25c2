"""Conversations: items that stay at the server, and responses that add to them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.config import ServerConfig, StoreConfig
from gateway.schemas import conversation_bodies as bounds
from tests.gateway.api.test_apis import STOP, UNPACED, accepted, api, create, key, receive
from tests.gateway.api.test_chat_output import CALL
from tests.gateway.responses.turns import (
    ADD,
    CALLS_ADD,
    HI,
    openai_client,
    refusal,
    spoken,
    thought,
    turn,
)
from tests.gateway.support.scripted_service import until
from tests.gateway.support.scripted_worker import ScriptedWorker
from tests.gateway.support.sessions import make_session
from workers.messages import Finish, Rejected, Turn

LOCKED = (400, "conversation_locked", "conversation")
GONE = "conv_" + "0" * 32
CONVERSATIONS = "v1/conversations"


async def made(client: ClientSession, *items: Any, **fields: Any) -> str:
    answer = await client.post(CONVERSATIONS, json={"items": items, **fields})
    assert answer.status == 200, await answer.text()
    found: str = (await answer.json())["id"]
    return found


async def items_in(client: ClientSession, conversation_id: str, **query: str) -> Any:
    query = {"order": "asc", "limit": "100", **query}
    answer = await client.get(f"{CONVERSATIONS}/{conversation_id}/items", params=query)
    assert answer.status == 200, await answer.text()
    return (await answer.json())["data"]


def texts(items: list[dict[str, Any]]) -> list[str]:
    return [item["content"][0]["text"] for item in items]


def spoken_to(submit: Any) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in submit.messages]


# ---- conversations and items ------------------------------------------------------------------


async def test_its_life(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _worker, _):
        answer = await (await client.post(CONVERSATIONS)).json()
        assert (answer["object"], answer["metadata"]) == ("conversation", {})
        path = f"{CONVERSATIONS}/{answer['id']}"
        assert await (await client.get(path)).json() == answer
        updated = await (await client.post(path, json={"metadata": {"a": "b"}})).json()
        assert updated == {**answer, "metadata": {"a": "b"}}
        assert await (await client.get(path)).json() == updated
        cleared = await (await client.post(path, json={"metadata": None})).json()
        assert cleared["metadata"] == {}
        deleted = await (await client.delete(path)).json()
        assert deleted == {"id": answer["id"], "object": "conversation.deleted", "deleted": True}
        assert (await client.get(path)).status == 404


async def test_items_are_added_listed_and_deleted(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _worker, service):
        conversation_id = await made(client, HI, metadata={"a": "b"})
        path = f"{CONVERSATIONS}/{conversation_id}/items"
        body = {"items": [{**HI, "content": f"m{n}"} for n in range(3)]}
        added = await (await client.post(path, json=body)).json()
        assert (added["object"], texts(added["data"])) == ("list", ["m0", "m1", "m2"])
        found = await items_in(client, conversation_id)
        assert texts(found) == ["hi", "m0", "m1", "m2"]
        assert len({item["id"] for item in found}) == 4
        one = await (await client.get(f"{path}/{found[1]['id']}")).json()
        assert one == found[1]
        page = await (await client.get(path, params={"limit": "2"})).json()
        assert (texts(page["data"]), page["has_more"]) == (["m2", "m1"], True)
        rest = await (await client.get(path, params={"after": page["last_id"]})).json()
        assert (texts(rest["data"]), rest["has_more"]) == (["m0", "hi"], False)
        exact = await (await client.get(path, params={"limit": "4"})).json()
        assert (len(exact["data"]), exact["has_more"]) == (4, False)
        kept = await (await client.delete(f"{path}/{found[3]['id']}")).json()
        assert (kept["id"], kept["metadata"]) == (conversation_id, {"a": "b"})
        assert (await client.get(f"{path}/{found[3]['id']}")).status == 404
        again = await (await client.post(path, json={"items": [HI]})).json()
        assert again["first_id"] not in {item["id"] for item in found}
        assert texts(await items_in(client, conversation_id)) == ["hi", "m0", "m1", "hi"]
        await client.delete(f"{CONVERSATIONS}/{conversation_id}")
        rows = await service.store._execute("SELECT COUNT(*) FROM conversation_items", ())
        assert rows == [(0,)]


async def test_what_is_not_there_is_a_404(tmp_path: Path) -> None:
    server = ServerConfig(api_keys=("a", "b"))
    async with api(tmp_path, server=server) as (client, worker, _):
        answer = await client.post(CONVERSATIONS, json={"items": [HI]}, headers=key("a"))
        conversation_id = (await answer.json())["id"]
        path = f"{CONVERSATIONS}/{conversation_id}"
        listed = await (await client.get(f"{path}/items", headers=key("a"))).json()
        item = listed["first_id"]
        tried: list[tuple[str, str, Any]] = []
        for base in (path, f"{CONVERSATIONS}/{GONE}", f"{CONVERSATIONS}/x"):
            tried += [
                ("get", base, None),
                ("post", base, {"metadata": {}}),
                ("delete", base, None),
                ("get", f"{base}/items", None),
                ("post", f"{base}/items", {"items": [HI]}),
                ("get", f"{base}/items/{item}", None),
                ("delete", f"{base}/items/{item}", None),
            ]
        for method, where, body in tried:
            refused = await client.request(method, where, json=body, headers=key("b"))
            code = (await refused.json())["error"]["code"]
            assert (refused.status, code) == (404, "conversation_not_found"), where
        for method in ("get", "delete"):
            where = f"{path}/items/msg_1"
            refused = await client.request(method, where, headers=key("a"))
            error = (await refused.json())["error"]
            assert (refused.status, error["code"]) == (404, "item_not_found")
        refused = await client.get(f"{path}/items?after=msg_1", headers=key("a"))
        assert (await refused.json())["error"]["param"] == "after"
        for fields in ({"conversation": GONE}, {"conversation": {"id": conversation_id}}):
            body = {"input": "x", **fields}
            refused = await client.post("v1/responses", json=body, headers=key("b"))
            error = (await refused.json())["error"]
            assert (refused.status, error["param"]) == (404, "conversation")
        assert (
            len((await (await client.get(f"{path}/items", headers=key("a"))).json())["data"]) == 1
        )
        assert worker.unread() == 0


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("", {"items": [HI] * (bounds.MOST_ITEMS + 1)}, "items"),
    ("", {"items": HI}, "items"),
    ("", {"items": [{"role": "robot", "content": "x"}]}, "items[0].role"),
    ("", {"items": [HI, {"type": "web_search_call"}]}, "items[1].type"),
    ("", {"items": [{"type": "item_reference", "id": "msg_1"}]}, "items[0].id"),
    (
        "",
        {"items": [{"type": "reasoning", "encrypted_content": "x"}]},
        "items[0].encrypted_content",
    ),
    ("", {"items": [{"type": "function_call_output", "call_id": "c"}]}, "items[0].call_id"),
    ("", {"metadata": {"a": 1}}, "metadata[...]"),
    ("", {"metadata": "a"}, "metadata"),
    ("", {"metadata": {str(n): "" for n in range(bounds.MOST_METADATA + 1)}}, "metadata"),
    ("", {"metadata": {"k" * (bounds.LONGEST_KEY + 1): ""}}, "metadata"),
    ("", {"metadata": {"k": "v" * (bounds.LONGEST_VALUE + 1)}}, "metadata.k"),
    ("", {"itens": []}, "itens"),
    ("/{id}", {"metadata": {"k": "v" * (bounds.LONGEST_VALUE + 1)}}, "metadata.k"),
    ("/{id}", {"meta": {}}, "meta"),
    ("/{id}/items", {}, "items"),
    ("/{id}/items", {"items": [{"role": "user"}]}, "items[0].content"),
    ("/{id}/items", {"items": [HI], "include": "x"}, "include"),
]


async def test_each_wrong_field_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _worker, service):
        conversation_id = await made(client, HI)
        for rest, body, param in WRONG:
            path = CONVERSATIONS + rest.format(id=conversation_id)
            answer = await client.post(path, json=body)
            error = (await answer.json())["error"]
            expected = param.replace("[...]", "")
            assert (error["param"], answer.status) == (expected, answer.status), (rest, body)
            assert (error["code"] == "unknown_parameter") == ("unknown" in error["message"])
            assert answer.status == (404 if "item_reference" in str(body) else 400)
        assert texts(await items_in(client, conversation_id)) == ["hi"]
        rows = await service.store._execute("SELECT COUNT(*) FROM conversations", ())
        assert rows == [(1,)]
        for fields, param in (
            ({"conversation": 5}, "conversation"),
            ({"conversation": {}}, "conversation.id"),
            ({"conversation": GONE, "previous_response_id": "resp_1"}, "conversation"),
        ):
            found = await refusal(client, input="x", **fields)
            assert found[::2] == (400, param)


async def test_a_conversation_is_bounded(tmp_path: Path) -> None:
    async with api(tmp_path, server=ServerConfig(hard_message_bytes=6000)) as (client, worker, _):
        long = {**HI, "content": "x" * 2000}
        assert await refusal(client, CONVERSATIONS, items=[long] * 3) == (
            400,
            "invalid_value",
            "items",
        )
        conversation_id = await made(client, long)
        path = f"{CONVERSATIONS}/{conversation_id}/items"
        assert await refusal(client, path, items=[long]) == (400, "invalid_value", "items")
        await turn(client, worker, (1, {"texts": ("y" * 3000,)}), conversation=conversation_id)
        found = await refusal(client, input="x", conversation=conversation_id)
        assert found == (400, "invalid_value", "conversation")
        answer = (await items_in(client, conversation_id))[-1]
        await client.delete(f"{path}/{answer['id']}")
        await turn(client, worker, conversation=conversation_id)


async def test_what_is_added_at_the_same_time_is_checked_together(tmp_path: Path) -> None:
    server = ServerConfig(hard_message_bytes=6000)
    async with api(tmp_path, server=server) as (client, worker, _):

        async def added(conversation_id: str, item: dict[str, Any]) -> list[int]:
            path = f"{CONVERSATIONS}/{conversation_id}/items"
            posts = (client.post(path, json={"items": [item]}) for _ in range(6))
            return sorted([answer.status for answer in await asyncio.gather(*posts)])

        call = {"type": "function_call", "call_id": "a", "name": "add", "arguments": "{}"}
        result = {"type": "function_call_output", "call_id": "a", "output": "5"}
        called, empty = await made(client, HI, call), await made(client)
        assert await added(called, result) == [200, *5 * [400]]
        assert await added(empty, {**HI, "content": "x" * 1500}) == [200, 200, *4 * [400]]
        for conversation_id in (called, empty):
            await turn(client, worker, conversation=conversation_id)


async def test_one_that_has_not_changed_for_long_is_deleted(tmp_path: Path) -> None:
    async with api(tmp_path, store=StoreConfig(retention_days=1.0)) as (client, _worker, service):
        old, new = await made(client, HI), await made(client, HI)
        await service.store._execute(
            "UPDATE conversations SET changed_at = 5.0 WHERE conversation_id = ?", (old,)
        )
        await service.store.clean_up(5.0)
        assert (await client.get(f"{CONVERSATIONS}/{old}")).status == 200
        await client.post(f"{CONVERSATIONS}/{new}", json={"metadata": {"a": "b"}})
        await service.store.clean_up(6.0)
        assert (await client.get(f"{CONVERSATIONS}/{old}")).status == 404
        assert texts(await items_in(client, new)) == ["hi"]
        rows = await service.store._execute("SELECT COUNT(*) FROM conversation_items", ())
        assert rows == [(1,)]


# ---- responses --------------------------------------------------------------------------------


@pytest.mark.parametrize("as_object", [False, True])
@pytest.mark.parametrize("store", [False, True])
async def test_a_response_reads_the_items_and_adds_its_own(
    tmp_path: Path, as_object: bool, store: bool
) -> None:
    async with api(tmp_path) as (client, worker, _):
        conversation_id = await made(client, {"role": "developer", "content": "rules"})
        named = {"id": conversation_id} if as_object else conversation_id
        fields: dict[str, Any] = {"conversation": named, "store": store}
        first, submit = await turn(client, worker, **fields)
        assert first["conversation"] == {"id": conversation_id}
        assert spoken_to(submit) == [("system", "rules"), ("user", "hi")]
        second, submit = await turn(client, worker, input="again", **fields)
        assert spoken_to(submit) == [
            ("system", "rules"),
            ("user", "hi"),
            ("assistant", "the answer"),
            ("user", "again"),
        ]
        assert submit.messages[2].reasoning == "hm"
        found = await items_in(client, conversation_id)
        assert [item["type"] for item in found] == [
            *("message", "message", "reasoning", "message"),
            *("message", "reasoning", "message"),
        ]
        assert found[-2:] == second["output"]
        assert found[2:4] == first["output"]
        assert len({item["id"] for item in found}) == len(found)


async def test_it_outlives_the_gateway(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        conversation_id = await made(client)
        await turn(client, worker, conversation=conversation_id)
    async with api(tmp_path) as (client, worker, _):
        _, submit = await turn(client, worker, input="again", conversation=conversation_id)
        assert spoken_to(submit)[1] == ("assistant", "the answer")


async def test_calls_wait_for_their_results(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        conversation_id = await made(client)
        fields: dict[str, Any] = {"conversation": conversation_id, "tools": [ADD]}
        first, _ = await turn(client, worker, CALLS_ADD, **fields)
        call_id = first["output"][-1]["call_id"]
        found = await refusal(client, input="x", conversation=conversation_id)
        assert found[::2] == (400, "input")
        result = {"type": "function_call_output", "call_id": call_id, "output": "3"}
        _, submit = await turn(client, worker, input=[result], **fields)
        assert [message.role for message in submit.messages] == ["user", "assistant", "tool"]
        items = await items_in(client, conversation_id)
        call = next(item for item in items if item["type"] == "function_call")
        await client.delete(f"{CONVERSATIONS}/{conversation_id}/items/{call['id']}")
        found = await refusal(client, input="x", conversation=conversation_id)
        assert found == (400, "invalid_value", "conversation")


async def test_only_one_response_runs_in_it_at_a_time(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        conversation_id, other = await made(client, HI), await made(client)
        path = f"{CONVERSATIONS}/{conversation_id}"
        fields: dict[str, Any] = {"conversation": conversation_id, **UNPACED}
        running = asyncio.create_task(client.post("v1/responses", json={"input": "1", **fields}))
        submit = await worker.next_submit()  # not accepted yet
        assert await refusal(client, input="2", **fields) == LOCKED
        await worker.accept(submit)
        await worker.tokens(submit.request_id, 0, "a")
        async with client.ws_connect("/v1/responses") as socket:
            await create(socket, input="2", conversation=conversation_id)
            error = await receive(socket, "error")
            assert (error["status"], error["error"]["code"]) == LOCKED[:2]
        assert await refusal(client, f"{path}/items", items=[HI]) == LOCKED
        (item,) = await items_in(client, conversation_id)
        answer = await client.delete(f"{path}/items/{item['id']}")
        assert (await answer.json())["error"]["code"] == "conversation_locked"
        await turn(client, worker, conversation=other)
        await worker.tokens(submit.request_id, 1, "b", finish=STOP)
        assert (await running).status == 200
        _, again = await turn(client, worker, input="2", **fields)
        assert spoken_to(again) == [
            *(("user", "hi"), ("user", "1"), ("assistant", "ab"), ("user", "2")),
        ]


async def test_a_client_that_saw_the_end_finds_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the store takes long."""
    async with api(tmp_path) as (client, worker, service):
        conversation_id = await made(client)
        add = service.conversations._store.add

        async def slow(*args: Any, **options: Any) -> Any:
            await asyncio.sleep(0.2)
            return await add(*args, **options)

        monkeypatch.setattr(service.conversations._store, "add", slow)
        await turn(client, worker, conversation=conversation_id)
        found = await items_in(client, conversation_id)
        assert len(found) == 3
        await turn(client, worker, conversation=conversation_id)
        _, submit = await turn(client, worker, conversation=conversation_id)
        assert len(submit.messages) == 5
        path = f"{CONVERSATIONS}/{conversation_id}/items"
        assert (await client.delete(f"{path}/{found[-1]['id']}")).status == 200
        await turn(client, worker, conversation=conversation_id)
        assert (await client.post(path, json={"items": [HI]})).status == 200


async def test_what_is_refused_or_left_holds_nothing(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        conversation_id = await made(client)
        fields = {"conversation": conversation_id}
        assert (await refusal(client, input=[], **fields))[2] == "input"
        assert service.conversations._turns == {}
        asking = asyncio.create_task(refusal(client, input="x", **fields))
        submit = await worker.next_submit()
        rejected = Rejected(request_id=submit.request_id, code="x", message="no", param="messages")
        await worker.say(rejected)
        assert (await asking)[0] == 400
        assert service.conversations._turns == {}
        leaving = asyncio.create_task(client.post("v1/responses", json={"input": "x", **fields}))
        submit = await worker.next_submit()
        leaving.cancel()
        await until(lambda: service.conversations._turns == {})
        next_one = asyncio.create_task(client.post("v1/responses", json={"input": "x", **fields}))
        assert await worker.next_cancel() == submit.request_id
        request_id = await accepted(worker)
        await service.conversations.finish(conversation_id, make_session())  # one given up before
        assert await refusal(client, input="x", **fields) == LOCKED
        service.cancel(service._sessions[request_id])
        await worker.next_cancel()
        await worker.tokens(request_id, 0, finish=Finish(reason="cancelled"))
        await next_one
        assert texts(await items_in(client, conversation_id)) == ["x"]
        service.draining = True
        assert (await refusal(client, input="x", **fields))[1] == "draining"
        assert service.conversations._turns == {}


async def begun(
    client: Any, worker: ScriptedWorker, conversation_id: str
) -> tuple[dict[str, Any], str]:
    """A response of a conversation in the background, and its id on the link, after a token."""
    body = {"input": "x", "background": True, "conversation": conversation_id}
    asking = asyncio.create_task(client.post("v1/responses", json=body))
    request_id = await accepted(worker)
    response = await (await asking).json()
    await worker.tokens(request_id, 0, "a")
    return response, request_id


async def test_what_ends_early_adds_what_the_client_has(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        conversation_id = await made(client)
        response, request_id = await begun(client, worker, conversation_id)
        cancelling = asyncio.create_task(client.post(f"v1/responses/{response['id']}/cancel"))
        await worker.next_cancel()
        await worker.tokens(request_id, 1, finish=Finish(reason="cancelled"))
        await cancelling
        user, answer = await items_in(client, conversation_id)
        assert (texts([user, answer]), answer["status"]) == (["x", "a"], "incomplete")
        _, submit = await turn(client, worker, input="y", conversation=conversation_id)
        assert len(submit.messages) == 3


async def test_a_call_that_was_cut_off_is_not_added(tmp_path: Path) -> None:
    """Nobody can send its result, so no response could follow it."""
    pieces = CALL["pieces"][:-1]
    turns = (Turn(at=1, phase="calling"),)
    cut = (4, {"turns": turns, "pieces": pieces, "finish": Finish(reason="length")})
    async with api(tmp_path) as (client, worker, _):
        conversation_id = await made(client)
        fields: dict[str, Any] = {"conversation": conversation_id, "tools": [ADD]}
        response, _ = await turn(client, worker, cut, **fields)
        assert response["output"][-1]["status"] == "incomplete"
        kinds = [item["type"] for item in await items_in(client, conversation_id)]
        assert "function_call" not in kinds
        await turn(client, worker, **fields)


@pytest.mark.parametrize("end", ["fail", "delete"])
async def test_one_that_fails_or_is_deleted_adds_nothing(tmp_path: Path, end: str) -> None:
    async with api(tmp_path) as (client, worker, service):
        conversation_id = await made(client)
        response, request_id = await begun(client, worker, conversation_id)
        await until(lambda: service._sessions[response["id"]].answer_text == "a")
        if end == "fail":
            service.fail_all()
        else:
            deleting = asyncio.create_task(client.delete(f"v1/responses/{response['id']}"))
            await worker.next_cancel()
            await worker.tokens(request_id, 1, finish=Finish(reason="cancelled"))
            await deleting
        await until(lambda: service.conversations._turns == {})
        assert await items_in(client, conversation_id) == []


async def test_a_conversation_may_be_deleted_while_a_response_runs(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        conversation_id = await made(client)
        body = {"input": "x", "conversation": conversation_id}
        asking = asyncio.create_task(client.post("v1/responses", json=body))
        request_id = await accepted(worker)
        path = f"{CONVERSATIONS}/{conversation_id}"
        assert await refusal(client, **body) == LOCKED
        assert (await client.delete(path)).status == 200
        gone = (404, "conversation_not_found", "conversation")
        assert await refusal(client, **body) == gone
        assert await refusal(client, f"{path}/items", items=[HI]) == gone
        assert (await client.delete(f"{path}/items/msg_x")).status == 404
        await worker.tokens(request_id, 0, "a", finish=STOP)
        assert (await (await asking).json())["status"] == "completed"
        await until(lambda: service.conversations._turns == {})
        rows = await service.store._execute("SELECT COUNT(*) FROM conversation_items", ())
        assert rows == [(0,)]


async def test_items_can_be_referred_to(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        conversation_id = await made(client, {**HI, "content": "first"})
        (item,) = await items_in(client, conversation_id)
        _, submit = await turn(client, worker, input=[{"type": "item_reference", "id": item["id"]}])
        assert spoken_to(submit) == [("user", "first")]


async def test_over_a_websocket(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _), client.ws_connect("/v1/responses") as socket:
        conversation_id = await made(client)
        for turns in (1, 3):
            await create(socket, conversation=conversation_id)
            submit = await spoken(worker)
            assert len(submit.messages) == turns
            ended = await receive(socket, "response.completed")
            assert ended["response"]["conversation"] == {"id": conversation_id}


async def test_the_client_of_openai(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        openai = openai_client(client)
        user: Any = {"type": "message", "role": "user", "content": "I am Ada."}
        conversation = await openai.conversations.create(items=[user], metadata={"topic": "x"})
        asking = asyncio.create_task(
            openai.responses.create(
                model="tiny-reasoner", input="Who am I?", conversation=conversation.id
            )
        )
        submit = await spoken(worker, thought(answer="Ada"))
        assert spoken_to(submit) == [("user", "I am Ada."), ("user", "Who am I?")]
        response = await asking
        assert response.conversation is not None
        assert response.conversation.id == conversation.id
        kinds = [i.type async for i in openai.conversations.items.list(conversation.id, limit=2)]
        assert kinds == ["message", "reasoning", "message", "message"]
        added = await openai.conversations.items.create(conversation.id, items=[user])
        found = await openai.conversations.items.retrieve(
            added.data[0].id or "", conversation_id=conversation.id
        )
        assert found.type == "message"
        await openai.conversations.items.delete(
            added.data[0].id or "", conversation_id=conversation.id
        )
        updated = await openai.conversations.update(conversation.id, metadata={"topic": "y"})
        assert updated.metadata == {"topic": "y"}
        assert (await openai.conversations.retrieve(conversation.id)).metadata == {"topic": "y"}
        assert (await openai.conversations.delete(conversation.id)).deleted
