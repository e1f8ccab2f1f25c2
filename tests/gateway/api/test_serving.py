"""The whole path: official clients, real sockets, real vLLM engines."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from websockets.asyncio.client import connect

from tests.support.server import Server

pytestmark = pytest.mark.engine

SUM = "What is 348 + 275?"
SHORT: dict[str, Any] = {
    "pacing": False,
    "forced_lengths": {"reasoning_tokens": 6, "answer_tokens": 8},
}
LONG: dict[str, Any] = {"forced_lengths": {"reasoning_tokens": 30, "answer_tokens": 1500}}


def client(server: Server) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


async def receive(socket: Any) -> dict[str, Any]:
    return json.loads(await asyncio.wait_for(socket.recv(), 60))  # type: ignore[no-any-return]


async def receive_until(socket: Any, *types: str) -> dict[str, Any]:
    while True:
        event = await receive(socket)
        if event["type"] in types:
            return event


TERMINAL = ("response.completed", "response.incomplete", "response.failed")


async def create(socket: Any, **fields: Any) -> None:
    await socket.send(json.dumps({"type": "response.create", "input": SUM, **fields}))


async def test_openai_client_over_websocket_thinks_then_answers_right(server: Server) -> None:
    types: list[str] = []
    async with client(server).responses.connect() as connection:
        await connection.response.create(model="tiny-reasoner", input=SUM, temperature=0)
        async for event in connection:
            types.append(event.type)
            if event.type in TERMINAL:
                break
    assert event.type == "response.completed"
    reasoning, message = event.response.output
    assert (reasoning.type, message.type) == ("reasoning", "message")
    assert "623" in event.response.output_text
    last_thought = max(i for i, name in enumerate(types) if "reasoning_text" in name)
    first_answer = types.index("response.output_text.delta")
    assert last_thought < first_answer
    assert event.response.usage is not None
    assert event.response.usage.output_tokens_details.reasoning_tokens > 10


def test_openai_client_chat_completion_stream(server: Server) -> None:
    sync = OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    stream = sync.chat.completions.create(
        model="tiny-reasoner",
        messages=[{"role": "user", "content": SUM}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    thoughts, answer, finish, usage = "", "", None, None
    for chunk in stream:
        if not chunk.choices:
            usage = chunk.usage
            continue
        delta = chunk.choices[0].delta
        extra = delta.model_extra or {}
        assert extra.get("reasoning") == extra.get("reasoning_content")
        if extra.get("reasoning"):
            assert not answer, "a thought after the answer began"
            thoughts += extra["reasoning"]
        answer += delta.content or ""
        finish = chunk.choices[0].finish_reason or finish
    assert thoughts
    assert "623" in answer
    assert finish == "stop"
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens


def test_whole_responses_of_both_apis_agree(server: Server) -> None:
    status, response = server.request("/v1/responses", {"input": SUM, "temperature": 0})
    assert status == 200
    body = {"messages": [{"role": "user", "content": SUM}], "temperature": 0}
    status, completion = server.request("/v1/chat/completions", body)
    assert status == 200
    message = completion["choices"][0]["message"]
    assert message["content"] == response["output"][1]["content"][0]["text"]
    assert message["reasoning"] == response["output"][0]["content"][0]["text"]


async def test_200_streams_join_to_their_final_text(server: Server) -> None:
    """Many streams on one socket, none mixed up with another, none with a hole."""
    async with connect(server.websocket_url, compression=None, max_queue=None) as socket:
        streams: dict[str, list[dict[str, Any]]] = {}
        sent = 0
        done = 0
        while done < 200:
            while sent < 200 and sent - done < 50:
                question = f"What is {100 + sent} + {sent}?"
                await create(socket, stream_id=f"s{sent}", **SHORT | {"input": question})
                streams[f"s{sent}"] = []
                sent += 1
            event = await receive(socket)
            assert event["type"] != "error", event
            streams[event["stream_id"]].append(event)
            done += event["type"] in TERMINAL
    for events in streams.values():
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        final = events[-1]["response"]
        texts = {item["type"]: item["content"][0]["text"] for item in final["output"]}
        for kind, item in (("reasoning_text", "reasoning"), ("output_text", "message")):
            deltas = [e["delta"] for e in events if e["type"] == f"response.{kind}.delta"]
            assert "".join(deltas) == texts[item]
        assert final["usage"]["output_tokens"] == 14
        assert final["usage"]["output_tokens_details"]["reasoning_tokens"] == 6


async def test_one_stream_is_fifo_and_others_run_beside_it(server: Server) -> None:
    async with connect(server.websocket_url) as socket:
        await create(
            socket,
            stream_id="slow",
            pacing={"tpot_s": 0.05},
            forced_lengths={"reasoning_tokens": 4, "answer_tokens": 40},
        )
        await create(socket, stream_id="slow", **SHORT)
        await create(socket, stream_id="fast", **SHORT)
        ended = [(await receive_until(socket, *TERMINAL)) for _ in range(3)]
    assert [event["stream_id"] for event in ended] == ["fast", "slow", "slow"]
    lengths = [event["response"]["usage"]["output_tokens"] for event in ended]
    assert lengths == [14, 44, 14]


async def test_stop_frees_the_kv_memory(server: Server) -> None:
    async with connect(server.websocket_url) as socket:
        await create(socket, **LONG)
        created = await receive_until(socket, "response.created")
        await receive_until(socket, "response.output_text.delta")
        assert server.wait_for(lambda: server.metric("pascal_kv_blocks_used") > 0)
        response_id = created["response"]["id"]
        await socket.send(json.dumps({"type": "response.cancel", "response_id": response_id}))
        ended = await receive_until(socket, *TERMINAL)
        assert ended["type"] == "response.incomplete"
        assert ended["response"]["incomplete_details"] == {"reason": "cancelled"}
        assert server.wait_for(lambda: server.metric("pascal_kv_blocks_used") == 0)
        await create(socket, **SHORT)  # the connection serves on
        assert (await receive_until(socket, *TERMINAL))["type"] == "response.completed"


async def test_a_dropped_socket_can_be_resumed_without_a_hole(server: Server) -> None:
    length = {"forced_lengths": {"reasoning_tokens": 5, "answer_tokens": 40}}
    async with connect(server.websocket_url) as socket:
        await create(socket, pacing={"tpot_s": 0.02}, **length)
        first = [await receive(socket)]
        while first[-1]["type"] != "response.output_text.delta":
            first.append(await receive(socket))
    response_id = first[0]["response"]["id"]
    resume = {
        "type": "response.resume",
        "response_id": response_id,
        "starting_after": first[-1]["sequence_number"],
        "stream_id": "again",
    }
    async with connect(server.websocket_url) as socket:
        await socket.send(json.dumps(resume))
        rest = [await receive(socket)]
        while rest[-1]["type"] not in TERMINAL:
            rest.append(await receive(socket))
        await socket.send(json.dumps({**resume, "starting_after": 10_000}))
        assert (await receive(socket))["error"]["param"] == "starting_after"
        await socket.send(json.dumps({**resume, "response_id": "resp_unknown"}))
        assert (await receive(socket))["error"]["code"] == "response_not_found"
    events = first + rest
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    assert "".join(deltas) == rest[-1]["response"]["output"][1]["content"][0]["text"]
    status, stored = server.request(f"/v1/responses/{response_id}")
    assert (status, stored) == (200, rest[-1]["response"])


async def test_pause_and_resume_of_the_reader(server: Server) -> None:
    length = {"forced_lengths": {"reasoning_tokens": 4, "answer_tokens": 30}}
    async with connect(server.websocket_url) as socket:
        await create(socket, pacing={"tpot_s": 5}, **length)
        created = await receive_until(socket, "response.created")
        await receive_until(socket, "response.output_text.delta")
        update = {
            "type": "response.pacing.update",
            "response_id": created["response"]["id"],
            "tpot_s": 0.001,
        }
        await socket.send(json.dumps(update))
        ended = await receive_until(socket, *TERMINAL)
    assert ended["type"] == "response.completed"
    assert ended["response"]["timing"]["paced"]["tpot_s"] < 5


def test_conversations_go_on_from_the_previous_response(server: Server) -> None:
    _, first = server.request("/v1/responses", {"input": SUM, **SHORT})
    _, second = server.request(
        "/v1/responses", {"input": "And plus 1?", "previous_response_id": first["id"], **SHORT}
    )
    assert second["previous_response_id"] == first["id"]
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"] + 8
    status, error = server.request(
        "/v1/responses", {"input": "x", "previous_response_id": "resp_none"}
    )
    assert (status, error["error"]["param"]) == (404, "previous_response_id")


BAD_MESSAGES: dict[str, tuple[str | bytes, int, str | None]] = {
    "malformed JSON": ("{oops", 400, "invalid_json"),
    "no object": ("[1, 2]", 400, "invalid_value"),
    "unknown event": ('{"type": "response.dance"}', 400, "unknown_event_type"),
    "no type": ('{"input": "x"}', 400, "invalid_value"),
    "binary": (b"\x00\xff\x13garbage", 400, "invalid_value"),
    "10 MB": (json.dumps({"type": "response.create", "input": "x" * 10_000_000}), 413, None),
    "unknown model": (
        json.dumps({"type": "response.create", "model": "gpt-9", "input": "x"}),
        404,
        "model_not_found",
    ),
    "negative max": (
        json.dumps({"type": "response.create", "input": "x", "max_output_tokens": -2}),
        400,
        "invalid_value",
    ),
    "over-long prompt": (
        json.dumps({"type": "response.create", "input": "12 + 3 = " * 20_000}),
        400,
        "context_length_exceeded",
    ),
}


@pytest.mark.parametrize("name", list(BAD_MESSAGES))
async def test_bad_input_is_refused_and_the_rest_goes_on(server: Server, name: str) -> None:
    message, status, code = BAD_MESSAGES[name]
    async with connect(server.websocket_url, max_size=None) as socket:
        await create(
            socket,
            stream_id="other",
            pacing={"tpot_s": 0.02},
            forced_lengths={"reasoning_tokens": 4, "answer_tokens": 60},
        )
        await receive_until(socket, "response.output_text.delta")
        await socket.send(message)
        event = await receive_until(socket, "error", *TERMINAL)
        assert event["type"] == "error", "the refusal came only after the other stream's end"
        assert event["status"] == status
        assert code is None or event["error"]["code"] == code
        assert event["error"]["message"]
        ended = await receive_until(socket, *TERMINAL)
        assert (ended["type"], ended["stream_id"]) == ("response.completed", "other")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{oops", 400, None),
        ({"input": "x", "max_output_tokens": -2}, 400, "max_output_tokens"),
        ({"input": "x", "model": "gpt-9"}, 404, "model"),
        ({"input": "12 + 3 = " * 20_000}, 400, "input"),
        ({"input": "x" * 2_000_000}, 413, None),
        ({"input": "x", "temprature": 1}, 400, "temprature"),
    ],
)
def test_bad_bodies_over_http(server: Server, body: Any, status: int, param: str | None) -> None:
    answered, document = server.request("/v1/responses", body)
    assert answered == status
    assert document["error"]["param"] == param
    assert document["error"]["message"]


def test_unknown_routes_and_foreign_origins(server: Server) -> None:
    status, document = server.request("/v1/nothing")
    assert (status, document["error"]["code"]) == (404, "no_such_route")
    status, document = server.request("/v1/models", headers={"Origin": "http://evil.example"})
    assert (status, document["error"]["code"]) == (403, "forbidden_origin")
    status, document = server.request("/v1/models", headers={"Origin": server.url})
    assert (status, document["data"][0]["id"]) == (200, "tiny-reasoner")


def test_health_ready_metrics_and_page(server: Server) -> None:
    assert server.request("/health") == (200, {"status": "ok"})
    status, ready = server.request("/ready")
    assert (status, ready["instances"]) == (200, ["worker-0", "worker-1"])
    _, metrics = server.request("/metrics")
    for name in (
        'pascal_requests_running{instance="worker-1",phase="answering"}',
        'pascal_requests_waiting{instance="worker-0",phase="reasoning"}',
        'pascal_kv_blocks_used{instance="worker-0",phase="reasoning"}',
        'pascal_preemptions_total{instance="worker-0"}',
        'pascal_preempted_tokens_total{how="reloaded"}',
        "pascal_ttft_seconds_bucket",
        "pascal_ttfat_seconds_bucket",
        'pascal_tpot_seconds_bucket{kind="paced"',
        "pascal_qoe_bucket",
    ):
        assert name in metrics, name
    status, page = server.request("/")
    assert status == 200
    assert re.search(r"<script[^>]+src=", page)


async def test_requests_spread_over_both_instances(server: Server) -> None:
    # Not the same prompt: it would return to the instance that has its KV. So many, because
    # conversations that pause count at their instances.
    requests = 12
    async with connect(server.websocket_url) as socket:
        for index in range(requests):
            fields = {**SHORT, "input": f"What is {index} + {index}?"}
            await create(socket, stream_id=f"s{index}", **fields)
        ended = [await receive_until(socket, *TERMINAL) for _ in range(requests)]
    assert {event["response"]["instance"] for event in ended} == {"worker-0", "worker-1"}
