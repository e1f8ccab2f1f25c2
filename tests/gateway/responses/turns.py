"""Turns of a client of the Responses API, in front of a worker that follows a script."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import ClientSession
from openai import AsyncOpenAI

from tests.gateway.api.test_chat_output import CALL, say
from tests.gateway.support.scripted_worker import ScriptedWorker
from workers.messages import Submit, Turn

CALLS_ADD = (5, CALL)
ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}
HI = {"role": "user", "content": "hi"}


def openai_client(client: ClientSession, api_key: str = "none") -> AsyncOpenAI:
    """OpenAI's client of the same server."""
    return AsyncOpenAI(base_url=f"{client._base_url}v1", api_key=api_key, max_retries=0)


def thought(thoughts: str = "hm", answer: str = "the answer") -> tuple[int, dict[str, Any]]:
    """What a worker says: thoughts of a token, and an answer of a token."""
    return 2, {"turns": (Turn(at=1, phase="answering"),), "texts": (thoughts, answer)}


async def spoken(worker: ScriptedWorker, said: tuple[int, dict[str, Any]] | None = None) -> Submit:
    """The next request, which the worker has answered."""
    submit = await worker.next_submit()
    await worker.accept(submit, reasoning=True)
    tokens, fields = said or thought()
    await say(worker, submit.request_id, tokens, **fields)
    return submit


async def turn(
    client: ClientSession,
    worker: ScriptedWorker,
    said: tuple[int, dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> tuple[dict[str, Any], Submit]:
    """A whole response over HTTP, and what the worker was sent for it."""
    asking = asyncio.create_task(
        client.post("v1/responses", json={"input": "hi", **fields}, headers=headers)
    )
    speaking = asyncio.create_task(spoken(worker, said))
    await asyncio.wait((asking, speaking), return_when=asyncio.FIRST_COMPLETED)
    if asking.done() and not speaking.done():
        speaking.cancel()
        raise AssertionError(await asking.result().text())
    answer = await asking
    assert answer.status == 200, await answer.text()
    return await answer.json(), await speaking


async def refusal(
    client: ClientSession,
    /,
    path: str = "v1/responses",
    headers: Any = None,
    **fields: Any,
) -> Any:
    """The status, code and field of a refusal."""
    # One that is not refused would wait for its worker.
    answer = await asyncio.wait_for(client.post(path, json=fields, headers=headers), 10)
    error = (await answer.json())["error"]
    return answer.status, error["code"], error["param"]


async def events_of(answer: Any) -> list[dict[str, Any]]:
    """The events of a stream."""
    lines = (await answer.text()).splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
