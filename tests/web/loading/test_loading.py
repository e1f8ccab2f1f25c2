"""The page while only a part of it has come: one can write, and what is missing is waited for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest
from chromium import Chromium, Page, PageError

from gateway.api.pages.routes import site
from tests.support.programs import CHROMIUM, needs
from tests.web.browsing import DONE, OPEN, TEXT, ask, set_pace
from tests.web.scripted_server import ScriptedServer

pytestmark = [needs(CHROMIUM), pytest.mark.asyncio(loop_scope="module")]

FIELD = "document.querySelector('.composer textarea')"
NOTE = "document.querySelector('.composer-note')?.innerText"


async def opened(stack: AsyncExitStack, chromium: Chromium, server: ScriptedServer) -> Page:
    page = await stack.enter_async_context(chromium.page())
    await page.resize(1200, 740)
    await page.go(server.url)
    await page.until(FIELD)
    return page


async def reloaded(page: Page) -> None:
    """Wait until the page that has `window.before` has loaded itself again."""
    while True:
        with suppress(PageError):
            if await page.evaluate("!window.before"):
                return
        await asyncio.sleep(0.05)


async def test_a_question_waits_for_what_sends_it(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer
) -> None:
    scripted.withheld = {*site().later("js/main.js")}
    page = await opened(stack, chromium, scripted)
    await set_pace(page, 41)
    await ask(page, "What is 348 + 275?")
    await page.until(f"{NOTE}?.includes('Sent when the page is loaded')")
    await page.type("And what is")
    assert scripted.requests == []
    scripted.release()
    await page.until(DONE)
    assert scripted.requests[0]["input"] == "What is 348 + 275?"
    assert scripted.requests[0]["pacing"] is False
    assert await page.evaluate(f"{FIELD}.value") == "And what is"
    assert page.complaints == []


async def test_a_question_that_waits_can_be_taken_back(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer
) -> None:
    scripted.withheld = {"js/page.js"}
    page = await opened(stack, chromium, scripted)
    await ask(page, "What is 1 + 1?")
    await page.until(NOTE)
    await page.click(".composer-note button")
    await page.until(f"{FIELD}.value === 'What is 1 + 1?'")
    scripted.release()
    await page.until(OPEN)
    assert scripted.requests == []


async def test_a_question_is_sent_before_its_answer_can_be_shown(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer
) -> None:
    scripted.withheld = {"js/view/turn.js"}
    page = await opened(stack, chromium, scripted)
    await set_pace(page, 41)
    await page.until(OPEN)
    await ask(page, "What is 348 + 275?")
    await page.until("document.querySelector('.turn .question')")
    await page.until("document.querySelector('.turn .progress').innerText.includes('Loading')")
    assert scripted.requests[0]["input"] == "What is 348 + 275?"
    scripted.release()
    await page.until(DONE)
    assert page.complaints == []


@pytest.mark.parametrize("name", ["js/page.js", "js/view/turn.js", "vendor/marked.js"])
async def test_a_network_that_died_at_once_loses_nothing(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer, name: str
) -> None:
    """A browser does not fetch a module again: the page does, when it can."""
    scripted.lost = {name, "js/parts.js"}
    page = await opened(stack, chromium, scripted)
    await page.until(f"{TEXT}.includes('parts of this page are missing')")
    await page.evaluate(f"{FIELD}.focus()")
    await page.type("What is 348")
    await page.evaluate("window.before = true")
    scripted.lost = set()
    await reloaded(page)
    await page.until(OPEN)
    await page.until(f"{FIELD}.value === 'What is 348'")
    await set_pace(page, 41)
    await page.evaluate(f"{FIELD}.focus()")
    await page.type(" + 275?")
    await page.click("[aria-label=Send]")
    await page.until(DONE)
    assert scripted.requests[0]["input"] == "What is 348 + 275?"


async def test_a_library_is_fetched_again(
    stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer
) -> None:
    scripted.lost = {"vendor/highlight/python.js"}
    page = await opened(stack, chromium, scripted)
    await set_pace(page, 41)
    await page.until(OPEN)
    await ask(page, "What is 348 + 275?")
    await page.until(DONE)
    assert await page.evaluate("document.querySelector('.code .hljs-built_in')") is None
    scripted.lost = set()
    await page.until("document.querySelector('.code .hljs-built_in')")
