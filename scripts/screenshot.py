"""Screenshots of the chat page at work, for the documentation.

    python scripts/screenshot.py http://127.0.0.1:8000/ docs/images

Asks the served model one question in a headless Chromium, and writes `chat-answering.png` (in the
middle of the answer) and `chat-done.png` (after it). ``--dark`` and ``--width`` vary the look.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from chromium import Chromium, Page, PageError, find

HEIGHT = 740
PHONE_HEIGHT = 740


async def take(page: Page, url: str, question: str) -> dict[str, bytes]:
    """Ask ``question`` at ``url``; :return: the pictures by file name."""
    await page.go(url)
    await page.until("document.querySelector('.connection')?.dataset.status === 'open'")
    await page.evaluate("document.querySelector('.composer textarea').focus()")
    await page.type(question)
    await page.press("Enter", 13)
    await page.until("document.querySelector('.answer.live')?.innerText.length > 110")
    answering = await page.screenshot()
    await page.until("document.querySelector('.turn[data-state=completed] .actions')")
    return {"chat-answering.png": answering, "chat-done.png": await page.screenshot()}


async def run(arguments: argparse.Namespace, browser: str) -> dict[str, bytes]:
    """The pictures by file name; raises `PageError` if the page reported an error."""
    async with Chromium.start(browser) as chromium, chromium.page() as page:
        phone = arguments.width < 500
        await page.resize(arguments.width, PHONE_HEIGHT if phone else HEIGHT, scale=2)
        await page.prefer("dark" if arguments.dark else "light")
        pictures = await take(page, arguments.url, arguments.question)
        if page.complaints:
            raise PageError("\n".join(page.complaints))
    return pictures


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="address of the chat page")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--question", default="What is 348 + 275?")
    parser.add_argument("--dark", action="store_true", help="in the dark colour scheme")
    parser.add_argument("--width", type=int, default=1040, help="of the window, CSS pixels")
    arguments = parser.parse_args()
    browser = find()
    if browser is None:
        print("no Chromium or Chrome on the PATH", file=sys.stderr)
        return 1
    pictures = asyncio.run(run(arguments, browser))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        (arguments.folder / name).write_bytes(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
