"""Chat completions over HTTP: calls of tools, several choices, and log probabilities."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.api.test_apis import api
from tests.gateway.support.scripted_worker import IDLE, ScriptedWorker
from workers.messages import Finish, Piece, Step, TokenLogprob, TokenRun, Turn

STOP = Finish(reason="stop")
ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
}


def body(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], "pacing": False, **fields}


async def say(worker: ScriptedWorker, request_id: str, tokens: int, **fields: Any) -> None:
    """The only step of a request."""
    run = TokenRun(
        request_id=request_id,
        position=0,
        token_ids=tuple(range(tokens)),
        **{"texts": (), "finish": STOP, **fields},
    )
    await worker.say(Step(sequence=worker._sequence, runs=(run,), stats=IDLE))
    worker._sequence += 1


CALL: dict[str, Any] = {
    "turns": (Turn(at=1, phase="calling"), Turn(at=5, phase="answering")),
    "pieces": (
        Piece(at=0, kind="reasoning", text="hm"),
        Piece(at=2, kind="call", name="add"),
        Piece(at=3, kind="call", text='{"a": '),
        Piece(at=4, kind="call", text="1}"),
    ),
}


async def chunks_of(answer: Any) -> list[dict[str, Any]]:
    lines = (await answer.text()).splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(one) for one in data]


async def test_a_call_is_a_message_of_its_own_kind(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        asking = asyncio.create_task(client.post("v1/chat/completions", json=body(tools=[ADD])))
        submit = await worker.next_submit()
        assert submit.tools[0]["function"]["name"] == "add"
        await worker.accept(submit, reasoning=True)
        await say(worker, submit.request_id, 5, **CALL)
        completion = await (await asking).json()
        (choice,) = completion["choices"]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
        assert choice["message"]["reasoning"] == "hm"
        (call,) = choice["message"]["tool_calls"]
        assert (call["type"], call["id"][:5]) == ("function", "call_")
        assert call["function"] == {"name": "add", "arguments": '{"a": 1}'}


async def test_the_pieces_of_a_call_join_to_its_arguments(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        request = body(tools=[ADD], stream=True)
        asking = asyncio.create_task(client.post("v1/chat/completions", json=request))
        submit = await worker.next_submit()
        await worker.accept(submit, reasoning=True)
        await say(worker, submit.request_id, 5, **CALL)
        chunks = await chunks_of(await asking)
        parts = [c["choices"][0]["delta"].get("tool_calls", []) for c in chunks]
        first, *rest = [part for some in parts for part in some]
        assert (first["function"], first["index"]) == ({"name": "add", "arguments": ""}, 0)
        assert "".join(part["function"]["arguments"] for part in rest) == '{"a": 1}'
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_are_as_many_requests_of_one_prompt(tmp_path: Path, stream: bool) -> None:
    async with api(tmp_path) as (client, worker, _):
        request = body(n=3, seed=5, stream=stream, stream_options={"include_usage": True})
        asking = asyncio.create_task(client.post("v1/chat/completions", json=request))
        submits = []
        for _ in range(3):
            submits.append(await worker.next_submit())
            await worker.accept(submits[-1], reasoning=True)
        assert [submit.sampling.seed for submit in submits] == [5, 6, 7]
        assert len({submit.messages for submit in submits}) == 1
        turn = (Turn(at=1, phase="answering"),)
        for place, submit in enumerate(submits):
            await say(worker, submit.request_id, 2, texts=("hm", f"answer {place}"), turns=turn)
        answer = await asking
        if stream:
            chunks = await chunks_of(answer)
            usage = chunks.pop()["usage"]
            texts = ["", "", ""]
            ends = []
            for chunk in chunks:
                (choice,) = chunk["choices"]
                texts[choice["index"]] += choice["delta"].get("content", "")
                ends += [choice["index"]] if choice["finish_reason"] == "stop" else []
            assert sorted(ends) == [0, 1, 2]
        else:
            completion = await answer.json()
            usage = completion["usage"]
            texts = [choice["message"]["content"] for choice in completion["choices"]]
        assert texts == ["answer 0", "answer 1", "answer 2"]
        assert usage["completion_tokens"] == 6
        assert usage["total_tokens"] == usage["prompt_tokens"] + 6


async def test_a_client_that_leaves_stops_all_choices(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        asking = asyncio.create_task(client.post("v1/chat/completions", json=body(n=2)))
        for _ in range(2):
            await worker.accept(await worker.next_submit())
        asking.cancel()
        assert len({await worker.next_cancel(), await worker.next_cancel()}) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_of_the_answer(tmp_path: Path, stream: bool) -> None:
    async with api(tmp_path) as (client, worker, _):
        request = body(logprobs=True, top_logprobs=1, stream=stream)
        asking = asyncio.create_task(client.post("v1/chat/completions", json=request))
        submit = await worker.next_submit()
        assert submit.sampling.logprobs == 1
        await worker.accept(submit, reasoning=True)
        likely = tuple(
            TokenLogprob(
                token=text,
                logprob=-0.25,
                data=tuple(text.encode()),
                top=(TokenLogprob(token=text, logprob=-0.25, data=tuple(text.encode())),),
            )
            for text in ("hm", "a", "b")
        )
        await say(
            worker,
            submit.request_id,
            3,
            texts=("hm", "a", "b"),
            turns=(Turn(at=1, phase="answering"),),
            logprobs=likely,
        )
        answer = await asking
        if stream:
            some = [chunk["choices"][0]["logprobs"] for chunk in await chunks_of(answer)]
            content = [one for part in some if part for one in part["content"]]
        else:
            content = (await answer.json())["choices"][0]["logprobs"]["content"]
        assert [one["token"] for one in content] == ["a", "b"]
        assert content[0]["top_logprobs"] == [{"token": "a", "logprob": -0.25, "bytes": [97]}]
