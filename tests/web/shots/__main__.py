"""Pictures of every state of both pages, at 1440, 768 and 390 pixels in both themes.

    python -m tests.web.shots FOLDER [--only chat|ops|tour] [--docs docs/images]

The chat has scripted answers, and /ops an invented cluster (`tests.web.ops.shots`); the tour runs
on a real demonstration. A picture is named PAGE-STATE-WIDTH-THEME.png. One sheet for each state has
all its pictures side by side, to be looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

from chromium import Chromium, Page, PageError, find  # noqa: E402
from PIL import Image  # noqa: E402

from tests.support.server import Server  # noqa: E402
from tests.web import scripted_server  # noqa: E402
from tests.web.answers import LAST, RICH, Reader  # noqa: E402
from tests.web.browsing import DONE, ESCAPE, OPEN, TEXT, TURNS  # noqa: E402
from tests.web.ops import shots as ops_shots  # noqa: E402
from tests.web.ops.feed import OpsFeed  # noqa: E402
from tests.web.scripted_server import ScriptedServer  # noqa: E402

SIZES: Final = {1440: 900, 768: 1024, 390: 844}
THEMES: Final = ("light", "dark")
SHEET_HEIGHT: Final = 620
TOUR_STEPS: Final = 5
COLOURS: Final = 256  # of a picture in the docs
# Pictures for docs/images: what each is taken from, and its part from top to bottom in pixels.
DOCS: Final[dict[str, tuple[str, int, int]]] = {
    "chat-thinking-768-dark": ("chat-thinking", 0, 250),
    "chat-rich-1440-light": ("chat-rich", 0, 900),
    "chat-rich-390-dark": ("chat-phone", 0, 844),
    "chat-conversations-768-light": ("chat-list", 0, 340),
    "chat-pace-768-light": ("chat-pace", 400, 690),
    "chat-settings-768-light": ("chat-settings", 230, 790),
    "chat-lost-768-light": ("chat-lost", 680, 1024),
    "tour-3-390-dark": ("tour-phone", 0, 844),
}
TOUR_STEP_S: Final = 15.0
CARD: Final = "document.querySelector('#tour')"

Pictures = dict[str, bytes]


async def settled(page: Page) -> bytes:
    """The page, once its motion is over."""
    await page.evaluate(
        """Promise.allSettled(document.getAnimations()
            .filter(({ effect }) => effect.getTiming().iterations !== Infinity)
            .map(({ finished }) => finished)).then(() => 0)"""
    )
    return await page.screenshot()


async def dialog(page: Page, opens: str) -> bytes:
    """A dialog that an expression opens; it is closed again."""
    await page.evaluate(opens)
    await page.until("document.querySelector('dialog[open]')")
    png = await settled(page)
    await page.evaluate("document.querySelector('dialog').close()")
    await page.until("!document.querySelector('dialog[open]') && !document.querySelector('dialog')")
    return png


def key(name: str, **more: bool) -> str:
    """An expression that presses a key outside of every field."""
    options = ", ".join(f"{option}: true" for option in more)
    return (
        "document.activeElement.blur(), document.body.dispatchEvent(new KeyboardEvent('keydown', "
        f"{{ key: {name!r}, bubbles: true, {options} }}))"
    )


async def chat_states(reader: Reader) -> AsyncIterator[tuple[str, bytes]]:
    """The states of the chat page, by name."""
    page, server = reader.page, reader.server
    yield "welcome", await settled(page)
    yield "settings", await dialog(page, key(",", ctrlKey=True))
    yield "shortcuts", await dialog(page, key("?"))
    await page.click(".pace-button")
    yield "pace", await settled(page)
    opens = "document.querySelector('#pace-panel > .button').click()"
    yield "reading-test", await dialog(page, opens)
    server.step_s = 0.4
    scripted_server.ANSWER = ANSWER
    await reader.ask("What is 348 + 275? Hold on.", pace=10)
    await page.until("document.querySelector('.thoughts-text')?.innerText.length > 60")
    yield "thinking", await settled(page)
    server.step_s = 0.01
    await page.until(f"{LAST}?.innerText.length > 120")
    yield "answering", await settled(page)
    await reader.stop()
    yield "stopped", await settled(page)
    await answered(reader, "What is 348 + 275?")
    await page.evaluate("document.querySelector('.turn:last-child .delivery-line').click()")
    yield "done", await settled(page)
    await page.evaluate("document.querySelector('.turn:last-child .delivery-line').click()")
    scripted_server.ANSWER = RICH
    await answered(reader, "Show me all that Markdown can do.")
    await reader.settle()
    await show(page, "")
    yield "rich", await settled(page)
    await show(page, " table")
    yield "rich-end", await settled(page)
    if not await reader.get("!!document.querySelector('.row-more')"):
        await page.click("header [aria-label=Conversations]")
    await page.until("document.querySelector('.row-more')")
    await page.click(".row-more")
    await page.until("document.querySelector('.row-menu')")
    yield "conversations", await settled(page)
    await page.press(*ESCAPE)
    if await reader.get("!!document.querySelector('.curtain')"):
        await page.press(*ESCAPE)
    scripted_server.ANSWER = ANSWER
    await reader.ask("fail in the middle")
    await page.until("document.querySelector('.turn:last-child .error-card')")
    yield "error", await settled(page)
    await reader.ask("oversize")
    await page.until("document.querySelectorAll('.error-card').length > 1")
    yield "too-long", await settled(page)
    server.ready = False
    await reader.ask("Why?")
    await page.until(f"{TEXT}.includes('No engine is ready yet')")
    yield "held", await settled(page)
    await server.break_sockets()
    await page.evaluate("dispatchEvent(new Event('offline'))")
    await page.until("document.querySelector('.banner')")
    yield "lost", await settled(page)


async def answered(reader: Reader, question: str) -> None:
    """Ask, and wait for the whole answer."""
    turns = await reader.get(TURNS)
    await reader.ask(question)
    await reader.page.until(f"{TURNS} === {turns + 1} && {DONE}")


async def show(page: Page, part: str) -> None:
    """Scroll to a part of the last turn, at once."""
    selector = f".turn:last-child{part}"
    await page.evaluate(
        f"document.querySelector({selector!r}).scrollIntoView({{ behavior: 'instant' }})"
    )
    await asyncio.sleep(0.3)


ANSWER: Final = scripted_server.ANSWER


async def chat(browser: Chromium, width: int, theme: str) -> Pictures:
    """The chat page."""
    found = {}
    async with ScriptedServer() as server, browser.page() as page:
        await page.resize(width, SIZES[width])
        await page.prefer(theme)
        await page.go(server.url)
        await page.until(OPEN)
        async for state, png in chat_states(Reader(page, server)):
            found[f"chat-{state}-{width}-{theme}.png"] = png
    async with ScriptedServer(api_key="secret") as server, browser.page() as page:
        await page.resize(width, SIZES[width])
        await page.prefer(theme)
        await page.go(server.url)
        await page.until("document.querySelector('.key-form')")
        found[f"chat-key-{width}-{theme}.png"] = await settled(page)
    return found


async def ops(browser: Chromium, width: int, theme: str) -> Pictures:
    """The operations page with an invented cluster."""
    found = {}
    for instances, requests, name in ((8, 0, "empty"), (8, 240, "load")):
        async with OpsFeed(instances, requests) as feed, browser.page() as page:
            await page.resize(width, SIZES[width])
            await page.prefer(theme)
            await page.go(feed.url)
            await page.until("document.querySelectorAll('#charts canvas').length === 8")
            found[f"ops-{name}-{width}-{theme}.png"] = await ops_shots.picture(page, width)
            if requests:
                for state, png in (await ops_shots.states(page, feed, width)).items():
                    found[f"ops-{state}-{width}-{theme}.png"] = png
    return found


async def tour(browser: Chromium, url: str) -> Pictures:
    """The tour on a real demonstration. Each step is seen in all sizes and both themes."""
    found = {}
    async with browser.page() as page:
        await page.go(f"{url}/ops?tour")
        for step in range(1, TOUR_STEPS + 1):
            await page.until(f"{CARD}?.innerText.includes('Step {step} of')")
            await asyncio.sleep(TOUR_STEP_S)
            for width, height in SIZES.items():
                for theme in THEMES:
                    await page.resize(width, height)
                    await page.prefer(theme)
                    await asyncio.sleep(1.5)
                    found[f"tour-{step}-{width}-{theme}.png"] = await page.screenshot()
            await page.evaluate(f"{CARD}.querySelector('[data-do=next]').click()")
        await page.until(f"!{CARD}")
        if page.complaints:
            raise PageError("\n".join(page.complaints))
    return found


def small(png: bytes, top: int, bottom: int) -> bytes:
    """A part of a picture, with fewer colours."""
    out = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image = image.crop((0, top, image.width, bottom))
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def sheet(pictures: list[bytes]) -> bytes:
    """Pictures side by side."""
    images = [Image.open(io.BytesIO(png)).convert("RGB") for png in pictures]
    small = [i.resize((round(i.width * SHEET_HEIGHT / i.height), SHEET_HEIGHT)) for i in images]
    whole = Image.new("RGB", (sum(i.width + 8 for i in small), SHEET_HEIGHT), "magenta")
    left = 0
    for image in small:
        whole.paste(image, (left, 0))
        left += image.width + 8
    out = io.BytesIO()
    whole.save(out, "PNG")
    return out.getvalue()


async def each(take: Callable[[Chromium, int, str], Coroutine[Any, Any, Pictures]]) -> Pictures:
    """The pictures of a page in all sizes and both themes."""
    path = find()
    assert path is not None, "no Chromium or Chrome on the PATH"
    found: Pictures = {}
    async with Chromium.start(path) as browser:
        for width in SIZES:
            for theme in THEMES:
                found |= await take(browser, width, theme)
    return found


def of_tour() -> Pictures:
    """The pictures of the tour."""
    path = find()
    assert path is not None, "no Chromium or Chrome on the PATH"

    async def take(url: str) -> Pictures:
        async with Chromium.start(path) as browser:
            return await tour(browser, url)

    with (
        tempfile.TemporaryDirectory(prefix="pascal-shots-") as folder,
        Server(Path(folder), workers=8, extra=("--load=off",), command="demo") as server,
    ):
        return asyncio.run(take(server.url))


TAKES: Final[dict[str, Callable[[], Pictures]]] = {
    "chat": lambda: asyncio.run(each(chat)),
    "ops": lambda: asyncio.run(each(ops)),
    "tour": of_tour,
}


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.web.shots", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=TAKES)
    parser.add_argument("--docs", type=Path, help="also write those of the docs into this folder")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in [args.only] if args.only else TAKES:
        found = TAKES[name]()
        sheets: dict[str, list[bytes]] = {}
        for file, png in found.items():
            (args.folder / file).write_bytes(png)
            if args.docs and (found_in := DOCS.get(file.removesuffix(".png"))):
                there, top, bottom = found_in
                (args.docs / f"{there}.png").write_bytes(small(png, top, bottom))
            sheets.setdefault(file.rsplit("-", 2)[0], []).append(png)
        for state, pictures in sheets.items():
            (args.folder / f"sheet-{state}.png").write_bytes(sheet(pictures))
        print(f"{name}: {len(found)} pictures, {len(sheets)} sheets in {args.folder}")


if __name__ == "__main__":
    main()
