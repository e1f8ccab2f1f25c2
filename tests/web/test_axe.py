"""No violation of WCAG 2.2 AA and of axe's best practice, in every state, size and theme.

axe-core is installed with npm for the test alone: nothing of it belongs to the product.
"""

from __future__ import annotations

import pytest
from chromium import Chromium

from tests.support.axe import RUN
from tests.support.programs import CHROMIUM, NPM, needs
from tests.web.answers import LAST, Reader, reading
from tests.web.browsing import DONE, ESCAPE, TEXT
from tests.web.scripted_server import ScriptedServer

pytestmark = [
    needs(CHROMIUM),
    needs(NPM),
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]


class States:
    """The states of the page that were looked at, and what axe says of each."""

    def __init__(self, reader: Reader, axe: str) -> None:
        self._reader = reader
        self._axe = axe
        self.found: dict[str, list[str]] = {}

    async def look(self, name: str) -> None:
        """Let axe look at the page as it is."""
        get = self._reader.get
        if not await get("'axe' in window"):
            await get(f"{self._axe}; 0")
        # Motion is over: a colour on its way to another has the contrast of neither.
        await get(
            """Promise.allSettled(document.getAnimations()
                .filter(({ effect }) => effect.getTiming().iterations !== Infinity)
                .map(({ finished }) => finished))"""
        )
        self.found[name] = await get(RUN)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1440])
async def test_no_violation(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch, axe: str, width: int, scheme: str
) -> None:
    async with reading(browser, monkeypatch, size=(width, 800)) as reader:
        page, states = reader.page, States(reader, axe)
        await page.prefer(scheme)
        await states.look("empty")
        reader.server.step_s = 0.4
        await reader.ask("hold on", pace=10)
        await page.until("document.querySelector('.thoughts-text')?.innerText.length > 60")
        await states.look("thinking")
        reader.server.step_s = 0.01
        await page.until(f"{LAST}?.innerText.length > 60")
        await states.look("answering")
        await page.click("[aria-label='Pause reading']")
        await page.until("document.querySelector('[aria-label=\"Go on reading\"]')")
        await states.look("paused")
        await reader.stop()
        await states.look("stopped")
        await reader.ask_all()
        await states.look("done")
        await page.click(".answer summary")
        await page.click(".turn:last-child .thinking-button")
        await page.until(
            "document.querySelector('.turn:last-child .thoughts-text')?.checkVisibility()"
        )
        await states.look("thoughts open")
        await reader.ask("fail, please")
        await page.until("document.querySelector('.turn:last-child .error-card')")
        await states.look("failed")
        assert {name: found for name, found in states.found.items() if found} == {}
        assert len(states.found) == 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1440])
async def test_no_violation_in_what_opens_and_in_what_goes_wrong(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch, axe: str, width: int, scheme: str
) -> None:
    async with reading(browser, monkeypatch, "Two words.", size=(width, 800)) as reader:
        page, states, server = reader.page, States(reader, axe), reader.server
        await page.prefer(scheme)
        for name, key, code in (("settings", ",", 188), ("shortcuts", "?", 191)):
            await page.evaluate("document.activeElement.blur()")
            await page.press(key, code, modifiers=2 if key == "," else 8)
            await page.until("document.querySelector('dialog[open]')")
            await states.look(name)
            await page.evaluate("document.querySelector('dialog').close()")
        await page.click(".pace-button")
        await states.look("pace")
        await page.click("#pace-panel > .button")
        await page.until("document.querySelector('dialog[open]')")
        await states.look("reading test")
        await page.evaluate("document.querySelector('dialog').close()")
        await reader.ask()
        await page.until(DONE)
        await reader.get("document.querySelector('.actions button:nth-of-type(2)').click()")
        await page.until("document.querySelector('.versions')?.innerText.includes('2 of 2')")
        await page.until(DONE)
        await reader.get("document.querySelector('.delivery-line').click()")
        await page.until("document.querySelector('.figures')")
        await states.look("versions, and the delivery unfolded")
        await reader.get("document.querySelector('[aria-label=\"Delete this version\"]').click()")
        await page.until("document.querySelector('.banner')")
        await states.look("deleted")
        await page.evaluate("document.querySelector('.edit').click()")
        await page.until("document.querySelector('.composer-note')")
        await states.look("editing")
        await page.press(*ESCAPE)
        if not await reader.get("!!document.querySelector('.sidebar')"):
            await page.click("header [aria-label=Conversations]")
        await page.until("document.querySelector('.row-more')")
        await page.click(".row-more")
        await page.until("document.querySelector('.row-menu')")
        await states.look("list and its menu")
        await page.press(*ESCAPE)
        if await reader.get("!!document.querySelector('.curtain')"):
            await page.press(*ESCAPE)
        server.ahead = 2
        await reader.ask("wait")
        await page.until(f"{TEXT}.includes('2 requests wait before yours.')")
        await states.look("in the queue")
        await reader.stop()
        await reader.ask("refuse me")
        await page.until(f"{TEXT}.includes('The server is full.')")
        await states.look("refused")
        await reader.stop()
        server.ready = False
        await reader.ask("Why?")
        await page.until(f"{TEXT}.includes('No engine is ready yet')")
        await states.look("held")
        await server.break_sockets()
        await page.evaluate("dispatchEvent(new Event('offline'))")
        await page.until("document.querySelector('.banner')")
        await states.look("lost")
        assert {name: found for name, found in states.found.items() if found} == {}
        assert len(states.found) == 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_violation_while_parts_are_missing(
    browser: Chromium, axe: str, scheme: str
) -> None:
    async with ScriptedServer() as server, browser.page() as page:
        server.withheld = {"js/page.js"}
        await page.prefer(scheme)
        await page.go(server.url)
        await page.until("document.querySelector('.composer')")
        states = States(Reader(page, server), axe)
        await states.look("first")
        server.lost = {"js/parts.js", "js/page.js"}
        server.release()
        await page.until(f"{TEXT}.includes('parts of this page are missing')")
        await states.look("late")
        assert states.found == {"first": [], "late": []}


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_violation_when_a_key_is_asked_for(
    browser: Chromium, axe: str, scheme: str
) -> None:
    async with ScriptedServer(api_key="secret") as locked, browser.page() as page:
        await page.prefer(scheme)
        await page.go(locked.url)
        await page.until("document.querySelector('.key-form')")
        states = States(Reader(page, locked), axe)
        await states.look("locked")
        assert states.found == {"locked": []}
