"""The operations page in a headless Chromium: with an invented cluster, and with a real gateway."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from chromium import Chromium, Page

from gateway.app import make_runner, make_site
from tests.gateway.support.scripted_service import ended, serving, start
from tests.support.programs import CHROMIUM, needs
from tests.web.ops.feed import OpsFeed
from workers.messages import Finish

pytestmark = [needs(CHROMIUM), pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

SPACE, ESCAPE, ENTER = (" ", 32), ("Escape", 27), ("Enter", 13)
CHARTS = "document.querySelectorAll('#charts canvas').length === 8"
SHOWN = f"operations.feed.requests.size > 0 && {CHARTS}"
FIGURES = "[...document.querySelectorAll('#figures > div')].map((one) => one.innerText)"


@pytest_asyncio.fixture(loop_scope="module")
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as entered:
        yield entered


@pytest_asyncio.fixture(loop_scope="module")
async def feed(stack: AsyncExitStack) -> OpsFeed:
    return await stack.enter_async_context(OpsFeed(8, 240))


@pytest_asyncio.fixture(loop_scope="module")
async def page(stack: AsyncExitStack, browser: Chromium, feed: OpsFeed) -> Page:
    opened = await stack.enter_async_context(browser.page())
    await opened.resize(1440, 1000)
    await opened.go(feed.url)
    await opened.until(SHOWN)
    return opened


async def text(page: Page, selector: str) -> str:
    found = await page.evaluate(f"document.querySelector('{selector}').innerText")
    return str(found)


async def test_figures_picture_and_charts_appear(page: Page) -> None:
    figures = await page.evaluate(FIGURES)
    assert len(figures) == 11
    assert figures[0].splitlines() == ["Live requests", "240"]
    assert await text(page, "#serving") == "8 of 8 serving"
    assert await text(page, "#model") == "Qwen3-32B · slack"
    drawn = """(() => {
        const map = document.getElementById("map");
        const { data } = map.getContext("2d").getImageData(0, 0, map.width, map.height);
        return new Set(new Uint32Array(data.buffer)).size;
    })()"""
    assert await page.evaluate(drawn) > 8  # colours: queue, phases, KV, readers, words
    await page.until("document.getElementById('map').ariaLabel.startsWith('8 instances')")
    assert page.complaints == []


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1440, 1920])
async def test_nothing_is_wider_than_the_page(page: Page, width: int) -> None:
    await page.resize(width, 900)
    await page.until(f"document.getElementById('map').clientWidth < {width}")
    wide = """[...document.querySelectorAll("body *")].filter((one) => {
        const box = one.getBoundingClientRect();
        return box.width && !one.closest(".scroll, .visually-hidden") && box.right > innerWidth + 1;
    }).map((one) => one.id || one.className || one.tagName)"""
    await page.until(f"({wide}).length === 0", timeout_s=10)
    clipped = """[...document.querySelectorAll("#figures dd, #figures dt")].filter(
        (one) => one.scrollWidth > one.clientWidth + 1
    ).map((one) => one.innerText)"""
    assert await page.evaluate(clipped) == []
    assert page.complaints == []


async def test_a_policy_is_switched_and_undone(page: Page, feed: OpsFeed) -> None:
    await page.evaluate(
        """(() => {
            document.getElementById("policies").value = "fcfs";
            document.getElementById("policies").dispatchEvent(new Event("change"));
        })()"""
    )
    assert "No request is lost" in await text(page, "#policy-note")
    await page.click("#apply")
    await page.until("!document.getElementById('undo').hidden")
    assert await text(page, "#policy-note") == "slack → fcfs"
    await page.click("#apply")  # again: nothing to change, and Undo still goes back to slack
    await page.click("#undo")
    await page.until("document.getElementById('undo').hidden")
    assert await page.evaluate("document.getElementById('policies').value") == "slack"
    assert feed.posted == [
        ("/admin/policy", {"policy": "fcfs"}),
        ("/admin/policy", {"policy": "slack"}),
    ]
    assert page.complaints == []


async def test_a_gateway_that_cannot_switch_says_so(
    stack: AsyncExitStack, browser: Chromium
) -> None:
    feed = await stack.enter_async_context(OpsFeed(2, 20))
    feed.can_switch = False
    page = await stack.enter_async_context(browser.page())
    await page.go(feed.url)
    await page.until("document.getElementById('apply').disabled")
    assert await page.evaluate("document.getElementById('policies').disabled")
    assert await page.evaluate("document.getElementById('policies').value") == "slack"
    assert "from the settings" in await text(page, "#policy-note")


async def test_an_instance_is_drained_with_the_keyboard_alone(page: Page, feed: OpsFeed) -> None:
    await page.evaluate("document.querySelector('#table summary').focus()")
    await page.press(*ENTER)
    await page.until("document.querySelectorAll('#table tbody tr').length >= 8")
    await page.evaluate("document.querySelector('#table tbody tr:nth-child(3) button').focus()")
    await page.press(*ENTER)
    await page.until("document.activeElement.id === 'drawer-title'")
    assert await text(page, "#drawer-title") == "worker-2"
    await page.evaluate("document.getElementById('drain').focus()")
    await page.press(*ENTER)
    await page.until("document.getElementById('drain').innerText === 'Let it serve again'")
    assert feed.posted[-1] == ("/admin/instances/worker-2/drain", {})
    await page.until("document.getElementById('serving').innerText === '7 of 8 serving'")
    assert await page.evaluate("document.getElementById('serving').dataset.kind") == "warn"
    await page.press(*ESCAPE)
    assert await page.evaluate("document.getElementById('drawer').hidden")
    assert await page.evaluate("document.activeElement.innerText") == "worker-2"
    assert page.complaints == []


async def test_a_tile_opens_its_instance(page: Page) -> None:
    await page.evaluate(
        """(() => {
            const map = document.getElementById("map");
            const box = map.getBoundingClientRect();
            map.dispatchEvent(new MouseEvent("click", {
                clientX: box.left + 90, clientY: box.top + 9, bubbles: true,
            }));
        })()"""
    )
    assert await text(page, "#drawer-title") == "worker-0"
    await page.click("#close")
    assert await page.evaluate("document.getElementById('drawer').hidden")


async def test_a_paused_view_stands_and_goes_on(page: Page) -> None:
    await page.evaluate("document.activeElement.blur()")
    await page.press(*SPACE)
    await page.until("document.getElementById('pause').ariaPressed === 'true'")
    before = await page.evaluate(FIGURES)
    times = "operations.feed.times.length"
    count = await page.evaluate(times)
    await page.until(f"{times} > {count} + 1")  # it still takes in what happens
    assert await page.evaluate(FIGURES) == before
    await page.click("#pause")
    await page.until(f"JSON.stringify({FIGURES}) !== {str(before)!r}")
    assert await text(page, "#pause") == "Pause view"


async def test_the_window_of_the_charts(page: Page) -> None:
    await page.click("#window button[value='60']")
    pressed = "[...document.querySelectorAll('#window [aria-pressed=true]')].map((b) => b.value)"
    assert await page.evaluate(pressed) == ["60"]
    await page.click("#window button[value='1800']")
    assert await page.evaluate(pressed) == ["1800"]
    assert page.complaints == []


async def test_a_lost_and_a_silent_connection_are_opened_again(page: Page, feed: OpsFeed) -> None:
    await feed.cut()
    await page.until("document.body.hasAttribute('data-stale')")
    await page.until("document.getElementById('serving').innerText === '8 of 8 serving'")
    assert feed.opened == 2
    feed.silent = True
    await page.until("document.body.hasAttribute('data-stale')")
    feed.silent = False
    await page.until("document.getElementById('serving').innerText === '8 of 8 serving'")
    assert feed.opened == 3


async def test_a_key_is_asked_for(stack: AsyncExitStack, browser: Chromium) -> None:
    feed = await stack.enter_async_context(OpsFeed(2, 20))
    feed.key = "right"
    page = await stack.enter_async_context(browser.page())
    await page.go(feed.url)
    await page.until("!document.getElementById('key').hidden")
    assert await text(page, "#key-note") == "An API key is needed."
    await page.evaluate("document.getElementById('key-field').focus()")
    await page.type("right")
    await page.press(*ENTER)
    await page.until(SHOWN)
    assert await page.evaluate("document.getElementById('key').hidden")
    await page.reload()
    await page.until(SHOWN)  # the tab remembers it


async def test_nothing_flies_with_reduced_motion(page: Page) -> None:
    push = """void operations.feed.flights.push(
        { from: 0, to: 5, tokens: 9000, begunS: performance.now() / 1000 })"""
    drawn = """(() => {
        const upper = document.getElementById("flights");
        const { data } = upper.getContext("2d").getImageData(0, 0, upper.width, upper.height);
        return new Uint32Array(data.buffer).some((pixel) => pixel);
    })()"""
    # From here on nothing happens but what the test does; the page draws on.
    await page.evaluate("operations.feed.take = () => operations.feed.flashes.clear()")
    await page.evaluate(push)
    await page.until(drawn)
    await page.prefer("light", "reduce")
    await page.until(f"operations.feed.flights.length === 0 && !{drawn}")
    await page.evaluate(push)
    twenty_frames = f"""new Promise((done) => {{
        let frames = 0;
        const look = () => {{
            if ({drawn}) done(true);
            else if (++frames > 20) done(false);
            else requestAnimationFrame(look);
        }};
        look();
    }})"""
    assert not await page.evaluate(twenty_frames)


async def test_the_picture_has_the_colours_of_the_theme(page: Page) -> None:
    pixel = """(() => {
        const map = document.getElementById("map");
        const { data } = map.getContext("2d").getImageData(0, 0, map.width, map.height);
        return new Set(new Uint32Array(data.buffer)).has(WANTED);
    })()"""
    for scheme, think in (("light", 0xFF00528A), ("dark", 0xFF5CB0E6)):  # --think, blue first
        await page.prefer(scheme)
        await page.until(pixel.replace("WANTED", str(think)))
        await page.until(CHARTS)


async def test_the_theme_of_the_chat_page_holds_here(page: Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    await page.prefer("light")
    light = await page.evaluate(background)
    for stored, dark in (('{"theme": "dark"}', True), ("not JSON", False), ("null", False)):
        await page.evaluate(f"localStorage.setItem('pascal.settings.1', '{stored}')")
        await page.reload()
        await page.until(SHOWN)
        assert (await page.evaluate(background) != light) is dark
    await page.evaluate("localStorage.clear()")
    assert page.complaints == []


async def metrics_of(address: str) -> str:
    async with ClientSession() as client, client.get(f"{address}/metrics") as response:
        return await response.text()


async def test_numbers_are_those_of_the_metrics_and_a_reload_keeps_the_history(
    stack: AsyncExitStack, browser: Chromium, tmp_path: Path
) -> None:
    service, workers = await stack.enter_async_context(serving(tmp_path, "worker-0"))
    runner = make_runner(service)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await make_site(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    page = await stack.enter_async_context(browser.page())
    await page.resize(1440, 1000)
    await page.go(f"{address}/ops")
    await page.until("document.getElementById('serving').innerText === '1 of 1 serving'")
    worker, output = workers["worker-0"], 0
    for count in range(1, 6):
        session, name = await start(
            service, worker, reasoning=True, stream=True, pacing={"tpot_s": 0.01}
        )
        await worker.tokens(name, 0, *["t"] * count, "end", boundary=count)
        await worker.tokens(name, count + 1, "a", "b", finish=Finish(reason="stop"))
        await ended(session)
        output += session.output_tokens
    await page.click("#totals summary")
    await page.until("document.querySelector('#totals dl').innerText.includes('completed\\n5')")
    rows = await page.evaluate(
        """Object.fromEntries([...document.querySelectorAll("#totals dl > div")].map(
            (one) => [one.children[0].innerText, Number(one.children[1].innerText)]))"""
    )
    metrics = await metrics_of(address)

    def value(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    for shown, metric in (
        ("completed", 'pascal_responses_total{status="completed"}'),
        ("failed", 'pascal_responses_total{status="failed"}'),
        ("below the QoE promised", "pascal_slo_violations_total"),
        ("tokens of thoughts", 'pascal_tokens_generated_total{kind="reasoning"}'),
        ("tokens of answers", 'pascal_tokens_generated_total{kind="answering"}'),
        ("tokens released", "pascal_tokens_released_total"),
        ("preempted", 'pascal_preemptions_total{instance="worker-0"}'),
        ("moved with their KV", 'pascal_migrations_total{outcome="moved"}'),
    ):
        assert rows[shown] == value(metric), shown
    assert rows["tokens of thoughts"] + rows["tokens of answers"] == output  # of the responses
    # What is so now: one thinks, one answers and its reader waits, one is only being read.
    slow, fast = {"tpot_s": 60.0}, {"tpot_s": 0.001, "ttfat_s": 0.001}
    held = [
        await start(service, worker, reasoning=thinks, stream=True, pacing=pacing)
        for thinks, pacing in ((True, slow), (False, fast), (False, slow))
    ]
    await worker.tokens(held[0][1], 0, "t", "t")
    await worker.tokens(held[1][1], 0, "a")
    await worker.tokens(held[2][1], 0, "a", "b", "c", finish=Finish(reason="stop"))
    gauges = {
        "Thinking": 'pascal_requests_live{state="reasoning"}',
        "Answering": 'pascal_requests_live{state="answering"}',
        "Being read": 'pascal_requests_live{state="delivering"}',
        "Queued": 'pascal_requests_live{state="queued"}',
        "Dry readers": "pascal_readers_dry",
    }
    shown_now = f"""Object.fromEntries({FIGURES}.map((one) => one.split("\\n"))
        .map(([name, value]) => [name, parseInt(value)]))"""
    wanted = {"Thinking": 1, "Answering": 1, "Being read": 1, "Queued": 0, "Dry readers": 1}
    await page.until(
        f"Object.entries({json.dumps(wanted)}).every(([k, n]) => ({shown_now})[k] === n)"
    )
    metrics = await metrics_of(address)
    assert {name: value(gauge) for name, gauge in gauges.items()} == wanted
    assert (await page.evaluate(shown_now))["Live requests"] == 3
    for one, _ in held:
        service.cancel(one)
    before = await page.evaluate("operations.feed.times")
    await page.reload()
    await page.until("operations.feed.times.length > 0")
    after = await page.evaluate("operations.feed.times")
    assert set(before) <= set(after)
    assert page.complaints == []
