"""``python -m tests.web.figures``: measure the chat page in Chromium, beside its limits.

The figures are worth something on a machine that does nothing else. Ends with status 1 if a limit
is not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))
from tests.web.figures.measures import FIGURES


async def measure(names: Sequence[str]) -> bool:
    """Print each figure as it comes; whether all limits are kept."""
    kept = True
    for name in names:
        for figure in await FIGURES[name]():
            sign = "  " if figure.kept else "! "
            print(f"{sign}{figure.name:34} {figure.limit:30} {figure.measured}", flush=True)
            kept = kept and figure.kept
    print("all limits kept" if kept else "limits marked with ! are not kept")
    return kept


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.web.figures", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*FIGURES], default=[*FIGURES])
    return 0 if asyncio.run(measure(parser.parse_args().only)) else 1


if __name__ == "__main__":
    sys.exit(main())
