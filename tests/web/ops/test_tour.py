"""The guided tour on a real demonstration: each step does what it says, and its end undoes all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from chromium import Chromium, Page

from tests.support.axe import RUN
from tests.support.programs import CHROMIUM, needs
from tests.support.server import START_S, Server

pytestmark = [
    needs(CHROMIUM),
    pytest.mark.engine,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]

CARD = "document.querySelector('#tour')"
TITLE = "document.querySelector('#tour-title')?.textContent"
IDLE = f"!{CARD}.hasAttribute('aria-busy')"
RIGHT, LEFT, ESCAPE = ("ArrowRight", 39), ("ArrowLeft", 37), ("Escape", 27)
TITLES = ("A load", "Pressure", "From fcfs to slack", "A worker dies", "A drain")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tour")
    extra = ("--load=calm", "--policy=pascal", "--log-level=info")
    with Server(folder, workers=3, extra=extra, command="demo") as server:
        server.wait_for(lambda: len(server.request("/ready")[1]["instances"]) == 3)
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def shown(demo: Server, chromium: Chromium) -> AsyncIterator[Page]:
    # As at the start, also after a test that failed in the middle of the tour.
    for path, body in (("/admin/demo", {"load": "calm"}), ("/admin/policy", {"policy": "pascal"})):
        await asyncio.to_thread(demo.request, path, body)
    async with AsyncExitStack() as stack:
        page = await stack.enter_async_context(chromium.page())
        await page.resize(1440, 900)
        await page.go(f"{demo.url}/ops")
        await page.until("document.querySelector('#demo [aria-pressed=true]')")
        yield page
        assert page.complaints == []


async def until(demo: Server, path: str, holds: Any) -> Any:
    async with asyncio.timeout(START_S):
        while True:
            _, answer = await asyncio.to_thread(demo.request, path)
            if holds(answer):
                return answer
            await asyncio.sleep(0.1)


async def states(demo: Server) -> list[str]:
    _, answer = await asyncio.to_thread(demo.request, "/admin/instances")
    return sorted(one["state"] for one in answer["instances"])


async def test_the_tour_from_its_first_step_to_its_last(demo: Server, shown: Page) -> None:
    await shown.click("[data-do=tour]")
    for number, (title, load, policy) in enumerate(
        zip(
            TITLES,
            ("busy", "pressure", "pressure", "busy", "busy"),
            ("slack", "fcfs", "slack", "slack", "slack"),
            strict=True,
        )
    ):
        await shown.until(f"{TITLE} === {title!r} && {IDLE}")
        assert await shown.evaluate("document.activeElement.id") == "tour-title"
        assert await shown.evaluate(f"{CARD}.querySelector('.step').textContent") == (
            f"Step {number + 1} of 5"
        )
        assert await shown.evaluate(f"{CARD}.querySelector('.error').textContent") == ""
        assert (await until(demo, "/admin/demo", lambda a: True))["load"] == load
        assert (await until(demo, "/admin/policy", lambda a: True))["policy"] == policy
        if title == "A load":  # the figures move with the gateway
            live = f"Number({CARD}.querySelector('tbody td:last-child').textContent)"
            await shown.until(f"{live} > 25")
            await shown.until("globalThis.operations.feed.requests.size > 25")
        marks = {
            "A load": "policy pascal → slack",
            "Pressure": "policy slack → fcfs",
            "From fcfs to slack": "policy fcfs → slack",
        }
        if title in marks:
            texts = "operations.feed.notes.map(({ text }) => text)"
            await shown.until(f"{texts}.includes({marks[title]!r})")
        if title == "A worker dies":
            (killed,) = demo.logged("demo_worker_killed")
            path = f"/admin/instances/{killed['instance_id']}"
            again = (None, killed["pid"])
            await until(demo, path, lambda a: a["pid"] not in again)  # noqa: B023
            await shown.until("operations.feed.notes.some(({ text }) => text.endsWith('killed'))")
        if title == "A drain":
            assert [s for s in await states(demo) if s != "serving"] in (["draining"], ["drained"])
            await shown.press(*LEFT)
            await shown.until(f"{TITLE} === 'A worker dies' && {IDLE}")
            assert await states(demo) == ["serving"] * 3
            assert len(demo.logged("demo_worker_killed")) == 1  # once is enough
            await shown.press(*RIGHT)
            await shown.until(f"{TITLE} === 'A drain' && {IDLE}")
        await shown.press(*RIGHT)
    await shown.until(f"!{CARD}")
    assert await shown.evaluate("document.activeElement.dataset.do") == "tour"
    await until(
        demo, "/admin/instances", lambda a: all(i["state"] == "serving" for i in a["instances"])
    )
    assert (await until(demo, "/admin/demo", lambda a: True))["load"] == "calm"
    assert (await until(demo, "/admin/policy", lambda a: True))["policy"] == "pascal"
    notes = await shown.evaluate("operations.feed.notes.map(({ text }) => text)")
    for mark in ("load calm → busy", "load busy → pressure"):
        assert mark in notes, notes
    assert demo.metric('pascal_responses_total{status="failed"') == 0


async def test_escape_ends_it_and_the_address_begins_it(demo: Server, shown: Page) -> None:
    await shown.go(f"{demo.url}/ops?tour")
    await shown.until(f"{TITLE} === 'A load' && {IDLE}")
    await shown.press(*RIGHT)
    await shown.until(f"{TITLE} === 'Pressure' && {IDLE}")
    await shown.press(*ESCAPE)
    await shown.until(f"!{CARD}")
    assert (await until(demo, "/admin/demo", lambda a: True))["load"] == "calm"


async def test_a_reload_in_the_middle_puts_back_what_was_there(demo: Server, shown: Page) -> None:
    await until(demo, "/ready", lambda a: len(a["instances"]) == 3)
    await shown.click("[data-do=tour]")
    for title in TITLES[:3]:
        await shown.until(f"{TITLE} === {title!r} && {IDLE}")
        await shown.press(*RIGHT)
    await shown.until(f"{TITLE} === {TITLES[3]!r} && {IDLE}")
    await shown.until("operations.feed.instances.filter((i) => i.state === 'serving').length === 3")
    await shown.press(*RIGHT)
    await shown.until(f"{TITLE} === {TITLES[4]!r} && {IDLE}")
    assert min(await states(demo)) != "serving"
    await shown.go(f"{demo.url}/ops")
    await until(demo, "/admin/policy", lambda a: a["policy"] == "pascal")
    await until(demo, "/admin/demo", lambda a: a["load"] == "calm")
    await until(
        demo, "/admin/instances", lambda a: all(i["state"] == "serving" for i in a["instances"])
    )
    assert await shown.evaluate(f"{CARD} === null")


async def test_what_goes_wrong_is_said_and_the_tour_stays(demo: Server, shown: Page) -> None:
    await shown.evaluate(
        "(() => { const real = fetch; globalThis.fetch = (path, o) => "
        "o?.method === 'POST' ? Promise.reject(new Error('cut')) : real(path, o); "
        "globalThis.mend = () => { globalThis.fetch = real; }; })()"
    )
    await shown.click("[data-do=tour]")
    await shown.until(f"{CARD}?.querySelector('.error').textContent.includes('did not answer')")
    await shown.evaluate("mend()")
    await shown.press(*ESCAPE)
    await shown.until(f"!{CARD}")


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_it_fits_and_axe_finds_nothing(
    demo: Server, shown: Page, axe: str, width: int, theme: str
) -> None:
    await shown.resize(width, 844)
    await shown.prefer(theme)
    # Not by its place: the page is still moving into its new size.
    await shown.evaluate("document.querySelector('[data-do=tour]').click()")
    await shown.until(f"{TITLE} === 'A load' && {IDLE}")
    assert await shown.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    box = await shown.evaluate(f"{CARD}.getBoundingClientRect().toJSON()")
    assert box["left"] >= 0
    assert box["right"] <= width
    assert box["bottom"] <= 844
    await shown.evaluate(f"{axe}; 0")
    assert await shown.evaluate(RUN) == []
    await shown.press(*ESCAPE)
    await shown.until(f"!{CARD}")
