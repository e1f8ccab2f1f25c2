"""A full server over HTTP: the refusal, what it tells, and the place that it keeps."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from gateway.config import LimitsConfig
from tests.gateway.api.test_apis import accepted, api
from tests.gateway.support.scripted_service import serving, until
from tests.gateway.support.scripted_worker import IDLE, ScriptedWorker
from workers.messages import Finish, PhaseCounts, Step

STOP = Finish(reason="stop")


def body(number: int) -> dict[str, Any]:
    return {
        "input": f"Request {number}.",
        "stream": True,
        "forced_lengths": {"reasoning_tokens": 60, "answer_tokens": 30},
    }


async def post(client: Any, number: int) -> aiohttp.ClientResponse:
    answer: aiohttp.ClientResponse = await client.post("v1/responses", json=body(number))
    return answer


async def until_refused(client: Any, worker: ScriptedWorker) -> tuple[list[str], Any]:
    """Ask for responses until one is refused; the running ones, and the refusal."""
    running: list[str] = []
    for number in range(200):
        asking = asyncio.create_task(post(client, number))
        # As expected at admission: then it is the same when bookings are made anew.
        request = asyncio.create_task(accepted(worker, reasoning=True))
        await asyncio.wait([asking, request], return_when=asyncio.FIRST_COMPLETED)
        if asking.done() and (await asking).status == 429:
            request.cancel()
            return running, await asking
        running.append(await request)
        await asking
    raise AssertionError("it takes everything")


async def test_admission_sees_the_instances_in_service_and_times_their_steps(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        (engine,) = service.cluster.engines(8)
        assert (engine.kv_tokens, engine.places, engine.longest) == (1600, 8, 100)
        assert engine.step_s is None
        busy = msgspec.structs.replace(IDLE, reasoning=PhaseCounts(running=3))
        for sequence in (0, 1):
            stats = msgspec.structs.replace(busy, steps_total=10 * sequence)
            await workers["worker-0"].say(Step(sequence=sequence, runs=(), stats=stats))
            await asyncio.sleep(0.3)
        await until(lambda: service.cluster.engines(8)[0].step_s is not None)
        (engine,) = service.cluster.engines(8)
        assert engine.step_s is not None
        assert 0.03 <= engine.step_s < 1.0
        assert engine.running == 3
        service.cluster.drain("worker-0")
        assert service.cluster.engines(8) == []


async def test_a_full_server_tells_when_to_come_and_then_has_room(tmp_path: Path) -> None:
    limits = LimitsConfig(load=1.0, max_requests_per_user=1000)
    async with api(tmp_path, limits=limits) as (client, worker, service):
        running, refused = await until_refused(client, worker)
        assert len(running) > 10  # of 1600 KV tokens each takes less than 100
        error = (await refused.json())["error"]
        told_s = int(refused.headers["Retry-After"])
        assert (error["code"], error["retry_after_s"]) == ("server_overloaded", told_s)
        assert "limits.load" in error["message"]
        assert 1 <= told_s <= 5  # 90 tokens at 25 ms, as long as no step is known
        metrics = await (await client.get("metrics")).text()
        assert "pascal_promised_places 1.0" in metrics
        for request_id in running:
            await worker.tokens(request_id, 0, "a", finish=STOP)
        number = len(running)
        came_s = time.monotonic()
        asking = asyncio.create_task(post(client, number))
        await accepted(worker)
        assert (await asking).status == 200
        assert time.monotonic() - came_s < 30
        assert service._admission.promised == 0
