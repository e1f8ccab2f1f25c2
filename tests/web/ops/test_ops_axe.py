"""No violation of WCAG 2.2 AA and of axe's best practice on the operations page."""

from __future__ import annotations

import pytest
from chromium import Chromium, Page

from tests.support.axe import RUN
from tests.support.programs import CHROMIUM, NPM, needs
from tests.web.ops.feed import OpsFeed
from tests.web.ops.test_ops_page import SHOWN

pytestmark = [
    needs(CHROMIUM),
    needs(NPM),
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]


async def states(page: Page, feed: OpsFeed) -> dict[str, list[str]]:
    """What axe finds in each state of the page."""
    found = {"live": await page.evaluate(RUN)}
    await page.evaluate("document.getElementById('table').open = true")
    await page.evaluate("document.getElementById('totals').open = true")
    await page.until("document.querySelectorAll('#table tbody tr').length > 0")
    await page.until("document.querySelectorAll('#totals dd').length > 0")
    found["unfolded"] = await page.evaluate(RUN)
    await page.evaluate("document.querySelector('#table tbody button').click()")
    await page.until("!document.getElementById('drawer').hidden")
    await page.until("document.querySelectorAll('#requests tbody tr').length > 0")
    found["drawer"] = await page.evaluate(RUN)
    await page.evaluate("document.querySelector('#requests tbody button').click()")
    await page.until("document.querySelectorAll('#lane rect').length > 0")
    found["lane"] = await page.evaluate(RUN)
    await page.evaluate("document.getElementById('close').click()")
    await page.evaluate("document.querySelector('#figures button[value=ttft]').click()")
    await page.until("document.querySelectorAll('#worst ol button').length === 3")
    found["worst"] = await page.evaluate(RUN)
    await page.evaluate("document.querySelector('#figures button[value=ttft]').click()")
    await page.evaluate("document.getElementById('boundaries').value = 'off'")
    await page.evaluate("document.getElementById('boundary-apply').click()")
    await page.evaluate("document.getElementById('apply').click()")
    await page.until("!document.getElementById('boundary-undo').hidden")
    await page.until("!document.getElementById('undo').hidden")
    found["undo"] = await page.evaluate(RUN)
    feed.key = "right"
    await feed.cut()
    await page.until("!document.getElementById('key').hidden")
    found["key"] = await page.evaluate(RUN)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1440])
async def test_axe_finds_nothing(browser: Chromium, axe: str, scheme: str, width: int) -> None:
    async with OpsFeed(8, 240) as feed, browser.page() as page:
        await page.resize(width, 900)
        await page.prefer(scheme)
        await page.go(feed.url)
        await page.until(SHOWN)
        await page.evaluate(f"{axe}; 0")
        found = await states(page, feed)
    assert [f"{state}: {one}" for state, violations in found.items() for one in violations] == []
