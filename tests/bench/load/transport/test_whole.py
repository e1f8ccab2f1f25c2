"""Responses without a stream, from a real server on a real socket."""

from __future__ import annotations

import asyncio

import pytest

from bench.load.record import ResponseRecord
from bench.load.transport.interface import ServerError
from bench.load.transport.whole import WholeResponses
from tests.bench.support.scripted_http import ScriptedHttp, hangs, response_events


async def outcome_of(server: ScriptedHttp, timeout_s: float = 30.0) -> ResponseRecord:
    record = ResponseRecord()
    transport = WholeResponses(server.base_url)
    try:
        await transport.open()
        await transport.exchange("a", {"input": "hi"}, record, timeout_s)
    finally:
        await transport.close()
    return record


async def test_a_response_that_arrives_as_a_whole() -> None:
    async with ScriptedHttp(hangs).running() as server:
        server.refusal = (200, response_events()[-1]["response"])
        record = await outcome_of(server)
    assert (record.outcome, record.failure) == ("completed", None)
    assert record.answer_text == "It is four."


async def test_a_refusal_is_a_failure() -> None:
    async with ScriptedHttp(hangs).running() as server:
        server.refusal = (503, {"error": {"message": "overloaded"}})
        record = await outcome_of(server)
    assert record.outcome == "failed"
    assert record.failure is not None
    assert "error 503" in record.failure
    assert "overloaded" in record.failure


async def test_a_server_that_is_gone_and_one_that_does_not_answer() -> None:
    async with ScriptedHttp(hangs).running() as server:
        record = await outcome_of(server, timeout_s=0.1)
        assert record.failure == "timed out after 0.1 s"
        await asyncio.wait_for(server.left.wait(), 30)
    with pytest.raises(ServerError, match="failed"):
        await outcome_of(server)
