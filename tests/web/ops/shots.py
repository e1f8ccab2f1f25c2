"""Pictures of the operations page, with an invented cluster.

    python -m tests.web.ops.shots FOLDER

Each state at 1440, 768 and 390 pixels in both themes. ``ops.png`` is the one in the docs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

from chromium import Chromium, Page, PageError, find  # noqa: E402

from tests.web.ops.feed import OpsFeed  # noqa: E402

_SIZES = {1440: 1000, 768: 1024, 390: 844}
_TALLEST = 2600
_SHOWN = "document.querySelectorAll('#charts canvas').length === 8"
_SETTLED_S = 2.0
CLUSTERS = ((1, 20), (8, 240), (64, 2000), (96, 1200))


async def picture(page: Page, width: int) -> bytes:
    """The whole page."""
    await asyncio.sleep(_SETTLED_S)
    height = await page.evaluate("document.documentElement.scrollHeight")
    await page.resize(width, min(_TALLEST, max(height, _SIZES[width])))
    await asyncio.sleep(_SETTLED_S)
    if page.complaints:
        raise PageError("\n".join(page.complaints))
    return await page.screenshot()


async def states(page: Page, feed: OpsFeed, width: int) -> dict[str, bytes]:
    """Pictures of the states that a user can bring about."""
    await page.evaluate("document.querySelector('#table').open = true")
    await page.until("document.querySelectorAll('#table tbody tr').length > 0")
    await page.evaluate("document.querySelector('#table tbody button').click()")
    await page.evaluate("document.getElementById('drain').click()")
    await page.until("document.getElementById('serving').dataset.kind === 'warn'")
    found = {"drawer": await picture(page, width)}
    await page.evaluate("document.querySelector('#requests tbody button').click()")
    await page.until("document.querySelectorAll('#lane rect').length > 0")
    found["lane"] = await picture(page, width)
    await page.evaluate("document.getElementById('close').click()")
    await page.evaluate("document.getElementById('boundaries').value = 'off'")
    await page.evaluate("document.getElementById('boundary-apply').click()")
    await page.evaluate("document.querySelector('#figures button[value=qoe]').click()")
    await page.until("document.querySelectorAll('#worst ol button').length === 3")
    found["worst"] = await picture(page, width)
    await page.press("Escape", 27)
    feed.key = "unknown"
    await feed.cut()
    await page.until("!document.getElementById('key').hidden")
    page.complaints.clear()  # the browser tells of the refusal
    found["key"] = await picture(page, width)
    return found


async def take() -> dict[str, bytes]:
    """All pictures, by file name."""
    path = find()
    assert path is not None, "no Chromium or Chrome on the PATH"
    found = {}
    async with Chromium.start(path) as browser:
        for instances, requests in CLUSTERS:
            for width in _SIZES:
                for theme in ("light", "dark"):
                    async with OpsFeed(instances, requests) as feed, browser.page() as page:
                        await page.resize(width, _SIZES[width])
                        await page.prefer(theme)
                        await page.go(feed.url)
                        await page.until(_SHOWN)
                        name = f"{instances}-{width}-{theme}"
                        found[f"{name}.png"] = await picture(page, width)
                        if instances == 8:
                            for state, data in (await states(page, feed, width)).items():
                                found[f"{name}-{state}.png"] = data
    return {**found, "ops.png": found["8-1440-light.png"]}


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in asyncio.run(take()).items():
        (folder / name).write_bytes(data)
        print(folder / name)


if __name__ == "__main__":
    main()
