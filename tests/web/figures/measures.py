"""One function for each figure: what it is, its limit, and what was measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from aiohttp import web
from chromium import Chromium, Page, PageError, find

from gateway.api.pages.routes import add_pages
from pacer import RunningQoE
from tests.web import scripted_server
from tests.web.answers import RICH
from tests.web.browsing import ANSWER, DONE, OPEN, ask, set_pace
from tests.web.figures.watching import LOADING, forget, growth, percentile, watch
from tests.web.proxy import Proxy
from tests.web.scripted_server import Response, ScriptedServer

PROSE = "Each of these words is one token of the answer, and a reader sees them one by one. "
FRAME_S = 1 / 60
PACE = 10  # tokens per second
TPOT_S = 1 / PACE


@dataclass(frozen=True)
class Figure:
    """A figure, its limit in words, and whether it is kept."""

    name: str
    limit: str
    measured: str
    kept: bool


@asynccontextmanager
async def scene(answer: str) -> AsyncIterator[tuple[Page, Proxy, ScriptedServer]]:
    """A watched page behind a proxy, in front of a server with this answer."""
    browser = find()
    assert browser is not None
    before, scripted_server.ANSWER = scripted_server.ANSWER, answer
    try:
        async with (
            ScriptedServer() as server,
            Proxy(server.url) as proxy,
            Chromium.start(browser) as chromium,
            chromium.page() as page,
        ):
            await page.resize(1040, 740)
            await watch(page)
            await page.go(proxy.url)
            await page.until(OPEN)
            yield page, proxy, server
    finally:
        scripted_server.ANSWER = before


async def gaps() -> list[Figure]:
    """Times between two words on the screen, at ten words a second, on three networks."""
    found = []
    for name, jitter_s, hole_s in (
        ("undisturbed", 0.0, 0.0),
        ("50 ms of jitter", 0.05, 0.0),
        ("two holes of 1.5 s", 0.0, 1.5),
    ):
        async with scene(PROSE * 12) as (page, proxy, _):
            proxy.jitter_s = jitter_s
            await set_pace(page, PACE)
            await ask(page, "Why?")
            await page.until(f"{ANSWER}.length > 60")
            await forget(page)
            for _ in range(2 if hole_s else 0):
                await asyncio.sleep(4)
                await proxy.stall(hole_s)
            await page.until(DONE, 90)
            times = [at for at, _ in await growth(page)]
            between = [1000 * (b - a) for a, b in pairwise(times)]
        p50, p99 = percentile(between, 0.5), percentile(between, 0.99)
        measured = f"p50 {p50:.1f}, p99 {p99:.1f}, max {max(between):.1f} ms of {len(between)}"
        kept = p99 <= 1000 * TPOT_S + 18
        found.append(Figure(f"gaps shown, {name}", "p99 at most 118 ms", measured, kept))
    return found


async def first_token() -> list[Figure]:
    """From the message with the first text to the text on the screen."""
    late = []
    async with scene(PROSE) as (page, _, _):
        await set_pace(page, 40)
        for number in range(12):
            await forget(page)
            await ask(page, f"Why {number}?")
            await page.until("seen.message !== null && seen.grown.length > 0")
            late.append(await page.evaluate("seen.grown[0][0] - seen.message"))
            await page.until(DONE)
    p50, most = percentile(late, 0.5), max(late)
    measured = f"p50 {p50:.1f}, max {most:.1f} ms of {len(late)}"
    kept = percentile(late, 0.9) <= 1000 * FRAME_S + 1
    return [Figure("first token after its message", "one frame, 16.7 ms", measured, kept)]


async def long_markdown() -> list[Figure]:
    """40,000 characters of rich Markdown as fast as they come, a hundred tokens a second."""
    answer = (RICH * (1 + 40_000 // len(RICH)))[:40_000]
    async with scene(answer) as (page, _, _):
        await set_pace(page, 41)
        await ask(page, "Show it")
        await page.until(f"{ANSWER}.length > 200")
        await forget(page)
        begun = time.monotonic()
        await page.until(DONE, 170)
        took_s = time.monotonic() - begun
        frames = await page.evaluate("seen.frames")
        length = await page.evaluate(f"{ANSWER}.length")
    rate = 1000 * len(frames) / sum(frames)
    p99, most = percentile(frames, 0.99), max(frames)
    measured = (
        f"{rate:.1f} fps, p99 {p99:.1f}, longest {most:.0f} ms; {length} characters shown in "
        f"{took_s:.0f} s"
    )
    kept = rate > 59 and most <= 85
    return [Figure("40k Markdown", "60 fps, longest frame 85 ms", measured, kept)]


def observed_qoe(grown: list[tuple[float, int]], deltas: list[str]) -> float:
    """The QoE of a text that was seen to grow, by the paper's formula."""
    running = RunningQoE(tau_s=TPOT_S, origin_s=grown[0][0])
    ends, end = [], 0
    for delta in deltas:
        end += len(delta)
        ends.append(end)
    read = 0
    for at, length in grown:
        while read < len(ends) and ends[read] <= length + 1:  # a space at the end is not drawn
            running.deliver(at)
            read += 1
    return running.final()


async def quality() -> list[Figure]:
    """The QoE as the page reports it, and as an observer of its text computes it."""
    found = []
    for hole_s in (0.0, 1.5, 5.0):
        async with scene(PROSE * 4) as (page, proxy, server):
            await set_pace(page, PACE)
            await ask(page, "Why?")
            await page.until(f"{ANSWER}.length > 60")
            await proxy.stall(hole_s)
            await page.until(DONE, 60)
            await asyncio.sleep(0.2)
            grown = await growth(page)
            read = [request["read"] for request in server.requests if "read" in request][-1]
            deltas = [
                event["delta"]
                for event in server.responses["resp_1"].events
                if event["type"].endswith("output_text.delta")
            ]
        outside = observed_qoe(grown, deltas)
        measured = f"{read['qoe']:.4f}, observer {outside:.4f}"
        kept = abs(read["qoe"] - outside) <= 0.01
        found.append(Figure(f"QoE as read, a hole of {hole_s:g} s", "within 0.01", measured, kept))
    return found


async def black_hole() -> list[Figure]:
    """A network that swallows everything without a word, in the middle of an answer."""
    async with scene(PROSE * 4) as (page, proxy, server):
        await set_pace(page, PACE)
        await ask(page, "Why?")
        await page.until(f"{ANSWER}.length > 60")
        proxy.swallow()
        begun = time.monotonic()
        await page.until("document.querySelector('.connection').dataset.status !== 'open'", 20)
        noticed_s = time.monotonic() - begun
        await page.until(DONE, 60)
        whole = await kept_text(page) == stored(server)
        loads = await page.evaluate("performance.getEntriesByType('navigation').length")
    measured = f"{noticed_s:.1f} s, answer {'complete' if whole else 'NOT complete'}"
    kept = noticed_s < 8 and whole and loads == 1
    return [Figure("black hole noticed", "8 s, without a reload", measured, kept)]


def stored(server: ScriptedServer, name: str = "resp_1") -> list[str]:
    """Thoughts and answer of a finished response, as the server has them."""
    response: Response = server.responses[name]
    return [item["content"][0]["text"] for item in response.events[-1]["response"]["output"]]


async def kept_text(page: Page) -> list[str]:
    """Thoughts and answer of the newest turn as the page keeps them, the answer as far as shown."""
    record = json.loads(await page.evaluate("sessionStorage.getItem('pascal.chat.2')"))
    turn = record["turns"][-1]
    return [turn["reasoning"], turn["answer"][: turn["shown"]]]


async def _reload(page: Page, _: Proxy) -> None:
    await page.reload()


async def _back(page: Page, _: Proxy) -> None:
    here = await page.evaluate("location.href")
    await page.go("about:blank")
    await page.evaluate("history.back()")
    await _settled(page, here)


async def _settled(page: Page, address: str) -> None:
    while True:
        with suppress(PageError):
            if await page.evaluate(f"location.href === {json.dumps(address)}"):
                return
        await asyncio.sleep(0.05)


async def _cut(_: Page, proxy: Proxy) -> None:
    proxy.cut()


async def _stall(_: Page, proxy: Proxy) -> None:
    await proxy.stall(5)


async def _swallow(_: Page, proxy: Proxy) -> None:
    proxy.swallow()


async def _offline(page: Page, _: Proxy) -> None:
    values: dict[str, Any] = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    await page.command("Network.enable")
    await page.command("Network.emulateNetworkConditions", offline=True, **values)
    await asyncio.sleep(5)
    await page.command("Network.emulateNetworkConditions", offline=False, **values)


async def _twice(page: Page, proxy: Proxy) -> None:
    proxy.cut()
    await asyncio.sleep(1.5)
    await page.reload()


MIDDLE = f"{ANSWER}.length > 60"
THINKING = "(document.querySelector('.thoughts-text')?.innerText ?? '').length > 20"
WAYS: dict[str, tuple[str, Callable[[Page, Proxy], Any]]] = {
    "reload in the answer": (MIDDLE, _reload),
    "reload in the thoughts": (THINKING, _reload),
    "cut": (MIDDLE, _cut),
    "stall of 5 s": (MIDDLE, _stall),
    "black hole": (MIDDLE, _swallow),
    "offline for 5 s": (MIDDLE, _offline),
    "back from another page": (MIDDLE, _back),
    "cut, then a reload": (MIDDLE, _twice),
}


async def resume() -> list[Figure]:
    """Eight ways to lose the connection in the middle of an answer."""
    lost = []
    for name, (when, do) in WAYS.items():
        async with scene(PROSE * 4) as (page, proxy, server):
            await set_pace(page, 20)
            await ask(page, "Why?")
            await page.until(when)
            await do(page, proxy)
            await page.until(DONE, 60)
            if await kept_text(page) != stored(server):
                lost.append(name)
    measured = f"{len(WAYS) - len(lost)} of {len(WAYS)} identical"
    if lost:
        measured += f"; not: {', '.join(lost)}"
    return [Figure("resumed answers", "8 of 8", measured, not lost)]


async def cold_load() -> list[Figure]:
    """An empty browser, 400 ms to and fro for each connection, request and answer."""
    runs = []
    browser = find()
    assert browser is not None
    async with _pages() as address:
        for _ in range(3):
            async with (
                Proxy(address) as proxy,
                Chromium.start(browser) as chromium,
                chromium.page() as page,
            ):
                proxy.round_trip_s = 0.4
                await page.resize(1200, 800)
                await watch(page, LOADING)
                await page.go(proxy.url)
                await page.until("at.usable && at.connected && at.complete")
                runs.append(await page.evaluate("at"))
    usable = [run["usable"] for run in runs]
    listed = ", ".join(f"{one:.2f}" for one in usable)
    rest = max(run["connected"] for run in runs), max(run["complete"] for run in runs)
    measured = f"{listed} s; connected after {rest[0]:.1f} s, complete after {rest[1]:.1f} s"
    kept = max(usable) <= 3.0
    return [Figure("cold load at 400 ms", "3.0 s until one can write", measured, kept)]


@asynccontextmanager
async def _pages() -> AsyncIterator[str]:
    """The pages as the gateway serves them, and a server that is connected and says nothing."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "model"}]})

    async def socket(request: web.Request) -> web.WebSocketResponse:
        opened = web.WebSocketResponse()
        await opened.prepare(request)
        async for _ in opened:
            pass
        return opened

    app = web.Application()
    add_pages(app)
    app.add_routes([web.get("/v1/models", models), web.get("/v1/responses", socket)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


FIGURES = {
    "gaps": gaps,
    "first-token": first_token,
    "long-markdown": long_markdown,
    "quality": quality,
    "black-hole": black_hole,
    "resume": resume,
    "cold-load": cold_load,
}
