"""Clients that get tokens ahead, say what was read, and stop where the reader is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.gateway.api.test_apis import STOP, accepted, api, create, receive
from tests.gateway.support.scripted_service import until
from workers.messages import Cancel, Finish


async def test_a_stop_keeps_what_was_read_and_the_client_tells_its_qoe(tmp_path: Path) -> None:
    async with (
        api(tmp_path) as (client, worker, service),
        client.ws_connect("/v1/responses") as socket,
    ):
        await create(socket, pacing={"tpot_s": 10, "lead_s": 30})
        request_id = await accepted(worker)
        await worker.tokens(request_id, 0, "a", "b", "c", "d", "e")
        for text in "abcd":  # those planned within 30 s
            assert (await receive(socket, "response.output_text.delta"))["delta"] == text
        await socket.send_json(
            {"type": "response.cancel", "response_id": request_id, "read_tokens": 2}
        )
        assert isinstance(await worker.next(), Cancel)
        await worker.tokens(request_id, 5, finish=Finish(reason="cancelled"))
        ended = (await receive(socket, "response.incomplete"))["response"]
        assert ended["output"][0]["content"][0]["text"] == "ab"
        async with client.get(f"/v1/responses/{request_id}") as answer:
            assert (await answer.json())["output"][0]["content"][0]["text"] == "ab"

        report = {"type": "response.pacing.update", "response_id": request_id}
        for qoe in (0.75, 0.1):  # the first one counts
            await socket.send_json({**report, "read": {"tokens": 2, "qoe": qoe}})
        await until(lambda: b"pascal_qoe_as_read_count 1.0" in service.metrics.render())
        assert b"pascal_qoe_as_read_sum 0.75" in service.metrics.render()
        for wrong, param in (
            ({"read": {"tokens": 1, "qoe": 1.1}}, "read.qoe"),
            ({"read": {"tokens": -1, "qoe": 1}}, "read.tokens"),
            ({"read": {"qoe": 1}}, "read.tokens"),
        ):
            await socket.send_json({**report, **wrong})
            assert (await receive(socket, "error"))["error"]["param"] == param
        await create(socket, pacing={"lead_s": 31})
        assert (await receive(socket, "error"))["error"]["param"] == "pacing.lead_s"
        assert b"pascal_qoe_as_read_count 1.0" in service.metrics.render()


async def test_a_report_before_the_end_says_where_an_abandoned_answer_stops(
    tmp_path: Path,
) -> None:
    async with (
        api(tmp_path) as (client, worker, _),
        client.ws_connect("/v1/responses") as socket,
    ):
        await create(socket, pacing={"tpot_s": 10, "lead_s": 30})
        request_id = await accepted(worker)
        await worker.tokens(request_id, 0, "a", "b", "c")
        report = {"type": "response.pacing.update", "response_id": request_id}
        await socket.send_json({**report, "read": {"tokens": 1, "qoe": 1}})
        await receive(socket, "response.output_text.delta")
        stopping = asyncio.create_task(client.post(f"/v1/responses/{request_id}/cancel"))
        assert isinstance(await worker.next(), Cancel)
        await worker.tokens(request_id, 3, finish=Finish(reason="cancelled"))
        assert (await stopping).status == 200
        ended = (await receive(socket, "response.incomplete"))["response"]
        assert ended["output"][0]["content"][0]["text"] == "a"


@pytest.mark.parametrize("lead_s", [0.0, 0.3])
async def test_the_end_comes_at_the_planned_time_of_the_last_token(
    tmp_path: Path, lead_s: float
) -> None:
    async with (
        api(tmp_path) as (client, worker, _),
        client.ws_connect("/v1/responses") as socket,
    ):
        await create(socket, pacing={"tpot_s": 0.1, "lead_s": lead_s})
        request_id = await accepted(worker)
        begun_s = time.monotonic()
        await worker.tokens(request_id, 0, "a", "b", "c", "d", finish=STOP)
        await receive(socket, "response.output_text.delta")
        first_s = time.monotonic()
        for _ in range(3):
            await receive(socket, "response.output_text.delta")
        last_s = time.monotonic()
        await receive(socket, "response.completed")
        assert time.monotonic() - begun_s > 0.28
        if not lead_s:
            assert last_s - first_s > 0.25
