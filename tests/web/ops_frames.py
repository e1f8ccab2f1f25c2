"""How long the script of the operations page takes in a frame, with an invented cluster.

    python -m tests.web.ops_frames --instances 64 --requests 2000 --seconds 30

The browser draws without a graphics processor, on the cores of this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from chromium import Chromium, find  # noqa: E402

from tests.web.ops_feed import OpsFeed  # noqa: E402

_WARM_S = 3.0


async def measure(instances: int, requests: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of script in each frame and for each message, and between frames."""
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
        await page.evaluate("operations.spent.length = operations.taken.length = 0")
        await asyncio.sleep(seconds)
        assert page.complaints == []
        found: dict[str, list[float]] = await page.evaluate(
            "({ frames: operations.spent, messages: operations.taken })"
        )
        return found


def main() -> None:
    """Print percentiles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--instances", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30)
    chosen = parser.parse_args()
    found = asyncio.run(measure(chosen.instances, chosen.requests, chosen.seconds))
    for name, values in found.items():
        cuts = statistics.quantiles(values, n=100)
        print(
            f"{name}: {len(values)}, ms p50 {cuts[49]:.1f} p99 {cuts[98]:.1f} max {max(values):.1f}"
        )


if __name__ == "__main__":
    main()
