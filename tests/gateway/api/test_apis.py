"""The public APIs on a real HTTP server, in front of a worker that follows a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, ClientWebSocketResponse

from gateway.api import sse
from gateway.api.responses.routes import SOCKETS
from gateway.app import make_runner, make_site
from gateway.config import ClusterConfig, LimitsConfig, ServerConfig, SessionConfig
from gateway.service import ResponseService
from tests.gateway.support.scripted_service import serving, until
from tests.gateway.support.scripted_worker import ScriptedWorker
from workers.messages import Cancel, Finish, Submit

STOP = Finish(reason="stop")
UNPACED = {"pacing": False}


@asynccontextmanager
async def api(
    folder: Path, **tables: Any
) -> AsyncIterator[tuple[ClientSession, ScriptedWorker, ResponseService]]:
    """A client of a gateway with one scripted worker."""
    async with serving(folder, "worker-0", **tables) as (service, workers):
        runner = make_runner(service)
        await runner.setup()
        await make_site(runner, "127.0.0.1", 0).start()
        try:
            async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}/") as client:
                yield client, workers["worker-0"], service
        finally:
            await runner.cleanup()


async def accepted(worker: ScriptedWorker, *, reasoning: bool = False) -> str:
    """The next request, taken in."""
    submit = await worker.next_submit()
    await worker.accept(submit, reasoning=reasoning)
    return submit.request_id


async def create(socket: ClientWebSocketResponse, **fields: Any) -> None:
    await socket.send_json({"type": "response.create", "input": "hi", **UNPACED, **fields})


async def receive(socket: ClientWebSocketResponse, *types: str) -> dict[str, Any]:
    """The next event, or the next one of these types."""
    while True:
        event: dict[str, Any] = await socket.receive_json(timeout=10)
        if not types or event["type"] in types:
            return event


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


# ---- WebSocket --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        '{"type":"response.create","input":"a","text":{"format":"x"},"stream_id":"bad"}',
        '{"type":"response.create","input":"a","text":5,"stream_id":"bad"}',
        '{"type":"response.create","input":"a","text":["a"],"stream_id":"bad"}',
        '{"type":"response.resume","response_id":5,"stream_id":"bad"}',
        '{"type":"response.cancel","stream_id":"bad"}',
        '{"type":"response.cancel","response_id":"resp_x","stream_id":"bad"}',
        '{"type":["response.create"],"stream_id":"bad"}',
    ],
)
async def test_whatever_is_wrong_in_one_stream_the_other_goes_on(
    tmp_path: Path, message: str
) -> None:
    async with api(tmp_path) as (client, worker, _), client.ws_connect("/v1/responses") as socket:
        await create(socket, stream_id="good")
        request_id = await accepted(worker)
        await worker.tokens(request_id, 0, "a")
        await receive(socket, "response.output_text.delta")
        await socket.send_str(message)
        error = await receive(socket)
        assert (error["type"], error["stream_id"]) == ("error", "bad")
        assert error["status"] in (400, 404)
        await worker.tokens(request_id, 1, "b", finish=STOP)
        ended = await receive(socket, "response.completed")
        assert ended["stream_id"] == "good"


async def test_a_bug_met_by_one_event_is_told_and_the_socket_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        api(tmp_path) as (client, worker, service),
        client.ws_connect("/v1/responses") as socket,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(service, "find", None)
            await socket.send_json({"type": "response.cancel", "response_id": "x"})
            assert (await receive(socket))["error"]["code"] == "internal_error"
        await create(socket)
        await worker.tokens(await accepted(worker), 0, "a", finish=STOP)
        await receive(socket, "response.completed")


async def test_a_ping_is_answered_also_while_a_stream_runs(tmp_path: Path) -> None:
    async with (
        api(tmp_path) as (client, worker, _),
        client.ws_connect("/v1/responses") as socket,
    ):
        await socket.send_json({"type": "ping"})
        assert await receive(socket) == {"type": "pong"}
        await create(socket, stream_id="a")
        request_id = await accepted(worker)
        for number in range(200):
            await socket.send_json({"type": "ping", "stream_id": f"p{number}"})
        pongs = [await receive(socket, "pong") for _ in range(200)]
        assert [pong["stream_id"] for pong in pongs] == [f"p{number}" for number in range(200)]
        await socket.send_json({"type": "ping", "request_id": request_id})
        assert (await receive(socket, "error"))["error"]["param"] == "request_id"
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await receive(socket, "response.completed")


async def test_a_ping_tells_how_many_requests_wait_before_one(tmp_path: Path) -> None:
    async with (
        api(tmp_path) as (client, worker, _),
        client.ws_connect("/v1/responses") as socket,
    ):
        names = []
        for stream in "abc":
            await create(socket, stream_id=stream)
            await accepted(worker)
            created = await receive(socket, "response.created")
            names.append(created["response"]["id"])

        async def pong(name: str) -> dict[str, Any]:
            await socket.send_json({"type": "ping", "response_id": name})
            return await receive(socket, "pong")

        assert [await pong(name) for name in names] == [
            {"type": "pong", "ahead": ahead} for ahead in range(3)
        ]
        await worker.tokens(names[0], 0, "a")
        await receive(socket, "response.output_text.delta")
        await asyncio.sleep(1.1)  # the answers of one look are given for a second
        assert await pong(names[0]) == {"type": "pong"}  # it has begun
        assert [(await pong(name))["ahead"] for name in names[1:]] == [0, 1]
        assert await pong("resp_of_nobody") == {"type": "pong"}


async def test_errors_quote_no_more_than_a_line_of_what_was_sent(tmp_path: Path) -> None:
    long = "x" * 500_000
    async with (
        api(tmp_path) as (client, _worker, _),
        client.ws_connect("/v1/responses") as socket,
    ):
        for message in (
            {"type": long},
            {"type": "response.cancel", "response_id": long},
            {"type": "response.create", "input": "a", "pacing": {long: 1}},
        ):
            await socket.send_json(message)
            assert len(json.dumps(await receive(socket, "error"))) < 4000


async def test_bounds_of_one_socket(tmp_path: Path) -> None:
    tables = {
        "limits": LimitsConfig(max_streams_per_connection=1),
        "server": ServerConfig(max_message_bytes=2000),
    }
    async with (
        api(tmp_path, **tables) as (client, worker, _),
        client.ws_connect("/v1/responses") as socket,
    ):
        await socket.send_str("x" * 2001)
        assert (await receive(socket))["status"] == 413
        await create(socket, stream_id="a")
        request_id = await accepted(worker)
        await create(socket, stream_id="b")
        error = await receive(socket, "error")
        assert (error["status"], error["error"]["code"]) == (429, "too_many_streams")
        assert error["error"]["retry_after_s"] == 2
        await create(socket, stream_id="a")
        await create(socket, stream_id="a")
        assert (await receive(socket, "error"))["error"]["code"] == "stream_queue_full"
        resume = {"type": "response.resume", "response_id": request_id}
        await socket.send_json({**resume, "stream_id": "r1"})
        await socket.send_json({**resume, "stream_id": "r2"})
        error = await receive(socket, "error")
        assert (error["stream_id"], error["status"]) == ("r2", 429)
        for tpot_s in (0, 61):
            update = {"type": "response.pacing.update", "response_id": request_id}
            await socket.send_json({**update, "tpot_s": tpot_s})
            assert (await receive(socket, "error"))["error"]["param"] == "tpot_s"
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await worker.tokens(await accepted(worker), 0, "b", finish=STOP)
        ends = [await receive(socket, "response.completed") for _ in range(3)]
        assert sorted(end["stream_id"] for end in ends) == ["a", "a", "r1"]
        await socket.send_json({**resume, "stream_id": "r3"})  # there is room again
        assert (await receive(socket, "response.completed"))["stream_id"] == "r3"
        await create(socket, stream_id="b")  # there is room again
        await worker.tokens(await accepted(worker), 0, "c", finish=STOP)
        await receive(socket, "response.completed")


async def test_what_waits_on_one_socket_is_bounded_in_bytes(tmp_path: Path) -> None:
    tables = {"server": ServerConfig(max_message_bytes=2000, hard_message_bytes=2000)}
    async with (
        api(tmp_path, **tables) as (client, worker, _),
        client.ws_connect("/v1/responses") as socket,
    ):
        await create(socket, stream_id="a")
        request_id = await accepted(worker)
        await create(socket, stream_id="a", input="x" * 1200)
        await create(socket, stream_id="a", input="y" * 1200)
        assert (await receive(socket, "error"))["error"]["code"] == "stream_queue_full"
        await worker.tokens(request_id, 0, "a", finish=STOP)
        request_id = await accepted(worker)
        await create(socket, stream_id="a", input="y" * 1200)  # there is room again
        await worker.tokens(request_id, 0, "b", finish=STOP)
        await worker.tokens(await accepted(worker), 0, "c", finish=STOP)
        for _ in range(3):
            await receive(socket, "response.completed")


async def test_readers_who_come_while_the_gateway_is_busy_wait_to_be_let_in(
    tmp_path: Path,
) -> None:
    async with api(tmp_path) as (client, _worker, _service), AsyncExitStack() as stack:
        async with client.get("health") as answer:
            address = (answer.url.host, answer.url.port)
        for _ in range(300):  # and the loop does not run, so no connection is accepted
            stack.enter_context(create_connection(address, timeout=5))
        async with client.get("health") as answer:
            assert answer.status == 200


async def test_a_closed_socket_stops_no_response(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        async with client.ws_connect("/v1/responses") as socket:
            await create(socket)
            request_id = await accepted(worker)
            await receive(socket, "response.created")
        async with client.ws_connect("/v1/responses") as socket:
            await socket.send_json({"type": "response.resume", "response_id": request_id})
            await worker.tokens(request_id, 0, "a", finish=STOP)
            ended = await receive(socket, "response.completed")
            assert ended["response"]["id"] == request_id
            await socket.send_json(
                {"type": "response.resume", "response_id": request_id, "starting_after": 999}
            )
            assert (await receive(socket, "error"))["error"]["param"] == "starting_after"


async def test_a_reader_that_comes_after_the_ring_is_told(tmp_path: Path) -> None:
    async with api(tmp_path, session=SessionConfig(log_bytes=4096)) as (client, worker, _):
        async with client.ws_connect("/v1/responses") as socket:
            await create(socket)
            request_id = await accepted(worker)
            await worker.tokens(request_id, 0, "x" * 5000, finish=STOP)
            resume = {"type": "response.resume", "response_id": request_id}
            await asyncio.sleep(0)
            while True:
                await socket.send_json({**resume, "starting_after": 0, "stream_id": "late"})
                event = await receive(socket, "error")
                if event.get("stream_id") == "late":
                    break
            assert (event["status"], event["error"]["code"]) == (404, "events_expired")
        path = f"/v1/responses/{request_id}?stream=true&starting_after=0"
        async with client.get(path) as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["code"] == "events_expired"


# ---- HTTP -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "hi"}], "stream": True},
        ),
    ],
)
async def test_a_client_that_leaves_ends_what_nobody_can_come_back_to(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with api(tmp_path) as (client, worker, _):
        asking = asyncio.create_task(client.post(path, json=body))
        request_id = await accepted(worker)
        if body.get("stream"):
            answer = await asking
            await answer.content.readline()
            answer.close()
        else:
            asking.cancel()
        assert await worker.next() == Cancel(request_id=request_id)


async def test_without_workers_there_is_an_error_in_every_form(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    at_once = ClusterConfig(failover_timeout_s=0)
    async with api(tmp_path, cluster=at_once) as (client, worker, _):
        whole = asyncio.create_task(client.post("/v1/responses", json={"input": "hi"}))
        await accepted(worker)
        completion = asyncio.create_task(client.post("/v1/chat/completions", json=chat))
        await accepted(worker)
        stream = asyncio.create_task(
            client.post("/v1/chat/completions", json={**chat, "stream": True, **UNPACED})
        )
        await worker.tokens(await accepted(worker), 0, "half")
        await stream
        await worker.hang_up()
        for answer in (await whole, await completion):
            assert answer.status == 503
            assert (await answer.json())["error"]["code"] == "no_instance"
        lines = [line async for line in (await stream).content if line.strip()]
        assert json.loads(lines[-2].removeprefix(b"data: "))["error"]["code"] == "no_instance"
        assert lines[-1] == b"data: [DONE]\n"


MUCH = ("x" * 300_000,) * 26  # more than all buffers on the way hold
CHAT = {"messages": [{"role": "user", "content": "hi"}], "stream": True, **UNPACED}


async def test_a_reader_that_falls_behind_the_ring_is_told_within_its_stream(
    tmp_path: Path,
) -> None:
    async with api(tmp_path, session=SessionConfig(log_bytes=4096)) as (client, worker, _):
        body = {"input": "hi", "stream": True, **UNPACED}
        asking = asyncio.create_task(client.post("/v1/responses", json=body))
        request_id = await accepted(worker)
        answer = await asking
        await worker.tokens(request_id, 0, *MUCH, finish=STOP)
        last = (await answer.content.read()).strip().split(b"\n\n")[-1]
        document = json.loads(last.partition(b"data: ")[2])
        assert (document["type"], document["error"]["code"]) == ("error", "events_expired")


async def test_a_reader_of_chunks_that_falls_behind_gets_the_rest_in_larger_pieces(
    tmp_path: Path,
) -> None:
    async with api(tmp_path) as (client, worker, _):
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        request_id = await accepted(worker)
        answer = await asking
        await worker.tokens(request_id, 0, *MUCH, finish=STOP)
        content = await answer.content.read()
        chunks = [json.loads(line[6:]) for line in content.split(b"\n\n")[:-2]]
        texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
        assert "".join(texts) == "".join(MUCH)
        assert len(texts) < len(MUCH)
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_stream_that_a_bug_breaks_does_not_look_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api(tmp_path) as (client, worker, _):
        monkeypatch.setattr(sse.EventStream, "chunk", None)
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        request_id = await accepted(worker)
        answer = await asking
        await worker.tokens(request_id, 0, "a")
        with pytest.raises(ClientError):
            await answer.read()


@pytest.mark.parametrize("asked", [True, False])
async def test_chat_chunks(tmp_path: Path, asked: bool) -> None:
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": asked},
        **UNPACED,
    }
    async with api(tmp_path) as (client, worker, _):
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        request_id = await accepted(worker)
        await worker.tokens(request_id, 0, "a", "b", finish=STOP)
        text = await (await asking).text()
    assert not any(line.startswith(":") for line in text.splitlines()), "an SSE comment"
    frames = text.strip().split("\n\n")
    assert frames[-1] == "data: [DONE]"
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    usages = [chunk["usage"] for chunk in chunks if not chunk["choices"]]
    assert len(usages) == asked
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    texts = [delta.get("content") for delta in deltas]
    assert (texts[0], texts[-1]) == ("", None)
    assert "".join(texts[1:-1]) == "ab"  # together, if they came before the headers were sent


async def test_owners_see_only_their_own(tmp_path: Path) -> None:
    tables = {"server": ServerConfig(api_keys=("alice", "bob"))}
    async with api(tmp_path, **tables) as (client, worker, service):
        asking = asyncio.create_task(
            client.post("/v1/responses", json={"input": "hi"}, headers=key("alice"))
        )
        request_id = await accepted(worker)
        await worker.tokens(request_id, 0, "a", finish=STOP)
        assert (await asking).status == 200
        path = f"/v1/responses/{request_id}"
        follow_up = {"input": "x", "previous_response_id": request_id}
        for _ in range(2):  # from the session, then from the store
            assert (await client.get(path, headers=key("alice"))).status == 200
            for method, where, body in (
                ("GET", path, None),
                ("GET", path + "?stream=true", None),
                ("POST", path + "/cancel", None),
                ("DELETE", path, None),
                ("POST", "/v1/responses", follow_up),
            ):
                answer = await client.request(method, where, json=body, headers=key("bob"))
                assert answer.status == 404, (method, where)
            await service.close()
            service._sessions.clear()


async def test_what_should_not_be_stored_is_not(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        ids = {}
        for store in (True, False):
            body = {"input": "hi", "store": store}
            asking = asyncio.create_task(client.post("/v1/responses", json=body))
            ids[store] = await accepted(worker)
            await worker.tokens(ids[store], 0, "a", finish=STOP)
            await asking
        await service.close()
        assert await service.store.get(ids[True], "") is not None
        assert await service.store.get(ids[False], "") is None


async def test_responses_as_server_sent_events_and_resumed(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        body = {"input": "hi", "stream": True, **UNPACED}
        asking = asyncio.create_task(client.post("/v1/responses", json=body))
        request_id = await accepted(worker)
        await worker.tokens(request_id, 0, "a", "b", finish=STOP)
        answer = await asking
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"
        frames = (await answer.text()).strip().split("\n\n")
        for frame in frames:
            name, data = frame.split("\n")
            assert json.loads(data.removeprefix("data: "))["type"] == name.removeprefix("event: ")
        path = f"/v1/responses/{request_id}?stream=true&starting_after="
        resumed = (await (await client.get(path + "3")).text()).strip().split("\n\n")
        assert resumed == frames[4:]
        for wrong in ("999", "-2", "x", str(len(frames) - 1)):
            answer = await client.get(path + wrong)
            assert answer.status == 400
            assert (await answer.json())["error"]["param"] == "starting_after"


async def test_bodies_beyond_the_bound_and_bodies_that_are_none(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 1000

    tables = {"server": ServerConfig(max_message_bytes=2000)}
    async with api(tmp_path, **tables) as (client, _, _service):
        assert (await client.post("/v1/responses", data=chunks())).status == 413
        headers = {"Content-Encoding": "gzip"}
        answer = await client.post("/v1/responses", data=b"plain", headers=headers)
        assert answer.status == 400
        answer = await client.put("/v1/models")
        assert answer.status == 405
        assert "GET" in answer.headers["Allow"]


async def test_api_keys_are_asked_for_everywhere_and_separate_owners(tmp_path: Path) -> None:
    async with api(tmp_path, server=ServerConfig(api_keys=("alice", "bob"))) as (client, worker, _):
        assert (await client.get("/health")).status == 200
        for path in ("/v1/models", "/v1/responses/resp_x"):
            answer = await client.get(path)
            assert answer.status == 401
            assert (await answer.json())["error"]["code"] == "invalid_api_key"
        answer = await client.post(
            "/v1/chat/completions", json={"messages": []}, headers=key("eve")
        )
        assert answer.status == 401
        body = {"input": "hi", **UNPACED}
        asking = asyncio.create_task(client.post("/v1/responses", json=body, headers=key("alice")))
        await worker.tokens(await accepted(worker), 0, "a", finish=STOP)
        response = await (await asking).json()
        path = f"/v1/responses/{response['id']}"
        assert (await client.get(path, headers=key("alice"))).status == 200
        assert (await client.get(path, headers=key("bob"))).status == 404
        protocols = ["responses", "openai-insecure-api-key.bob"]
        async with client.ws_connect("/v1/responses", protocols=protocols) as socket:
            assert socket.protocol == "responses"
            resume = {"type": "response.resume", "response_id": response["id"]}
            await socket.send_json(resume)
            assert (await receive(socket, "error"))["error"]["code"] == "response_not_found"
            await create(socket)
            await worker.tokens(await accepted(worker), 0, "a", finish=STOP)
            assert await receive(socket, "response.completed")


async def test_hostile_headers_are_refused_in_form(tmp_path: Path) -> None:
    async with api(tmp_path, server=ServerConfig(api_keys=("alice",))) as (client, _, _service):
        port = client._base_url.port if client._base_url else 0
        for header, status in (
            (b"Authorization: Bearer \xff", b"401"),
            (b"Origin: http://\xff\xfe", b"403"),
            (b"Origin: http://[::1", b"403"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")
            writer.write(header + b"\r\n\r\n")
            text = await reader.read()
            writer.close()
            assert text.split(b" ", 2)[1] == status
            assert b'"error"' in text


async def test_a_whole_response_is_not_held_back(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        body = {"input": "hi", "pacing": {"tpot_s": 60}}
        asking = asyncio.create_task(client.post("/v1/responses", json=body))
        submit = await worker.next()
        assert isinstance(submit, Submit)
        assert not submit.pace.paced
        await worker.accept(submit)
        await worker.tokens(submit.request_id, 0, "a", "b", finish=STOP)
        answer = await asyncio.wait_for(asking, 10)
        assert (await answer.json())["status"] == "completed"
        assert b"pascal_qoe_count 0.0" in service.metrics.render()


async def test_a_bug_met_by_a_resumed_stream_is_told_and_the_socket_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    async with (
        api(tmp_path) as (client, worker, service),
        client.ws_connect("/v1/responses") as socket,
    ):
        await create(socket)
        request_id = await accepted(worker)
        await receive(socket, "response.created")
        monkeypatch.setattr(service, "following", broken)
        await socket.send_json({"type": "response.resume", "response_id": request_id})
        assert (await receive(socket, "error"))["error"]["code"] == "internal_error"
        await worker.tokens(request_id, 0, "a", finish=STOP)
        await receive(socket, "response.completed")


async def test_sockets_that_have_closed_are_not_kept(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, _):
        runner = make_runner(service)
        await runner.setup()
        await make_site(runner, "127.0.0.1", 0).start()
        sockets = runner.app[SOCKETS]
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/responses"
        async with ClientSession() as client, client.ws_connect(url):
            assert len(sockets) == 1
        await until(lambda: not sockets)
        await runner.cleanup()


async def test_the_models_tell_who_may_open_the_operations_page(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, _, _):
        here = await client.get("/v1/models")
        assert here.headers["X-Pascal-Operations"] == "allowed"
        far = await client.get("/v1/models", headers={"X-Forwarded-For": "203.0.113.9"})
        assert far.status == 200
        assert "X-Pascal-Operations" not in far.headers
