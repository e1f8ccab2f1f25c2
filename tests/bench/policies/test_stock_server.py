"""Stock servers side by side: how they are started, what a client sees, what is made of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bench.policies.stock_server import DEFAULT, SLACK, Seen, arguments, ask, moments, ratio, side


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


def test_figures_of_a_side() -> None:
    steady = [2.0 + 0.1 * index for index in range(40)]
    late = [1.0, *(60.0 + 0.1 * index for index in range(39))]
    seen = [Seen(steady, 6.0), Seen(late, 64.0), Seen([], 1.0, "no answer")]
    found = side(seen, preemptions=3)
    assert (found["completed"], found["failed"], found["errors"]) == (2, 1, ["no answer"])
    assert found["ttft_s"]["mean"] == 1.5
    assert found["slo_violations"] == 0.5
    assert found["preemptions"] == 3
    other = side([Seen([6.0], 6.0)], preemptions=0)
    assert ratio([found, other], "mean") == 4.0
    assert ratio([side([], 0), other], "mean") is None


@pytest.fixture
async def scripted() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A server that streams the given deltas; an empty list makes it fail."""
    deltas: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if not deltas:
            raise web.HTTPInternalServerError
        response = web.StreamResponse()
        await response.prepare(request)
        for delta in deltas:
            chunk = {"choices": [{"index": 0, "delta": delta}]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", deltas
    await runner.cleanup()


async def test_a_client_counts_from_the_first_answering_token(
    scripted: tuple[str, list[dict[str, Any]]],
) -> None:
    url, deltas = scripted
    deltas += [{"role": "assistant", "content": ""}, {"reasoning": "Hm."}]
    deltas += [{"content": "Forty"}, {"content": "-two"}, {}]
    async with aiohttp.ClientSession() as http:
        seen = await ask(http, url, "?")
        assert seen.error is None
        assert len(seen.answer_s) == 2
        assert seen.ttft_s == seen.answer_s[0] > 0
        assert all(a <= b for a, b in itertools.pairwise(seen.answer_s))
        assert seen.ended_s is not None
        assert seen.ended_s >= seen.answer_s[-1]
        del deltas[2:]
        assert (await ask(http, url, "?")).error == "no answer"
        deltas.clear()
        error = (await ask(http, url, "?")).error
        assert error is not None
        assert "500" in error
