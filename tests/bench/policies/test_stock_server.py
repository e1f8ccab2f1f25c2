"""Stock servers side by side: command lines, requests and results."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import msgspec
import pytest

from bench.load.measure import Arrival, RequestResult, measure
from bench.load.record import Event, Item, Part, ResponseObject, ResponseRecord
from bench.load.transport.sse_client import EventStreams
from bench.policies.stock_server import (
    DEFAULT,
    OUTPUT_TOKENS,
    SLACK,
    arguments,
    ask,
    moments,
    ratio,
    side,
)
from bench.simulator.timeline import TAU_S
from tests.bench.support.scripted_http import DONE, Json, ScriptedHttp, chunk


def test_the_servers_differ_in_the_plugin_alone() -> None:
    default, slack = arguments(DEFAULT, 80), arguments(SLACK, 80)
    assert slack[: len(default)] == default
    rest = slack[len(default) :]
    assert rest[:2] == ["--scheduler-cls", "workers.scheduler.PhaseScheduler"]
    assert rest[2] == "--additional-config"
    assert json.loads(rest[3]) == {"phase": {"policy": "slack"}}


def test_moments_are_poisson_and_the_same_for_a_seed() -> None:
    found = moments(rate=5.0, seconds=400.0, seed=1)
    assert found == sorted(found)
    assert len(found) == pytest.approx(2000, rel=0.06)
    assert max(found) < 400.0
    assert found == moments(rate=5.0, seconds=400.0, seed=1)
    assert found != moments(rate=5.0, seconds=400.0, seed=2)


def result(answer_s: list[float], ended_s: float, failure: str | None = None) -> RequestResult:
    record = ResponseRecord()
    record.sent_s = 0.0
    events = [Event("response.output_text.delta", delta="x") for _ in answer_s]
    text = (Item("message", (Part("output_text", "x" * len(answer_s)),)),)
    final = ResponseObject("r", status="completed", output=text)
    events.append(Event("response.completed", response=final))
    if failure is not None:
        record.abandon(failure, ended_s)
    for number, (event, at_s) in enumerate(zip(events, [*answer_s, ended_s], strict=True)):
        record.receive(msgspec.structs.replace(event, sequence_number=number), at_s)
    return measure(record, Arrival(index=0, start_s=0, due_s=0, turned_s=0), tau_s=TAU_S)


def test_results_of_a_side() -> None:
    steady = [2.0 + 0.1 * index for index in range(40)]
    late = [1.0, *(60.0 + 0.1 * index for index in range(39))]
    both = [result(steady, 6.0), result(late, 64.0)]
    found = side([*both, result([], 1.0, "lost"), result([], 1.0)], preemptions=3)
    assert (found["completed"], found["failed"]) == (2, 2)
    assert found["errors"] == ["lost", "no answer"]
    assert found["ttft_s"]["mean"] == 1.5
    assert found["slo_violations"] == 0.5
    assert found["preemptions"] == 3
    other = side([result([6.0], 6.0)], preemptions=0)
    assert ratio([found, other], "mean") == 4.0
    assert ratio([side([], 0), other], "mean") is None


async def test_a_client_counts_from_the_first_answering_token() -> None:
    async def stock(body: Json) -> AsyncIterator[bytes]:
        """As vLLM's server streams it."""
        assert (body["max_tokens"], body["ignore_eos"]) == (OUTPUT_TOKENS, True)
        yield chunk({"role": "assistant", "content": ""})
        yield chunk({"reasoning": "Hm."})
        if "thought only" not in body["messages"][0]["content"]:
            yield chunk({"content": "Forty"})
            yield chunk({"content": "-two"})
        yield chunk({}, "length")
        yield DONE

    async with ScriptedHttp(stock).running() as server:
        transport = EventStreams(server.base_url, "chat-sse", api_key=None)
        try:
            seen = await ask(transport, 0, "?")
            assert seen.measured
            assert len(seen.itl_s) == 1
            assert seen.ttft_s is not None
            assert seen.e2e_s is not None
            assert 0 < seen.ttft_s <= seen.e2e_s
            assert side([await ask(transport, 1, "thought only")], 0)["errors"] == ["no answer"]
        finally:
            await transport.close()
    transport = EventStreams(server.base_url, "chat-sse", api_key=None)
    try:
        refused = await ask(transport, 2, "?")
        assert refused.error is not None
        assert "connect" in refused.error.lower()
    finally:
        await transport.close()
