"""``truncation``: the oldest turns are dropped when the conversation does not fit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.history.truncation import droppable, without
from gateway.schemas.generation import Generation
from tests.gateway.api.test_apis import STOP, api, create, receive
from tests.gateway.responses.turns import refusal
from tests.gateway.support.scripted_worker import ScriptedWorker
from tests.gateway.support.sessions import make_session
from workers.messages import ChatMessage, Count, Counted, Rejected, Submit

CONTEXT = 100  # of the scripted worker


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def called(call_id: str) -> list[dict[str, Any]]:
    return [
        {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": call_id, "output": f"of {call_id}"},
    ]


TURNS = [
    said("developer", "rules"),
    said("user", "u1"),
    said("assistant", "a1"),
    said("user", "u2"),
    *called("c1"),
    said("assistant", "a2"),
    said("user", "u3"),
    *called("c2"),
    *called("c3"),
]


def messages_of(items: list[dict[str, Any]], **fields: Any) -> Generation:
    return make_session(input=items, **fields).generation


def texts(messages: tuple[ChatMessage, ...]) -> list[str]:
    return [one.content or "".join(call.call_id for call in one.tool_calls) for one in messages]


def test_turns_go_first_and_then_the_rounds_of_the_last_one() -> None:
    generation = messages_of(TURNS, instructions="be kind")
    units = droppable(generation.messages)
    left = [texts(without(generation, units[:count]).messages) for count in range(len(units) + 1)]
    head, last = ["be kind", "rules"], ["c3", "of c3"]
    assert left == [
        texts(generation.messages),
        [*head, "u2", "c1", "of c1", "a2", "u3", "c2", "of c2", *last],
        [*head, "u3", "c2", "of c2", *last],
        [*head, "u3", *last],
    ]


def test_a_result_goes_with_its_call_wherever_it_stands() -> None:
    items = [said("user", "u1"), called("c1")[0], said("user", "u2"), called("c1")[1]]
    generation = messages_of(items)
    shorter = without(generation, droppable(generation.messages)[:1])
    assert texts(shorter.messages) == ["u2"]
    assert shorter.public_param("messages[0].content") == "input[2]"


def test_fields_keep_their_names() -> None:
    generation = messages_of(TURNS, instructions="be kind")
    shorter = without(generation, droppable(generation.messages)[:1])
    names = [shorter.public_param(f"messages[{i}]") for i in range(len(shorter.messages))]
    assert names == ["instructions", *(f"input[{i}]" for i in (0, 3, 4, 5, 6, 7, 8, 9, 10, 11))]


async def measured(worker: ScriptedWorker, tokens_each: int) -> Submit:
    """Refuse and count prompts, in which each message has some tokens; return the one that fits."""
    while True:
        match await worker.next():
            case Count(prompt=prompt):
                tokens = tokens_each * len(prompt.messages)
                await worker.say(Counted(request_id=prompt.request_id, prompt_tokens=tokens))
            case Submit() as submit if tokens_each * len(submit.messages) < CONTEXT:
                await worker.accept(submit)
                await worker.tokens(submit.request_id, 0, "ok", finish=STOP)
                return submit
            case Submit() as submit:
                await worker.say(
                    Rejected(
                        request_id=submit.request_id,
                        code="context_length_exceeded",
                        message="too long",
                        param="messages",
                    )
                )
            case other:
                raise AssertionError(other)


@pytest.mark.parametrize(
    ("tokens_each", "bound", "left"),
    [
        (7, None, 12),  # all of them fit
        (9, None, 9 - 1),  # with a quarter of the context kept free: at most 8
        (9, 1, 10),  # with one token kept free: at most 11
        (30, 1, 2),
    ],
)
async def test_as_few_as_possible_are_dropped(
    tmp_path: Path, tokens_each: int, bound: int | None, left: int
) -> None:
    items = [said("user" if i % 2 == 0 else "assistant", f"m{i}") for i in range(12)]
    items[11] = said("user", "m11")
    fields: dict[str, Any] = {"max_output_tokens": bound} if bound else {}
    async with api(tmp_path) as (client, worker, service):
        with capture_logs() as logs:
            body = {"input": items, "truncation": "auto", **fields}
            asking = asyncio.create_task(client.post("v1/responses", json=body))
            submit = await measured(worker, tokens_each)
            response = await (await asking).json()
        assert texts(submit.messages) == [f"m{i}" for i in range(12 - left, 12)]
        assert (response["status"], response["truncation"]) == ("completed", "auto")
        dropped = [one["dropped"] for one in logs if one["event"] == "conversation_truncated"]
        assert dropped == ([12 - left] if left < 12 else [])
        assert not service._running


@pytest.mark.parametrize(
    ("items", "truncation"),
    [
        ([said("user", "only")], "auto"),
        ([said("user", "a"), said("assistant", "b"), said("user", "c")], "disabled"),
        ([said("user", "a"), said("assistant", "b"), said("user", "c")], "auto"),
    ],
)
async def test_what_cannot_fit_is_an_error_as_before(
    tmp_path: Path, items: Any, truncation: str
) -> None:
    async with api(tmp_path) as (client, worker, service):
        working = asyncio.create_task(measured(worker, CONTEXT))
        found = await refusal(client, input=items, truncation=truncation)
        assert found == (400, "context_length_exceeded", "input")
        assert not service._sessions
        working.cancel()


async def test_other_refusals_are_passed_on_at_once(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        items = [said("user", "a"), said("assistant", "b"), said("user", "c")]
        asking = asyncio.create_task(refusal(client, input=items, truncation="auto"))
        submit = await worker.next_submit()
        await worker.say(
            Rejected(
                request_id=submit.request_id,
                code="context_length_exceeded",
                message="too long",
                param="forced_lengths",
            )
        )
        assert (await asking)[2] == "forced_lengths"
        assert worker.unread() == 0


async def test_over_a_websocket(tmp_path: Path) -> None:
    items = [said("user", "a"), said("assistant", "b"), said("user", "c")]
    async with api(tmp_path) as (client, worker, _), client.ws_connect("/v1/responses") as socket:
        await create(socket, input=items, truncation="auto")
        submit = await measured(worker, 40)
        assert texts(submit.messages) == ["c"]
        assert (await receive(socket, "response.completed"))["response"]["truncation"] == "auto"


async def test_a_conversation_keeps_what_a_response_does_not_read(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        items = [said("user", "a"), said("assistant", "b")]
        made = await (await client.post("v1/conversations", json={"items": items})).json()
        body = {"input": "c", "conversation": made["id"], "truncation": "auto"}
        for left in (["c"], ["c", "ok", "c"]):
            asking = asyncio.create_task(client.post("v1/responses", json=body))
            submit = await measured(worker, 40 if len(left) == 1 else 25)
            assert texts(submit.messages) == left
            assert (await asking).status == 200
        found = await (await client.get(f"v1/conversations/{made['id']}/items")).json()
        assert len(found["data"]) == 6
        assert service.conversations._turns == {}


async def test_fields_that_change_nothing_are_checked_and_shown(tmp_path: Path) -> None:
    shown = {"prompt_cache_key": "k", "safety_identifier": "s", "max_tool_calls": 3}
    async with api(tmp_path) as (client, worker, _):
        body = {"input": "hi", "client_metadata": {"a": "b"}, **shown}
        asking = asyncio.create_task(client.post("v1/responses", json=body))
        await measured(worker, 1)
        response = await (await asking).json()
        assert {name: response[name] for name in shown} == shown
        wrongs: tuple[tuple[str, Any], ...] = (
            ("truncation", "middle"),
            ("max_tool_calls", -1),
            ("max_tool_calls", "many"),
            ("prompt_cache_key", "x" * 513),
            ("safety_identifier", "x" * 513),
            ("client_metadata", "a"),
            ("client_metadata", {str(i): i for i in range(65)}),
        )
        for name, wrong in wrongs:
            assert await refusal(client, input="hi", **{name: wrong}) == (
                400,
                "invalid_value",
                name,
            )
