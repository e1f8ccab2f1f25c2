"""Screenshots of the chat page at work, for the documentation.

    python -m scripts.screenshot http://127.0.0.1:8000/ docs/images

asks the served model one question in a headless Chromium and writes `chat-answering.png` (in the
middle of the answer) and `chat-done.png` (after it). ``--dark`` and ``--width`` vary the look.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from scripts.chromium import Chromium, Page, find

HEIGHT = 740
PHONE_HEIGHT = 740


async def take(page: Page, url: str, folder: Path, question: str) -> None:
    """Ask ``question`` at ``url`` and write both pictures to ``folder``."""
    await page.go(url)
    await page.until("document.querySelector('.connection')?.dataset.status === 'open'")
    await page.evaluate("document.querySelector('.composer textarea').focus()")
    await page.type(question)
    await page.press("Enter", 13)
    await page.until("document.querySelector('.answer.live')?.innerText.length > 110")
    await page.screenshot(folder / "chat-answering.png")
    await page.until("document.querySelector('.turn[data-state=completed] .actions')")
    await page.screenshot(folder / "chat-done.png")


async def run(arguments: argparse.Namespace) -> int:
    """Exit status."""
    browser = find()
    if browser is None:
        print("no Chromium or Chrome on the PATH", file=sys.stderr)
        return 1
    async with Chromium.start(browser) as chromium, chromium.page() as page:
        phone = arguments.width < 500
        await page.resize(arguments.width, PHONE_HEIGHT if phone else HEIGHT, scale=2)
        await page.prefer("dark" if arguments.dark else "light")
        await take(page, arguments.url, arguments.folder, arguments.question)
        if page.complaints:
            print("\n".join(page.complaints), file=sys.stderr)
            return 1
    return 0


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="address of the chat page")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--question", default="What is 348 + 275?")
    parser.add_argument("--dark", action="store_true", help="in the dark colour scheme")
    parser.add_argument("--width", type=int, default=1040, help="of the window, CSS pixels")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
