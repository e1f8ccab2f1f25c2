"""Every way in which a response can end, in every API. A cut answer is never reported as complete.

Two ways show nothing to a client: the client has left, or a bug in the handler breaks the stream
off. `tests.gateway.api.test_apis` has both.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, ClientWebSocketResponse
from openai import APIError, AsyncOpenAI
from structlog.testing import capture_logs

from gateway.api import chat_chunks
from gateway.api.responses import routes
from gateway.config import ClusterConfig, SessionConfig
from gateway.schemas.errors import Cancelled
from gateway.service import ResponseService
from gateway.store import StoredResponse
from tests.gateway.api.test_apis import accepted, api
from tests.gateway.support.override import override
from tests.gateway.support.scripted_service import until
from tests.gateway.support.scripted_worker import ScriptedWorker
from tests.gateway.support.sessions import make_session
from workers.messages import Cancel, Finish

STOP, LENGTH = Finish(reason="stop"), Finish(reason="length")


@dataclass
class Scene:
    """A gateway, its worker, and one response of each API that the worker has accepted."""

    client: ClientSession
    worker: ScriptedWorker
    service: ResponseService
    ids: list[str] = field(default_factory=list)
    tokens: int = 0  # generated, of each response

    async def generate(self, *texts: str, **fields: Any) -> None:
        """Generate the same tokens for every response."""
        for response_id in self.ids:
            await self.worker.tokens(response_id, self.tokens, *texts, **fields)
        self.tokens += len(texts)

    async def think_and_answer(self, *texts: str, **fields: Any) -> None:
        await self.generate("think", "", boundary=1)
        await self.generate(*texts, **fields)

    async def arrived(self) -> None:
        """Return when the gateway has the tokens of all responses."""
        sessions = [self.service._sessions[response_id] for response_id in self.ids]
        await until(lambda: all(len(session.token_ids) == self.tokens for session in sessions))

    async def confirm(self) -> None:
        """Let the worker confirm each cancel."""
        told = set(self.ids)
        while told:
            message = await self.worker.next()
            assert isinstance(message, Cancel)
            if message.request_id in told:
                told.remove(message.request_id)
                ended = Finish(reason="cancelled")
                await self.worker.tokens(message.request_id, self.tokens, finish=ended)

    async def cancel_by_id(self, *, confirmed: bool = True) -> None:
        # A chat completion that has ended is forgotten.
        statuses = [200 if name in self.service._sessions else 404 for name in self.ids]
        asked = [
            asyncio.create_task(self.client.post(f"/v1/responses/{response_id}/cancel"))
            for response_id in self.ids
        ]
        if confirmed:
            await self.confirm()
        assert [answer.status for answer in await asyncio.gather(*asked)] == statuses

    async def drain(self) -> None:
        """Shut the gateway down, with a `shutdown_timeout_s` that ends at once."""
        await self.service.drain(0)


Drive = Callable[[Scene], Awaitable[None]]


# ---- how the responses come to their ends -------------------------------------------------------


async def stops(scene: Scene) -> None:
    await scene.think_and_answer("a", "b", "", finish=STOP)


async def reaches_a_stop_string(scene: Scene) -> None:
    await scene.think_and_answer("a", finish=STOP)  # the worker says no more than that


async def runs_into_its_bound(scene: Scene) -> None:
    await scene.think_and_answer("a", finish=LENGTH)


async def thinks_until_its_bound(scene: Scene) -> None:
    await scene.generate("think", "on", finish=LENGTH)


async def ends_while_thinking(scene: Scene) -> None:
    await scene.generate("think", "", finish=STOP)


async def ends_with_an_empty_answer(scene: Scene) -> None:
    await scene.think_and_answer("", finish=STOP)


async def gets_its_forced_lengths(scene: Scene) -> None:
    await scene.think_and_answer("a", finish=LENGTH)


async def is_cancelled_before_an_instance_has_it(scene: Scene) -> None:
    await scene.cancel_by_id()


async def is_cancelled_while_delivered(scene: Scene) -> None:
    """The engine has finished, and the pacer holds the answer back."""
    await scene.think_and_answer("a", "b", "", finish=STOP)
    await scene.arrived()
    await scene.cancel_by_id(confirmed=False)


async def is_cancelled_while_thinking(scene: Scene) -> None:
    await scene.generate("think")
    await scene.arrived()
    await scene.cancel_by_id()


async def is_cancelled_while_answering(scene: Scene) -> None:
    await scene.think_and_answer("a")
    await scene.arrived()
    await scene.cancel_by_id()


async def is_cancelled_and_stops_by_itself(scene: Scene) -> None:
    """The model ends while the cancel is on its way."""
    await scene.think_and_answer("a")
    await scene.arrived()
    asked = asyncio.create_task(scene.cancel_by_id(confirmed=False))
    sessions = [scene.service._sessions[response_id] for response_id in scene.ids]
    await until(lambda: all(session.cancelling for session in sessions))
    await scene.generate("b", finish=STOP)
    await asked


async def is_cancelled_without_an_instance(scene: Scene) -> None:
    await scene.think_and_answer("a")
    await scene.arrived()
    await scene.worker.hang_up()
    await until(lambda: not scene.service.cluster.instances)
    await scene.cancel_by_id(confirmed=False)


async def is_deleted(scene: Scene) -> None:
    await scene.think_and_answer("a")
    await scene.arrived()
    for response_id in scene.ids:
        assert (await scene.client.delete(f"/v1/responses/{response_id}")).status == 200
    await scene.confirm()


async def is_cut_by_the_shutdown(scene: Scene) -> None:
    await scene.think_and_answer("a")
    await scene.arrived()
    draining = asyncio.create_task(scene.drain())
    await scene.confirm()
    await draining


async def is_cut_by_the_shutdown_of_a_silent_engine(scene: Scene) -> None:
    await scene.think_and_answer("a")
    await scene.arrived()
    scene.service.fail_all()


async def is_delivered_at_the_shutdown(scene: Scene) -> None:
    """The engine has finished, and only the pacer holds the answer back."""
    await scene.think_and_answer("a", "b", "", finish=STOP)
    await scene.drain()


async def is_delivered_at_a_forced_shutdown(scene: Scene) -> None:
    await scene.think_and_answer("a", "b", "", finish=STOP)
    await scene.arrived()
    scene.service.fail_all()


async def loses_its_instance(scene: Scene) -> None:
    await scene.think_and_answer("a")
    await scene.arrived()
    await scene.worker.hang_up()


async def meets_an_engine_error(scene: Scene) -> None:
    await scene.think_and_answer("a")
    await scene.arrived()
    await scene.generate(finish=Finish(reason="error", message="broken"))


async def meets_a_bug(scene: Scene) -> None:
    await scene.think_and_answer("a")
    await scene.arrived()
    for response_id in scene.ids:
        override(scene.service._sessions[response_id], tokens=None)
    await scene.generate("b")


async def is_read_too_slowly(scene: Scene) -> None:
    # More than all buffers on the way hold.
    await scene.think_and_answer(*("x" * 300_000,) * 26, finish=STOP)


# ---- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """What a client sees of the end.

    :param status: of the response object, and the last event's.
    :param why: the reason of `incomplete`, or the code of the error of `failed`.
    :param chat: ``finish_reason``, or the code of the error.
    :param chat_status: HTTP status of a chat completion that is not streamed.
    :param events: the end of the streams of events, if it is not the response's own end.
    :param kept: whether a client can get the response afterwards.
    :param whole_first: whether those that are not streamed were complete before that.
    :param accepted: whether the worker has accepted the request before that.
    """

    drive: Drive
    status: str
    why: str | None
    chat: str
    chat_status: int = 200
    events: str | None = None
    kept: bool = True
    whole_first: bool = False
    accepted: bool = True
    body: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)


HELD_BACK = {"pacing": {"tpot_s": 60}}
AT_ONCE = {"cluster": ClusterConfig(failover_timeout_s=0)}
NEVER_AGAIN = {"cluster": ClusterConfig(max_restarts=0)}
FORCED = {"forced_lengths": {"reasoning_tokens": 2, "answer_tokens": 1}}
LONGER = {"forced_lengths": {"reasoning_tokens": 2, "answer_tokens": 5}}
SMALL_LOG = {"session": SessionConfig(log_bytes=4096)}

COMPLETE = Ending(stops, "completed", None, "stop")
ENDINGS = [
    COMPLETE,
    Ending(reaches_a_stop_string, "completed", None, "stop"),
    Ending(gets_its_forced_lengths, "completed", None, "stop", body=FORCED),
    Ending(is_delivered_at_the_shutdown, "completed", None, "stop", body=HELD_BACK),
    Ending(is_delivered_at_a_forced_shutdown, "completed", None, "stop", body=HELD_BACK),
    Ending(runs_into_its_bound, "incomplete", "max_output_tokens", "length"),
    Ending(runs_into_its_bound, "incomplete", "max_output_tokens", "length", body=LONGER),
    Ending(thinks_until_its_bound, "incomplete", "max_output_tokens", "length"),
    # Nobody cut these: the model itself ended, and chat completions have no other word for it.
    Ending(ends_while_thinking, "incomplete", "no_answer", "stop"),
    Ending(ends_with_an_empty_answer, "incomplete", "no_answer", "stop"),
    Ending(
        is_cancelled_before_an_instance_has_it,
        "incomplete",
        "cancelled",
        "cancelled",
        499,
        accepted=False,
    ),
    Ending(
        is_cancelled_while_delivered,
        "incomplete",
        "cancelled",
        "cancelled",
        499,
        whole_first=True,
        body=HELD_BACK,
    ),
    Ending(is_cancelled_while_thinking, "incomplete", "cancelled", "cancelled", 499),
    Ending(is_cancelled_while_answering, "incomplete", "cancelled", "cancelled", 499),
    Ending(
        is_cancelled_while_answering, "incomplete", "cancelled", "cancelled", 499, body=HELD_BACK
    ),
    Ending(is_cancelled_and_stops_by_itself, "incomplete", "cancelled", "cancelled", 499),
    Ending(is_cancelled_without_an_instance, "incomplete", "cancelled", "cancelled", 499),
    Ending(is_deleted, "incomplete", "cancelled", "cancelled", 499, kept=False),
    Ending(is_cut_by_the_shutdown, "failed", "draining", "draining", 503),
    Ending(is_cut_by_the_shutdown_of_a_silent_engine, "failed", "draining", "draining", 503),
    Ending(loses_its_instance, "failed", "no_instance", "no_instance", 503, tables=AT_ONCE),
    Ending(
        meets_an_engine_error, "failed", "instance_lost", "instance_lost", 503, tables=NEVER_AGAIN
    ),
    Ending(meets_a_bug, "failed", "internal_error", "internal_error", 500),
    Ending(
        is_read_too_slowly,
        "completed",
        None,
        "stop",
        events="events_expired",
        tables=SMALL_LOG,
    ),
]


def named(ending: Ending) -> str:
    return "-".join([ending.drive.__name__, *ending.body])


@pytest.mark.parametrize("ending", ENDINGS, ids=named)
async def test_every_ending_in_every_api(tmp_path: Path, ending: Ending) -> None:
    body = {"pacing": False, **ending.body}
    responses, messages = {"input": "hi", **body}, [{"role": "user", "content": "hi"}]
    async with asyncio.timeout(15), AsyncExitStack() as stack:
        stack.enter_context(capture_logs())  # to draw the traceback of a bug takes seconds
        client, worker, service = await stack.enter_async_context(api(tmp_path, **ending.tables))
        scene = Scene(client, worker, service)
        socket = await stack.enter_async_context(client.ws_connect("/v1/responses"))
        asked: list[asyncio.Task[Any]] = []
        for ask in (
            lambda: client.post("/v1/responses", json=responses),
            lambda: client.post("/v1/responses", json={**responses, "stream": True}),
            lambda: client.post("/v1/chat/completions", json={"messages": messages, **body}),
            lambda: client.post(
                "/v1/chat/completions", json={"messages": messages, "stream": True, **body}
            ),
            lambda: socket.send_json({"type": "response.create", **responses}),
        ):
            asked.append(asyncio.create_task(_awaited(ask())))
            submit = await worker.next_submit()
            if ending.accepted:
                await worker.accept(submit, reasoning=True)
            scene.ids.append(submit.request_id)
        whole, stream, chat, chat_stream, _ = asked
        if ending.accepted:
            await asyncio.gather(stream, chat_stream)  # their headers
        await ending.drive(scene)
        of_whole = COMPLETE if ending.whole_first else ending
        await _check_chat(of_whole, await chat)
        _check_chunks(ending, await _data(await chat_stream))
        _check_last_event(ending, (await _data(await stream))[-1])
        _check_last_event(ending, await _last_message(socket))
        await _check_whole(of_whole, await whole)
        await service.close()
        for _ in ("from the session", "from the store"):
            await _check_kept(of_whole, client, scene.ids[0])
            await _check_kept(ending, client, scene.ids[1])
            await _check_kept(ending, client, scene.ids[4])
            service._sessions.clear()


async def test_the_official_client_raises_and_does_not_ask_again(tmp_path: Path) -> None:
    """The client repeats a request by itself after some statuses: not after a cancellation."""
    async with (
        asyncio.timeout(15),
        api(tmp_path) as (client, worker, service),
        AsyncOpenAI(base_url=f"{client._base_url}v1", api_key="none", max_retries=2) as official,
    ):
        ask = partial(
            official.chat.completions.create,
            model="tiny-reasoner",
            messages=[{"role": "user", "content": "hi"}],
            extra_body={"pacing": False},
        )

        async def follow() -> str:
            stream: Any = await ask(stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        for asking in (ask(stream=False), follow()):
            asked = asyncio.ensure_future(asking)
            submit = await worker.next_submit()
            await worker.accept(submit)
            await worker.tokens(submit.request_id, 0, "half")
            scene = Scene(client, worker, service, [submit.request_id], 1)
            await scene.arrived()
            await scene.cancel_by_id()
            with pytest.raises(APIError) as caught:
                await asked
            assert caught.value.code == "cancelled"
        assert not worker.unread()


async def test_cancel_answers_even_if_the_engine_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "_CANCEL_WAIT_S", 0.01)
    async with asyncio.timeout(15), api(tmp_path) as (client, worker, _):
        body = {"input": "hi", "stream": True}
        asking = asyncio.create_task(client.post("/v1/responses", json=body))
        response_id = await accepted(worker)
        answer = await client.post(f"/v1/responses/{response_id}/cancel")
        assert (answer.status, (await answer.json())["status"]) == (200, "in_progress")
        await worker.tokens(response_id, 0, finish=Finish(reason="cancelled"))
        events = await _data(await asking)
        assert events[-1]["type"] == "response.incomplete"


async def test_stored_responses_of_earlier_versions_have_whole_seconds_too(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _, service):
        response = {"id": "resp_old", "created_at": 1795876205.844, "status": "completed"}
        await service.store.put(StoredResponse("resp_old", "", 1795876205.844, response, ()))
        assert (
            b'"created_at":1795876205,' in await (await client.get("/v1/responses/resp_old")).read()
        )


async def _awaited(asking: Awaitable[Any]) -> Any:
    return await asking


# ---- what each API says -------------------------------------------------------------------------


async def _check_chat(ending: Ending, answer: ClientResponse) -> None:
    document = await answer.json()
    assert answer.status == ending.chat_status
    if answer.status == 200:
        assert document["choices"][0]["finish_reason"] == ending.chat
    else:
        assert document["error"]["code"] == ending.chat


def _check_chunks(ending: Ending, documents: list[Any]) -> None:
    *chunks, last = documents
    finishes = [c["choices"][0]["finish_reason"] for c in chunks if "error" not in c]
    wanted = None if ending.chat_status == 200 else ending.chat
    assert last == "[DONE]"
    if wanted is not None:
        assert chunks[-1]["error"]["code"] == wanted
        assert set(finishes) <= {None}, "a chunk calls finished what an error ends"
    else:
        assert finishes[-1] == ending.chat
        assert set(finishes[:-1]) == {None}


def _check_last_event(ending: Ending, event: dict[str, Any]) -> None:
    if ending.events is not None:
        assert (event["type"], event["error"]["code"]) == ("error", ending.events)
        return
    assert event["type"] == f"response.{ending.status}"
    _check_object(ending, event["response"])


async def _check_whole(ending: Ending, answer: ClientResponse) -> None:
    document = await answer.json()
    if ending.status == "failed":
        assert answer.status == ending.chat_status
        assert document["error"]["code"] == ending.why
    else:
        assert answer.status == 200
        _check_object(ending, document)


def _check_object(ending: Ending, response: dict[str, Any]) -> None:
    assert response["status"] == ending.status
    assert isinstance(response["created_at"], int)
    reason = (response["incomplete_details"] or {}).get("reason")
    code = (response["error"] or {}).get("code")
    expected = {"incomplete": (ending.why, None), "failed": (None, ending.why)}
    assert (reason, code) == expected.get(ending.status, (None, None))
    if ending.status != "completed":
        messages = [item for item in response["output"] if item["type"] == "message"]
        assert all(item["status"] == "incomplete" for item in messages)


async def _check_kept(ending: Ending, client: ClientSession, response_id: str) -> None:
    answer = await client.get(f"/v1/responses/{response_id}")
    assert answer.status == (200 if ending.kept else 404)
    if ending.kept:
        _check_object(ending, await answer.json())


async def _data(answer: ClientResponse) -> list[Any]:
    """The data lines of an event stream."""
    assert answer.status == 200
    # Not line by line: a client of aiohttp reads no long lines.
    content = (await answer.read()).splitlines()
    lines = [line for line in content if line.startswith(b"data: ")]
    texts = [line.removeprefix(b"data: ").strip() for line in lines]
    return ["[DONE]" if text == b"[DONE]" else json.loads(text) for text in texts]


async def _last_message(socket: ClientWebSocketResponse) -> dict[str, Any]:
    while True:
        event: dict[str, Any] = await socket.receive_json(timeout=10)
        if event["type"] == "error" or event["type"].rpartition(".")[2] in (
            "completed",
            "incomplete",
            "failed",
        ):
            return event


def test_what_has_not_ended_has_no_finish_reason() -> None:
    with pytest.raises(Cancelled):
        chat_chunks.finish_reason(make_session())
