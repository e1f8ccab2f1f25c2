"""``reasoning.summary``: the thoughts as the summary of their item, in events and in the object."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.gateway.api.test_apis import api, create, receive
from tests.gateway.responses.turns import (
    ADD,
    CALLS_ADD,
    HI,
    events_of,
    openai_client,
    refusal,
    spoken,
    turn,
)
from tests.gateway.support.sessions import ScriptedWorker, make_session
from tests.gateway.support.sessions import events_of as events_so_far

SUMMARY: dict[str, Any] = {"reasoning": {"summary": "auto"}}


@pytest.mark.parametrize("word", ["auto", "concise", "detailed"])
@pytest.mark.parametrize("name", ["summary", "generate_summary"])
async def test_the_thoughts_are_the_summary(tmp_path: Path, name: str, word: str) -> None:
    async with api(tmp_path) as (client, worker, _):
        response, _ = await turn(client, worker, reasoning={name: word})
        thoughts, message = response["output"]
        assert thoughts["summary"] == [{"type": "summary_text", "text": "hm"}]
        assert (thoughts["content"], thoughts["status"]) == ([], "completed")
        assert message["content"][0]["text"] == "the answer"
        assert response["reasoning"] == {"effort": None, "summary": word}
        looked_up = await (await client.get(f"v1/responses/{response['id']}")).json()
        assert looked_up["output"] == response["output"]


async def test_its_events_come_instead_of_those_of_the_content(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        body = {"input": "hi", "stream": True, "pacing": False, **SUMMARY}
        asking = asyncio.create_task(client.post("v1/responses", json=body))
        await spoken(worker)
        events = await events_of(await asking)
        types = [event["type"].removeprefix("response.") for event in events]
        assert types[2:8] == [
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
        ]
        assert not any("reasoning_text" in type_ for type_ in types)
        added, part, delta, done, ended, item = events[2:8]
        for event in (part, delta, done, ended):
            assert event["item_id"] == added["item"]["id"] == item["item"]["id"]
            assert (event["output_index"], event["summary_index"]) == (0, 0)
            assert "content_index" not in event
        assert added["item"]["summary"] == []
        assert part["part"] == {"type": "summary_text", "text": ""}
        assert (delta["delta"], done["text"]) == ("hm", "hm")
        assert ended["part"] == item["item"]["summary"][0] == {"type": "summary_text", "text": "hm"}
        assert "status" not in ended
        assert events[-1]["response"]["output"][0] == item["item"]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        response_id = events[-1]["response"]["id"]
        again = await client.get(f"v1/responses/{response_id}?stream=true&starting_after=3")
        assert (await events_of(again))[0] == delta


def test_a_summary_that_was_cut_off_says_so() -> None:
    session = make_session(**SUMMARY)
    worker = ScriptedWorker(session)
    worker.say("hm", now=1.0)
    worker.finish(now=2.0, reason="length")
    (ended,) = [e for e in events_so_far(session) if e["type"].endswith("summary_part.done")]
    assert (ended["status"], ended["part"]["text"]) == ("incomplete", "hm")


async def test_each_stretch_of_thoughts_has_its_own(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        response, _ = await turn(client, worker, CALLS_ADD, tools=[ADD], **SUMMARY)
        kinds = [item["type"] for item in response["output"]]
        assert kinds == ["reasoning", "function_call"]
        assert response["output"][0]["summary"][0]["text"] == "hm"


@pytest.mark.parametrize("how", ["items", "previous", "references"])
async def test_what_comes_back_reaches_the_model_as_thoughts(tmp_path: Path, how: str) -> None:
    async with api(tmp_path) as (client, worker, _):
        first, _ = await turn(client, worker, **SUMMARY)
        fields: dict[str, Any] = {"input": [HI]}
        if how == "previous":
            fields["previous_response_id"] = first["id"]
        elif how == "items":
            fields["input"] = [HI, *first["output"], HI]
        else:
            items = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
            fields["input"] = [HI, *items, HI]
        _, submit = await turn(client, worker, **fields, **SUMMARY)
        assert (submit.messages[1].reasoning, submit.messages[1].content) == ("hm", "the answer")


async def test_another_word_is_refused(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _worker, _):
        for word in ("long", "", 5):
            found = await refusal(client, input="hi", reasoning={"summary": word})
            assert found == (400, "invalid_value", "reasoning.summary")


async def test_over_a_websocket(tmp_path: Path) -> None:
    async with (
        api(tmp_path) as (client, worker, _),
        client.ws_connect("/v1/responses") as socket,
    ):
        await create(socket, stream_id="x", **SUMMARY)
        await spoken(worker)
        delta = await receive(socket, "response.reasoning_summary_text.delta")
        assert (delta["delta"], delta["stream_id"]) == ("hm", "x")
        ended = await receive(socket, "response.completed")
        assert ended["response"]["output"][0]["summary"][0]["text"] == "hm"


async def streamed(client: AsyncOpenAI) -> Any:
    async with client.responses.stream(
        model="tiny-reasoner", input="hi", reasoning={"summary": "auto"}
    ) as stream:
        kind = "response.reasoning_summary_text.delta"
        texts = [event.to_dict()["delta"] async for event in stream if event.type == kind]
        return "".join(map(str, texts)), await stream.get_final_response()


async def test_the_client_of_openai_puts_it_together(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        streaming = asyncio.create_task(streamed(openai_client(client)))
        await spoken(worker)
        text, response = await streaming
        assert (text, response.output[0].summary[0].text) == ("hm", "hm")
        assert response.output_text == "the answer"
