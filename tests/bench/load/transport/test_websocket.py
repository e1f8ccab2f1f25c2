"""The client against a real server on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest

from bench.load.record import ResponseRecord
from bench.load.transport.interface import ServerError
from bench.load.transport.server_info import served_model
from bench.load.transport.websocket import Connection
from tests.bench.support.scripted import (
    ANSWER,
    REASONING,
    Reply,
    Script,
    ScriptedServer,
    good,
    stalls,
)


@asynccontextmanager
async def connected(*scripts: Script) -> AsyncIterator[tuple[ScriptedServer, Connection]]:
    async with ScriptedServer(*scripts).running() as server:
        connection = await Connection.open(server.ws_url)
        try:
            yield server, connection
        finally:
            await connection.close()


async def outcome_of(*scripts: Script) -> ResponseRecord:
    """The record of one response, after the connection was closed."""
    record = ResponseRecord()
    async with connected(*scripts) as (_, connection):
        stream = await connection.create("a", {"input": "hi"}, record)
        await stream.wait()
    return record


async def test_a_sound_response() -> None:
    record = ResponseRecord()
    async with connected() as (server, connection):
        stream = await connection.create("a", {"input": "hi"}, record)
        await stream.wait()
        assert not connection.closed
    assert (record.outcome, record.failure) == ("completed", None)
    assert server.requests == [{"type": "response.create", "stream_id": "a", "input": "hi"}]
    assert record.answer_text == "It is four."
    assert record.sent_s is not None
    assert record.ended_s is not None
    stamps = [delta.received_s for delta in record.answer]
    assert record.sent_s <= stamps[0] <= stamps[-1] <= record.ended_s
    assert connection.closed


async def test_a_gap_in_the_sequence() -> None:
    async def skips(reply: Reply) -> None:
        await reply.begin()
        await reply.think()
        reply.sequence += 1
        await reply.answer()
        await reply.end()

    record = await outcome_of(skips)
    assert record.failure == "response.output_text.delta has sequence_number 8 where 7 was due"


async def test_a_text_that_differs() -> None:
    async def differs(reply: Reply) -> None:
        await reply.begin()
        await reply.think()
        await reply.answer()
        await reply.end(output=reply.object("completed", answer=("It was four.",))["output"])

    record = await outcome_of(differs)
    assert record.failure == (
        "the deltas of the answer (11 characters) differ from the final text (12 characters) "
        "at character 3"
    )


async def test_an_error_concerns_its_own_stream_only() -> None:
    async def refuses(reply: Reply) -> None:
        error = {"type": "rate_limit_error", "code": "overloaded", "message": "no room"}
        await reply.send("error", status=429, error=error)

    first, second = ResponseRecord(), ResponseRecord()
    async with connected(refuses, good) as (_, connection):
        streams = [
            await connection.create("a", {}, first),
            await connection.create("b", {}, second),
        ]
        for stream in streams:
            await stream.wait()
    assert first.failure == "error 429: overloaded: no room"
    assert second.outcome == "completed"


async def test_an_error_without_stream_id_concerns_all_that_run() -> None:
    async def confesses(reply: Reply) -> None:
        error = {"code": "internal", "message": "sorry"}
        await reply.send("error", status=500, error=error, stream_id=None)

    done, hit = ResponseRecord(), ResponseRecord()
    async with connected(good, confesses) as (_, connection):
        await (await connection.create("a", {}, done)).wait()
        await (await connection.create("b", {}, hit)).wait()
    assert done.outcome == "completed"
    assert hit.failure == "error 500: internal: sorry"


async def test_interleaved_streams_are_told_apart() -> None:
    replies: list[Reply] = []
    both_here = asyncio.Event()

    async def meets(reply: Reply) -> None:
        replies.append(reply)
        if len(replies) == 2:
            both_here.set()
        await both_here.wait()
        if reply is replies[0]:  # plays both stories, event by event
            for act in (Reply.begin, Reply.think, Reply.answer, Reply.end):
                for each in replies:
                    await act(each)

    records = [ResponseRecord(), ResponseRecord()]
    async with connected(meets) as (server, connection):
        streams = [
            await connection.create(name, {}, record)
            for name, record in zip("ab", records, strict=True)
        ]
        for stream in streams:
            await stream.wait()
        assert server.connections == 1
    assert [record.failure for record in records] == [None, None]
    assert len({record.response_id for record in records}) == 2


async def test_a_second_end_is_noticed_up_to_the_closing_of_the_socket() -> None:
    async def ends_twice(reply: Reply) -> None:
        await good(reply)
        await reply.end()

    record = await outcome_of(ends_twice)
    assert record.failure == ("response.completed came after the terminal event response.completed")


async def test_a_dropped_connection_ends_its_streams() -> None:
    async def drops(reply: Reply) -> None:
        await reply.begin()
        await reply.answer()
        await reply.received_by_client()
        reply.socket.transport.abort()

    first, second = ResponseRecord(), ResponseRecord()
    async with connected(stalls, drops) as (_, connection):
        streams = [
            await connection.create("a", {}, first),
            await connection.create("b", {}, second),
        ]
        for stream in streams:
            await stream.wait()
        assert connection.closed
        # Sending fails at once now, and cancelling is not an error.
        late = ResponseRecord()
        await (await connection.create("c", {}, late)).wait()
        await streams[0].cancel()
    for record in (first, second, late):
        assert record.outcome == "failed"
        assert record.failure == "connection lost: no close frame received or sent"
    assert len(second.answer) == len(ANSWER)


async def test_a_close_by_the_server_ends_its_streams() -> None:
    async def goes_away(reply: Reply) -> None:
        await reply.begin()
        await reply.socket.close(1001)

    record = await outcome_of(goes_away)
    assert record.failure == "connection closed by the server, code 1001"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("hello", "the server sent an invalid event: JSON is malformed"),
        (
            '{"type": "response.created", "stream_id": "z", "sequence_number": 0}',
            "the server sent an invalid event: response.created with an unknown stream_id, 'z'",
        ),
        (
            '{"type": "response.created", "sequence_number": 0}',
            "the server sent an invalid event: response.created with an unknown stream_id, None",
        ),
    ],
)
async def test_an_invalid_event_ends_the_connection(message: str, reason: str) -> None:
    async def babbles(reply: Reply) -> None:
        await reply.socket.send(message)
        await reply.socket.wait_closed()

    record = await outcome_of(babbles)
    assert record.failure is not None
    assert record.failure.startswith(reason)


async def test_cancel_names_the_response() -> None:
    record = ResponseRecord()
    async with connected(stalls) as (server, connection):
        stream = await connection.create("a", {}, record)
        reply = await server.stalled.get()
        await stream.cancel()
        assert await server.cancelled.get() == reply.id == record.response_id


async def test_a_connection_that_cannot_be_had() -> None:
    async with ScriptedServer().running() as server:
        server.status = HTTPStatus.UNAUTHORIZED
        with pytest.raises(ServerError, match="responses: refused with HTTP 401"):
            await Connection.open(server.ws_url)
    with pytest.raises(ServerError, match="Connect call failed"):
        await Connection.open(server.ws_url)


async def test_the_key_travels_as_bearer() -> None:
    async with ScriptedServer().running() as server:
        await (await Connection.open(server.ws_url, api_key="k-1")).close()
        await (await Connection.open(server.ws_url)).close()
        assert server.authorization == ["Bearer k-1", None]
        served = await asyncio.to_thread(served_model, server.base_url, "k-2")
        assert (served.model, served.ours) == ("scripted", True)
        assert server.authorization[-1] == "Bearer k-2"


async def test_the_scripted_story_is_what_the_tests_take_it_for() -> None:
    record = await outcome_of(good)
    assert record.final is not None
    assert record.final.text("reasoning") == "".join(REASONING)
    assert record.final.text("message") == "".join(ANSWER)
