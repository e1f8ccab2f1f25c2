"""What the reader gets on bad networks: dead connections and holes; and what the page says.

How exactly the page keeps the pace is measured by `python -m tests.web.figures`: other load on the
machine disturbs that.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import pytest
from chromium import Chromium, Page

from tests.support.programs import CHROMIUM, needs
from tests.web.browsing import ANSWER, DONE, FOCUS, OPEN, TEXT, TURNS, ask, set_pace
from tests.web.proxy import Proxy
from tests.web.scripted_server import ANSWER as WHOLE
from tests.web.scripted_server import Response, ScriptedServer, pieces

pytestmark = [
    needs(CHROMIUM),
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]


async def behind(stack: AsyncExitStack, chromium: Chromium, server: ScriptedServer) -> Any:
    """The page behind a proxy."""
    proxy = await stack.enter_async_context(Proxy(server.url))
    page = await stack.enter_async_context(chromium.page())
    await page.resize(1040, 740)
    await page.go(proxy.url)
    await page.until(OPEN)
    return page, proxy


def plain(markdown: str) -> str:
    """The words of a text, without what only marks them up."""
    return "".join(char for char in markdown if char.isalnum())


async def whole(page: Page) -> bool:
    """Whether the page has the beginning and the end of the answer, once."""
    text = plain(await page.evaluate(ANSWER))
    return text.startswith(plain("348 + 275 = 623. I added")) and text.count("hundreds") == 1


@pytest.mark.parametrize("when", ["mid-answer", "before the first token"])
async def test_a_black_hole_is_noticed_and_the_answer_is_complete(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer, when: str
) -> None:
    page, proxy = await behind(stack, chromium, scripted)
    await set_pace(page, 20)
    if when == "mid-answer":
        await ask(page, "Why?")
        await page.until(f"{ANSWER}.length > 30")
        proxy.swallow()
    else:
        proxy.swallow()
        await ask(page, "Why?")
    begun = time.monotonic()
    await page.until("document.querySelector('.connection').dataset.status !== 'open'", 12)
    assert time.monotonic() - begun < 8
    await page.until(DONE)
    assert await whole(page)
    assert await page.evaluate("performance.getEntriesByType('navigation').length") == 1


async def test_a_probe_at_wake_up_is_faster_than_the_watchdog(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer
) -> None:
    page, proxy = await behind(stack, chromium, scripted)
    proxy.swallow()
    begun = time.monotonic()
    await page.evaluate("dispatchEvent(new Event('online'))")
    await page.until("document.querySelector('.connection').dataset.status !== 'open'", 6)
    assert time.monotonic() - begun < 4
    await page.until(OPEN)


async def test_stop_acts_after_three_seconds_whatever_the_network_does(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer
) -> None:
    page, proxy = await behind(stack, chromium, scripted)
    await set_pace(page, 20)
    await ask(page, "hold on")
    await page.until(f"{ANSWER}.length > 30")
    proxy.swallow()
    await page.click("[aria-label=Stop]")
    assert not await page.evaluate("document.querySelector('[data-action=new]').disabled")
    begun = time.monotonic()
    await page.until("document.querySelector('.turn[data-state=incomplete] .actions')", 8)
    assert time.monotonic() - begun < 4
    assert await page.evaluate(FOCUS) == "TEXTAREA"
    # The server is told when it can be reached.
    await page.evaluate("dispatchEvent(new Event('online'))")
    await page.until("document.querySelector('.ended-early').innerText === 'Stopped.'")
    cancels = [r for r in scripted.requests if r["type"] == "response.cancel"]
    assert len(cancels) == 1


async def test_stop_stores_what_was_read(page: Page, scripted: ScriptedServer) -> None:
    await set_pace(page, 10)
    await ask(page, "hold on")
    await page.until(f"{ANSWER}.length > 30")
    await page.click("[aria-label=Stop]")
    await page.until("document.querySelector('.turn[data-state=incomplete] .actions')")
    (cancel,) = [r for r in scripted.requests if r["type"] == "response.cancel"]
    response = scripted.responses["resp_1"]
    stored = response.events[-1]["response"]["output"][1]["content"][0]["text"]
    assert stored == "".join(pieces(WHOLE * 1000)[: cancel["read_tokens"]])
    sent = sum(event["type"].endswith("output_text.delta") for event in response.events)
    assert sent > cancel["read_tokens"] + 5  # it was sent ahead
    assert plain(await page.evaluate(ANSWER)) == plain(stored)


@pytest.mark.parametrize("hole_s", [0, 1.5, 5])
async def test_holes_shorter_than_the_lead_are_invisible(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer, hole_s: float
) -> None:
    page, proxy = await behind(stack, chromium, scripted)
    await set_pace(page, 10)
    await ask(page, "Why?")
    await page.until(f"{ANSWER}.length > 60")
    if hole_s:
        await proxy.stall(hole_s)
    await page.until(DONE)
    figures = await page.evaluate("document.querySelector('.delivery-line').innerText")
    reads = [r["read"] for r in scripted.requests if "read" in r]
    response: Response = scripted.responses["resp_1"]
    deltas = [e["delta"] for e in response.events if e["type"].endswith("output_text.delta")]
    assert reads[-1]["tokens"] == len(deltas)
    assert all(b["tokens"] >= a["tokens"] for a, b in pairwise(reads))
    if hole_s < 2.5:
        assert "no waits" in figures
        assert reads[-1]["qoe"] > 0.9
    else:
        assert "1 wait, " in figures
        assert reads[-1]["qoe"] < 0.9


async def test_both_qualities_are_told_also_after_a_reload(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer
) -> None:
    page, _ = await behind(stack, chromium, scripted)
    await set_pace(page, 10)
    await ask(page, "Why?")
    await page.until(f"{ANSWER}.length > 40")
    await page.reload()
    await page.until(f"{ANSWER}.length > 30")
    await page.until(DONE)
    assert await whole(page)
    await page.click(".delivery-line")
    await page.until("document.querySelector('.figures')")
    names = "[...document.querySelectorAll('.figures dt')].map(e => e.innerText)"
    values = "[...document.querySelectorAll('.figures dd')].map(e => e.innerText)"
    told = dict(zip(await page.evaluate(names), await page.evaluate(values), strict=True))
    assert told["QoE released"] == "0.997"  # the script's
    assert 0.5 < float(told["QoE read"]) <= 1
    span = "document.querySelector('.picture .span').innerText"
    picture = await page.evaluate(span)
    await page.reload()  # the choice, the figures and the picture are remembered
    await page.until("document.querySelector('.figures')")
    assert dict(zip(await page.evaluate(names), await page.evaluate(values), strict=True)) == told
    assert await page.evaluate(span) == picture
    count = len(pieces(WHOLE))
    assert picture.startswith(f"{count} tokens in ")
    await page.click(".figure-name")
    await page.until(f"{TEXT}.includes('first word of the answer')")


async def test_live_figures_move_while_nothing_comes(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer
) -> None:
    page, proxy = await behind(stack, chromium, scripted)
    await set_pace(page, 20)
    await ask(page, "hold on")
    await page.until(f"{ANSWER}.length > 30")
    proxy.swallow()
    line = "document.querySelector('.delivery-line').innerText"
    await page.until(f"{line}.startsWith('Waiting for text for')", 12)
    await page.until(f"{line}.includes('ahead of you')")
    await page.evaluate("document.querySelector('[aria-label=Stop]').click()")


async def test_a_question_waits_for_a_server_that_starts(
    page: Page, scripted: ScriptedServer
) -> None:
    scripted.ready = False
    await ask(page, "Why?")
    await page.until(f"{TEXT}.includes('No engine is ready yet')")
    assert await page.evaluate("document.querySelector('.error-card')") is None
    scripted.ready = True
    await page.until(DONE)
    creates = [r for r in scripted.requests if r["type"] == "response.create"]
    assert len(creates) == 2


async def test_words_while_the_server_is_down(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer
) -> None:
    page, proxy = await behind(stack, chromium, scripted)
    proxy._server.close()
    proxy.cut()
    await page.until("document.querySelector('.banner')")
    await ask(page, "Why?")
    await page.until(f"{TEXT}.includes('Your question is kept here')")
    text = await page.evaluate(TEXT)
    assert "Not sent yet" in text
    assert "goes on at the server" not in text
    assert "Next try in" in text or "Trying again" in text
    await page.click("[aria-label=Stop]")
    await page.until(f"{TEXT}.includes('Stopped before the server took it')")
    assert await page.evaluate("document.querySelector('.error-card')") is None
    assert await page.evaluate(TURNS) == 1
