"""Metrics that grow while responses run, and not only when they end."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.response.tally import LogBuckets
from gateway.service import ResponseService
from tests.gateway.support.scripted_service import ended, generation, scene, serving, start, until
from tests.gateway.support.scripted_worker import IDLE
from workers.messages import Finish, Heartbeat

STREAM: dict[str, Any] = {"stream": True, "pacing": {"tpot_s": 5.0}}


def value(service: ResponseService, name: str) -> float:
    text = service.metrics.render().decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None, f"no {name} in:\n{text}"
    return float(found[1])


def states(service: ResponseService) -> Counter[str]:
    return Counter(
        {state: n for state, n in service.tally.live(0.0).states.items() if n}  # those that are
    )


async def test_ttft_and_ttfat_are_observed_at_the_first_token_of_the_answer(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        session, name = await start(service, workers["worker-0"], reasoning=True, **STREAM)
        await workers["worker-0"].tokens(name, 0, "think", "end", boundary=1)
        await until(lambda: session.output_tokens == 2)
        assert value(service, "pascal_ttft_seconds_count") == 0
        await workers["worker-0"].tokens(name, 2, "yes", " and", " no")
        await until(lambda: session.output_tokens == 5)
        assert not session.finished
        assert value(service, "pascal_ttft_seconds_count") == 1
        assert value(service, "pascal_ttfat_seconds_count") == 1
        ttft_s, ttfat_s = session.delivery.times_to_first()
        assert value(service, "pascal_ttft_seconds_sum") == ttft_s
        assert value(service, "pascal_ttfat_seconds_sum") == ttfat_s
        assert (sum(service.tally.ttft.counts), sum(service.tally.ttfat.counts)) == (1, 1)
        service.cancel(session)
        await workers["worker-0"].next_cancel()
        await workers["worker-0"].tokens(name, 5, finish=Finish(reason="cancelled"))
        await ended(session)
        await until(lambda: value(service, 'pascal_responses_total{status="cancelled"}') == 1)
        assert value(service, "pascal_ttft_seconds_count") == 1  # not twice


async def test_a_response_that_is_sent_as_a_whole_has_no_ttft(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        whole = (await generation(service)).unpaced()
        starting = asyncio.create_task(service.start(whole, ""))
        submit = await workers["worker-0"].next_submit()
        await workers["worker-0"].accept(submit)
        session = await starting
        await workers["worker-0"].tokens(submit.request_id, 0, "yes", finish=Finish(reason="stop"))
        await ended(session)
        await until(lambda: value(service, 'pascal_responses_total{status="completed"}') == 1)
        assert value(service, "pascal_ttft_seconds_count") == 0
        assert sum(service.tally.ttft.counts) == 0


async def test_tokens_and_states_are_seen_while_they_come(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        session, name = await start(service, worker, reasoning=True, **STREAM)
        assert states(service) == {"queued": 1}
        await worker.tokens(name, 0, "a", "b", "c")
        await until(lambda: session.output_tokens == 3)
        assert states(service) == {"reasoning": 1}
        assert value(service, 'pascal_tokens_generated_total{kind="reasoning"}') == 3
        assert value(service, 'pascal_tokens_generated_total{kind="answering"}') == 0
        await worker.tokens(name, 3, "end", boundary=0)
        await worker.tokens(name, 4, "x")
        await until(lambda: session.output_tokens == 5)
        for place in range(5, 25):  # more than one put off
            await worker.tokens(name, place, "y")
        await until(lambda: session.output_tokens == 25)
        assert states(service) == {"answering": 1}
        assert value(service, 'pascal_tokens_generated_total{kind="answering"}') == 21
        assert value(service, "pascal_tokens_released_total") == 1
        assert value(service, "pascal_buffered_tokens") == 20
        assert value(service, "pascal_readers_dry") == 0
        await worker.tokens(name, 25, finish=Finish(reason="stop"))
        await until(lambda: states(service) == {"delivering": 1})
        assert value(service, 'pascal_requests_live{state="delivering"}') == 1
        service.cancel(session)
        await ended(session)
        assert states(service) == {}
        assert value(service, 'pascal_tokens_generated_total{kind="answering"}') == 21
        assert value(service, 'pascal_tokens_generated_total{kind="reasoning"}') == 4
        assert value(service, "pascal_buffered_tokens") == 0


async def test_a_reader_who_has_read_everything_is_dry(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, workers):
        worker = workers["worker-0"]
        session, name = await start(
            service, worker, stream=True, pacing={"tpot_s": 0.001, "ttfat_s": 0.001}
        )
        await worker.tokens(name, 0, "a", "b")
        await until(lambda: value(service, "pascal_readers_dry") == 1)
        service.set_pace(session, None, paused=True)
        assert value(service, "pascal_readers_dry") == 0
        service.set_pace(session, None, paused=False)
        await worker.tokens(name, 2, finish=Finish(reason="stop"))
        await ended(session)
        assert value(service, "pascal_readers_dry") == 0


async def test_preemptions_are_of_an_instance_and_stay_when_it_is_lost(tmp_path: Path) -> None:
    async with scene(tmp_path, "worker-0", "worker-1") as built:
        service = built.service
        for name, preemptions in (("worker-0", 3), ("worker-1", 4)):
            stats = msgspec.structs.replace(IDLE, preemptions_total=preemptions)
            await built.workers[name].say(Heartbeat(since_step_s=0.0, stats=stats))
        await until(lambda: all(i.stats for i in service.cluster.instances.values()))
        assert value(service, 'pascal_preemptions_total{instance="worker-0"}') == 3
        await built.lose("worker-0")
        assert value(service, 'pascal_preemptions_total{instance="worker-0"}') == 3
        again = await built.join("worker-0")
        await again.say(Heartbeat(since_step_s=0.0, stats=IDLE))
        instance = service.cluster.instances["worker-0"]
        await until(lambda: instance.stats is not None)
        assert value(service, 'pascal_preemptions_total{instance="worker-0"}') == 6
        assert value(service, 'pascal_preemptions_total{instance="worker-1"}') == 4


async def test_what_runs_here(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, _):
        text = service.metrics.render().decode()
    (line,) = (one for one in text.splitlines() if one.startswith("pascal_info{"))
    assert line.endswith(" 1.0")
    assert 'engines="script"' in line
    assert f'policy="{service.config.workers.policy}"' in line
    assert f'model="{service.config.served_model_name}"' in line


@pytest.mark.parametrize("true", [0.0011, 0.02, 0.25, 3.0, 250.0])
def test_percentiles_of_buckets_are_within_four_percent(true: float) -> None:
    buckets = LogBuckets()
    for _ in range(100):
        buckets.add(true)
    buckets.add(1e9)  # beyond the scale
    buckets.add(0.0)
    least, median, most = LogBuckets.quantiles(buckets.counts, (0.0, 0.5, 0.99))
    assert median == pytest.approx(true, rel=0.04)
    assert most == pytest.approx(true, rel=0.04)
    assert least is not None
    assert least < 0.00105
    assert LogBuckets.quantiles(LogBuckets().counts, (0.5,)) == [None]
