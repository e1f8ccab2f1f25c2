"""How long the script of the operations page takes in a frame, with an invented cluster.

    python -m tests.web.ops.frames --instances 64 --requests 2000 --seconds 30

The browser draws without a graphics processor, on the cores of this machine. CPU time is what a
quiet machine takes; the time on the clock has that of other programs in it. With ``--open``
the life of a request, the table and the totals are open.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

from chromium import Chromium, find  # noqa: E402

from tests.web.ops.feed import OpsFeed  # noqa: E402

_WARM_S = 3.0
_ANSWER_S = 60.0
_OPEN = """(() => {
    for (const id of ["table", "totals"]) document.getElementById(id).open = true;
    const map = document.getElementById("map");
    const { left, top } = map.getBoundingClientRect();
    map.dispatchEvent(new MouseEvent("click", { clientX: left + 90, clientY: top + 9 }));
})()"""
# Names of the browser's own: the callback of a frame, one of a message or timer, and what follows.
_EVENTS = {
    "FireAnimationFrame": "script of a frame",
    "FunctionCall": "any script",
    "Layout": "layout",
    "Paint": "paint",
}


async def measure(
    instances: int, requests: int, seconds: float, *, opened: bool
) -> list[dict[str, Any]]:
    """The events of the browser's trace."""
    path = find()
    assert path is not None, "no Chromium or Chrome on the PATH"
    async with (
        OpsFeed(instances, requests, 1800) as feed,
        Chromium.start(path) as browser,
        browser.page() as page,
    ):
        await page.resize(1440, 1000)
        await page.go(feed.url)
        await page.until("operations.feed.requests.size > 0")
        await asyncio.sleep(_WARM_S)
        if opened:
            await page.evaluate(_OPEN)
            await page.until("document.querySelectorAll('#requests button').length > 0")
            await page.evaluate("document.querySelector('#requests button').click()")
            await page.until("document.querySelectorAll('#lane rect').length > 0")
        config = {"includedCategories": ["devtools.timeline"], "excludedCategories": ["*"]}
        events: list[dict[str, Any]] = []
        complete = asyncio.Event()

        def take(method: str, params: dict[str, Any]) -> None:
            if method == "Tracing.dataCollected":
                events.extend(params["value"])
            elif method == "Tracing.tracingComplete":
                complete.set()

        page.on_other = take
        await page.command("Tracing.start", transferMode="ReportEvents", traceConfig=config)
        await asyncio.sleep(seconds)
        await page.command("Tracing.end")
        await asyncio.wait_for(complete.wait(), _ANSWER_S)
        assert page.complaints == []
        return events


def main() -> None:
    """Print percentiles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--instances", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--open", action="store_true", help="with everything unfolded")
    chosen = parser.parse_args()
    measured = measure(chosen.instances, chosen.requests, chosen.seconds, opened=chosen.open)
    events = asyncio.run(measured)
    for name, words in _EVENTS.items():
        found = [event for event in events if event["name"] == name and "tdur" in event]
        print(f"{words}, {len(found)} times, ms:")
        for field, clock in (("tdur", "CPU"), ("dur", "clock")):
            values = sorted(event[field] / 1000 for event in found)
            if values:
                p50, p99 = (values[int(len(values) * share)] for share in (0.5, 0.99))
                print(f"  {clock}: p50 {p50:.1f} p99 {p99:.1f} max {values[-1]:.1f}")


if __name__ == "__main__":
    main()
