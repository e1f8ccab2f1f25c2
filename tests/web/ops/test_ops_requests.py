"""One request on the operations page: its life as a lane, the worst behind a figure, many cells."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from chromium import Chromium, Page

from tests.gateway.support.scripted_service import until
from tests.support.programs import CHROMIUM, needs
from tests.web.ops.feed import OpsFeed
from tests.web.ops.test_ops_page import ENTER, ESCAPE, SHOWN, text

pytestmark = [needs(CHROMIUM), pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

TAB = ("Tab", 9)
CLICK = """((x, y) => {
    const map = document.getElementById("map");
    const box = map.getBoundingClientRect();
    map.dispatchEvent(new MouseEvent("click", {
        clientX: box.left + x, clientY: box.top + y, bubbles: true,
    }));
})"""
LANE = "document.querySelectorAll('#lane rect').length > 0"


@pytest_asyncio.fixture(loop_scope="module")
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as entered:
        yield entered


async def opened(
    stack: AsyncExitStack, browser: Chromium, feed: OpsFeed, width: int = 1440
) -> Page:
    page = await stack.enter_async_context(browser.page())
    await page.resize(width, 1000)
    await page.go(feed.url)
    await page.until(SHOWN)
    return page


def asked(feed: OpsFeed) -> Any:
    """What the page has asked for last."""
    return json.loads(feed.asked[-1]) if feed.asked else None


async def until_asked(feed: OpsFeed, message: dict[str, Any]) -> None:
    await until(lambda: asked(feed) == message)


async def test_a_dot_opens_the_life_of_its_request(
    stack: AsyncExitStack, browser: Chromium
) -> None:
    feed = await stack.enter_async_context(OpsFeed(4, 40))
    page = await opened(stack, browser, feed)
    # The first dot of the first tile, by what the feed says: answering ones come first.
    first = """operations.feed.at(operations.feed.instances[0].place)
        .find((one) => one.state !== 5).number"""
    await page.until("document.getElementById('map').width > 0")
    number = await page.evaluate(first)
    await page.evaluate(f"{CLICK}(64 + 3 + 4 + 4, 3 + 18 + 4)")
    await page.until(LANE)
    assert await text(page, "#drawer-title") == f"Request {number}"
    assert asked(feed) == {"type": "follow", "number": number}
    marks = await page.evaluate("operations.feed.request.marks")
    label = await page.evaluate("document.getElementById('lane').getAttribute('aria-label')")
    for state, words in (("queued", "queued"), ("reasoning", "thinking"), ("answering", "answer")):
        assert (words in label) is any(mark[1] == state for mark in marks), label
    rows = await page.evaluate("document.querySelectorAll('#life tbody tr').length")
    assert rows == await page.evaluate("document.querySelectorAll('#lane [class^=of-]').length")
    facts = await text(page, "#request-facts")
    assert f"resp_{number:032x}" in facts
    tokens = await page.evaluate("operations.feed.request.tokens.prompt")
    assert f"Tokens of the prompt\n{tokens}" in facts
    # It is live: it grows as long as the request does.
    age = "operations.feed.request.age_s"
    before = await page.evaluate(age)
    await page.until(f"{age} > {before} + 0.5")
    await page.click("#close")
    await until_asked(feed, {"type": "follow", "number": None})
    assert page.complaints == []


async def test_the_keyboard_alone_goes_from_an_instance_to_a_request_and_back(
    stack: AsyncExitStack, browser: Chromium
) -> None:
    feed = await stack.enter_async_context(OpsFeed(4, 40))
    page = await opened(stack, browser, feed)
    await page.evaluate("document.querySelector('#table summary').focus()")
    await page.press(*ENTER)
    await page.until("document.querySelectorAll('#table tbody tr').length >= 4")
    await page.evaluate("document.querySelector('#table tbody button').focus()")
    await page.press(*ENTER)
    await page.until("document.querySelectorAll('#requests tbody tr').length > 0")
    name = await text(page, "#drawer-title")
    await page.evaluate("document.querySelector('#requests tbody button').focus()")
    number = await page.evaluate("document.activeElement.value")
    await page.press(*ENTER)
    await page.until(LANE)
    assert await text(page, "#drawer-title") == f"Request {number}"
    assert await page.evaluate("document.activeElement.id") == "drawer-title"
    assert name in await text(page, "#back")
    await page.evaluate("document.getElementById('back').focus()")
    await page.press(*ENTER)
    assert await text(page, "#drawer-title") == name
    await page.press(*ESCAPE)
    assert await page.evaluate("document.getElementById('drawer').hidden")
    assert await page.evaluate("document.activeElement.innerText") == name
    assert page.complaints == []


async def test_a_request_that_ends_says_so_and_a_lost_connection_asks_again(
    stack: AsyncExitStack, browser: Chromium
) -> None:
    feed = await stack.enter_async_context(OpsFeed(2, 10))
    page = await opened(stack, browser, feed)
    oldest = "[...operations.feed.requests.values()].sort((a, b) => b.state - a.state)[0]"
    number = await page.evaluate(f"{oldest}.number")
    await page.evaluate(f"document.querySelector('#table').open = true; {oldest}")
    await page.until("document.querySelectorAll('#table tbody tr').length >= 2")
    place = feed.cluster.requests[number][1]
    row = f"#table tbody tr:nth-child({place + 1}) button"
    await page.evaluate(f"document.querySelector('{row}').click()")
    await page.until(f"document.querySelector('#requests button[value=\"{number}\"]')")
    await page.evaluate(f"document.querySelector('#requests button[value=\"{number}\"]').click()")
    await page.until(LANE)
    await feed.cut()
    await page.until("document.body.hasAttribute('data-stale')")
    await page.until("!document.body.hasAttribute('data-stale')")
    await until_asked(feed, {"type": "follow", "number": number})
    feed.cluster.requests[number][0] = 5
    feed.cluster.requests[number][4] = 0.0  # now it ends
    await page.until("operations.feed.request?.status === 'unknown'")
    await page.until(
        "document.getElementById('request-status').innerText.includes('does not know this request')"
    )
    assert page.complaints == []


async def test_the_boundary_rule_is_switched_marked_and_undone(
    stack: AsyncExitStack, browser: Chromium
) -> None:
    feed = await stack.enter_async_context(OpsFeed(2, 20))
    page = await opened(stack, browser, feed)
    rules = "[...document.querySelectorAll('#boundaries option')].map((one) => one.value)"
    assert await page.evaluate(rules) == ["off", "always", "adaptive", "balance"]
    assert await page.evaluate("document.getElementById('boundaries').value") == "balance"
    await page.evaluate(
        """(() => {
            document.getElementById("boundaries").value = "off";
            document.getElementById("boundaries").dispatchEvent(new Event("change"));
        })()"""
    )
    assert "answers where it was thinking" in await text(page, "#boundary-note")
    await page.click("#boundary-apply")
    await page.until("!document.getElementById('boundary-undo').hidden")
    assert await text(page, "#boundary-note") == "balance → off"
    await page.until("operations.feed.notes.at(-1).text === 'boundary balance → off'")
    assert await page.evaluate("operations.feed.notes.at(-1).choice") is True
    await page.click("#boundary-undo")
    await page.until("document.getElementById('boundary-undo').hidden")
    assert await page.evaluate("document.getElementById('boundaries').value") == "balance"
    assert feed.posted == [
        ("/admin/placement", {"boundary": "off"}),
        ("/admin/placement", {"boundary": "balance"}),
    ]
    # Another viewer's choice is seen here, too.
    feed.boundary = "adaptive"
    await page.until("document.getElementById('boundaries').value === 'adaptive'")
    assert page.complaints == []


async def test_a_figure_shows_the_three_worst_and_rings_their_dots(
    stack: AsyncExitStack, browser: Chromium
) -> None:
    feed = await stack.enter_async_context(OpsFeed(4, 60))
    page = await opened(stack, browser, feed)
    await page.prefer("light", "reduce")
    figures = await page.evaluate(
        "[...document.querySelectorAll('#figures button')].map((one) => one.value)"
    )
    assert len(figures) == 11
    await page.evaluate("document.querySelector('#figures button[value=qoe]').focus()")
    await page.press(*TAB)
    await page.press(*TAB, modifiers=8)  # back: the focus is seen
    await page.until("document.querySelectorAll('#worst ol button').length === 3")
    assert asked(feed) == {"type": "rank", "figure": "qoe"}
    values = await page.evaluate(
        "[...document.querySelectorAll('#worst ol b')].map((one) => one.innerText)"
    )
    assert values == ["0.610", "0.720", "0.740"]
    marked = await page.evaluate("operations.feed.marked")
    names = await page.evaluate(
        "[...document.querySelectorAll('#worst ol span')].map((one) => one.innerText)"
    )
    assert [name.split(" · ")[0] for name in names] == [f"Request {one}" for one in marked]
    ringed = """(() => {
        const upper = document.getElementById("flights");
        const { data } = upper.getContext("2d").getImageData(0, 0, upper.width, upper.height);
        return new Uint32Array(data.buffer).some((pixel) => pixel);
    })()"""
    await page.until(ringed)
    await page.press(*ENTER)
    await page.until("document.activeElement.closest('#worst')")
    number = await page.evaluate("document.activeElement.dataset.number")
    await page.press(*ENTER)
    await page.until("!document.getElementById('drawer').hidden")
    assert await text(page, "#drawer-title") == f"Request {number}"
    assert await page.evaluate("document.getElementById('worst').hidden")
    await page.press(*ESCAPE)
    assert await page.evaluate("document.activeElement.value") == "qoe"
    assert page.complaints == []


async def test_the_mouse_over_a_figure_and_a_chart(
    stack: AsyncExitStack, browser: Chromium
) -> None:
    feed = await stack.enter_async_context(OpsFeed(8, 60))
    page = await opened(stack, browser, feed)

    async def move(selector: str) -> None:
        x, y = await page.evaluate(
            f"""(() => {{
                const element = document.querySelector("{selector}");
                element.scrollIntoView({{ block: "center" }});
                const box = element.getBoundingClientRect();
                return [box.left + box.width / 2, box.top + box.height / 2];
            }})()"""
        )
        await page.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    await move("#figures > div:nth-child(6)")
    await page.until("document.querySelectorAll('#worst ol button').length === 3")
    assert asked(feed) == {"type": "rank", "figure": "ttft"}
    await move("h1")
    await page.until("document.getElementById('worst').hidden")
    await until_asked(feed, {"type": "rank", "figure": None})
    assert await page.evaluate("operations.feed.marked") == []
    await move("#charts figure:nth-child(6)")
    await page.until("document.querySelectorAll('#worst ol button').length === 3")
    fullest = """operations.feed.instances.map((one) => one.kv_used).sort((a, b) => b - a)[0]"""
    first = "document.querySelector('#worst ol button').dataset.name"
    used = f"operations.feed.instances.find((one) => one.name === {first}).kv_used"
    await page.until(f"{used} === {fullest}")
    assert page.complaints == []


@pytest.mark.parametrize("instances", [96, 256])
async def test_cells_are_the_stronger_the_fuller_and_open_their_instance(
    stack: AsyncExitStack, browser: Chromium, instances: int
) -> None:
    feed = await stack.enter_async_context(OpsFeed(instances, 1000))
    page = await opened(stack, browser, feed)
    await page.prefer("light", "reduce")
    # From here on the picture stands still.
    await page.evaluate("document.getElementById('pause').click()")
    await page.evaluate("operations.feed.take = () => {}")
    rows = -(-instances // 16)
    cell = f"""((n) => {{
        const map = document.getElementById("map");
        const box = map.getBoundingClientRect();
        const left = 64;
        const right = Math.min(280, box.width * 0.24);
        const width = (box.width - left - right) / 16;
        const height = box.height / {rows};
        return [left + (n % 16 + 0.5) * width, (Math.floor(n / 16) + 0.8) * height, width, height];
    }})"""
    shades = await page.evaluate(
        f"""(() => {{
            const map = document.getElementById("map");
            const g = map.getContext("2d");
            const {{ data, width: across }} = g.getImageData(0, 0, map.width, map.height);
            return Array.from({{ length: {instances} }}, (_, n) => {{
                const [x, y, width] = {cell}(n).map((one) => one * devicePixelRatio);
                return data[(Math.floor(y) * across + Math.floor(x + width * 0.35)) * 4 + 3];
            }});
        }})()"""
    )
    used = await page.evaluate(
        "operations.feed.instances.map((one) => one.kv_used / one.kv_blocks)"
    )
    for share, found in zip(used, shades, strict=True):
        assert abs(found / 255 - (0.12 + 0.88 * share)) < 0.02
    assert max(shades) - min(shades) > 40
    for n in (0, 17, instances - 1):
        await page.evaluate(f"{CLICK}(...{cell}({n}).slice(0, 2))")
        assert await text(page, "#drawer-title") == f"worker-{n}"
        held = await page.evaluate(f"Math.min(50, operations.feed.at({n}).length)")
        shown = "document.querySelectorAll('#requests tbody tr').length"
        assert await page.evaluate(shown) == held
    await page.click("#close")
    await page.evaluate("document.getElementById('pause').click()")
    await page.evaluate("document.querySelector('#table').open = true")
    await page.until(f"document.querySelectorAll('#table tbody tr').length >= {instances}")
    last = f"#table tbody tr:nth-child({instances}) button"
    assert await text(page, last) == f"worker-{instances - 1}"
    assert page.complaints == []


async def test_a_ghost_shows_the_median_before_the_last_choice(
    stack: AsyncExitStack, browser: Chromium
) -> None:
    feed = await stack.enter_async_context(OpsFeed(2, 20))
    page = await opened(stack, browser, feed)
    # The invented history: with fcfs, up to 110 s ago, the p99 of TTFT was about 39 s, then 23 s.
    await page.prefer("light")
    await page.until(SHOWN)
    red = """(() => {
        const canvas = document.querySelectorAll("#charts canvas")[1];
        const { width, height } = canvas;
        const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
        const found = [];
        for (let y = 0; y < height; y += 1) {
            for (let x = Math.floor(width * 0.85); x < width; x += 1) {
                const [r, g, b, a] = data.subarray((y * width + x) * 4);
                if (a > 40 && r > 120 && g < 90 && b < 90 && r > g + 60 && r > b + 60) {
                    found.push(y / height);
                }
            }
        }
        return [Math.min(...found), Math.max(...found)];
    })()"""
    await page.until(f"{red}[0] < 0.3 && {red}[1] > 0.35")  # the ghost lies above the line of now
