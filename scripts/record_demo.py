"""Record the guided tour of `pascal demo` as an animated picture, for the documentation.

    .venv/bin/python scripts/record_demo.py docs/images

Starts the demonstration, clicks through the tour on its operations page in a headless Chromium, and
writes `tour.webp` (the tour, eight times as fast) and `ops.png` (the page during its third step).
Nothing is drawn by hand: what the pictures show has happened. The load is drawn at random, so that
no two recordings are the same. Prints the figures of each step as the card showed them.

It takes three minutes. A machine with other work to do makes emulated instances late.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chromium import Chromium, Page, PageError, find
from PIL import Image

STEPS_S: Final = (18.0, 40.0, 30.0, 25.0, 15.0)  # how long each is looked at
FRAME_S: Final = 2.0  # between two frames of the recording
SHOWN_MS: Final = 250  # how long one is shown: eight times as fast
LAST_MS: Final = 2500  # the last one of a step, so that it can be read
WIDTH: Final = 1280
HEIGHT: Final = 800
SHRUNK: Final = 900  # width of the animated picture
COLOURS: Final = 256  # of a still picture
QUALITY: Final = 38  # of the animated one
START_S: Final = 300.0
CARD: Final = "document.querySelector('#tour')"


@dataclass
class Recording:
    """Frames with how long each is shown, and what the card said."""

    frames: list[Image.Image] = field(default_factory=list)
    shown_ms: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    still: bytes = b""

    def add(self, png: bytes, shown_ms: int) -> None:
        """Add a frame."""
        image = Image.open(io.BytesIO(png)).convert("RGB")
        height = round(image.height * SHRUNK / image.width)
        self.frames.append(image.resize((SHRUNK, height), Image.Resampling.LANCZOS))
        self.shown_ms.append(shown_ms)

    def animated(self) -> bytes:
        """All frames as an animated WebP."""
        out = io.BytesIO()
        first, *others = self.frames
        first.save(
            out, "WEBP", save_all=True, append_images=others, duration=self.shown_ms, loop=0,
            quality=QUALITY, method=4,
        )  # fmt: skip
        return out.getvalue()


async def record(page: Page, url: str) -> Recording:
    """Click through the tour."""
    recording = Recording()
    await page.go(f"{url}/ops")
    await page.until("document.querySelector('#demo [aria-pressed=true]')")
    await page.evaluate("document.querySelector('#window [value=\"60\"]').click()")
    await page.click("[data-do=tour]")
    for number, seconds in enumerate(STEPS_S, 1):
        await page.until(f"{CARD}?.innerText.includes('Step {number} of')")
        ends_s = time.monotonic() + seconds
        while (now := time.monotonic()) < ends_s:
            recording.add(await page.screenshot(), SHOWN_MS)
            await asyncio.sleep(max(0.0, now + FRAME_S - time.monotonic()))
        recording.shown_ms[-1] = LAST_MS
        said = await page.evaluate(f"{CARD}.innerText")
        recording.said.append(re.sub(r"\n+", "\n", said))
        if number == 3:
            recording.still = await still(page)
        await page.evaluate(f"{CARD}.querySelector('[data-do=next]').click()")
    await page.until(f"!{CARD}")
    return recording


async def still(page: Page) -> bytes:
    """The whole page without the card."""
    await page.evaluate(f"{CARD}.hidden = true")
    await page.evaluate("document.querySelector('[data-toured]').removeAttribute('data-toured')")
    await page.evaluate("document.body.style.paddingBottom = 0")
    height = await page.evaluate("document.querySelector('main').getBoundingClientRect().bottom")
    await page.resize(1440, round(height))
    await asyncio.sleep(3.0)
    height = await page.evaluate("document.querySelector('main').getBoundingClientRect().bottom")
    await page.resize(1440, round(height))
    await asyncio.sleep(3.0)
    png = await page.screenshot()
    await page.resize(WIDTH, HEIGHT)
    await page.evaluate(f"{CARD}.hidden = false")
    return small(png)


def small(png: bytes) -> bytes:
    """The same picture with fewer colours."""
    out = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


async def run(browser: str) -> Recording:
    """Start the demonstration, record, and end it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pascal", "demo", "--port=0", "--load=off"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            while not (line := (await process.stdout.readline()).decode()).startswith("  Tour"):
                if not line:
                    raise PageError("the demonstration did not start")
        rest = asyncio.create_task(process.stdout.read())  # so that its pipe does not fill
        url = line.split()[1].partition("/ops")[0]
        async with Chromium.start(browser) as chromium, chromium.page() as page:
            await page.resize(WIDTH, HEIGHT)
            await page.prefer("light")
            recording = await record(page, url)
            if page.complaints:
                raise PageError("\n".join(page.complaints))
        process.send_signal(signal.SIGINT)
        await rest
        await process.wait()
        return recording
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await process.wait()


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    folder: Path = parser.parse_args().folder
    browser = find()
    if browser is None:
        print("no Chromium or Chrome on the PATH", file=sys.stderr)
        return 1
    recording = asyncio.run(run(browser))
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (("tour.webp", recording.animated()), ("ops.png", recording.still)):
        (folder / name).write_bytes(data)
        print(f"{folder / name}: {len(data) / 1e6:.2f} MB")
    print("\n\n".join(recording.said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
