"""``python -m tests.soak --minutes 60``: a gateway under clumsy readers, for as long as you like.

Starts ``pascal serve`` with two emulated workers and lets readers come that read, stall, stop,
vanish, come back and send garbage (`tests.soak.clients.crowd`); every few minutes it kills a
worker. Every reader checks its own stream. From outside it watches memory, descriptors, tasks,
sessions, log and store (`tests.soak.growth.series`), and after the warm-up none of them may grow
(`tests.soak.growth.slopes`). In the end the readers leave, and everything must be as it was before
the first came.

Ends with status 0 if all held, 1 if not, 2 if the run could not be made.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.soak import leaks
from tests.soak.clients.stage import nice, settings
from tests.soak.growth import report
from tests.soak.run import CannotRun, Plan, after_the_end, soak
from tests.support.server import Server


def main() -> int:
    """Entry point; returns the exit status."""
    args = _arguments()
    plan = Plan.of(args)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        module = ("tests.soak.leaks", args.leak) if args.leak else ("pascal",)
        extra = tuple(f"--set={key}={value}" for key, value in settings(plan.ttl_s).items())
        server = Server(Path(folder), workers=2, extra=extra, module=module)
        try:
            with server:
                nice(5)
                found = asyncio.run(soak(server, Path(folder), plan))
        except (AssertionError, CannotRun) as error:
            print(f"soak: the gateway does not serve: {error}", file=sys.stderr)
            return 2
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("soak: interrupted", file=sys.stderr)
            return 2
        if args.log is not None:
            args.log.write_text(server.output(), encoding="utf-8")
        found.trouble += after_the_end(server, found.pids, found.kills)
    report.show(found, Console(width=150))
    if args.json is not None:
        report.write(found, args.json)
    return 1 if found.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--readers", type=int, default=60, help="at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-every", type=float, default=240.0, help="seconds; 0: no kills")
    parser.add_argument("--leak", choices=sorted(leaks.KINDS), help="leak on purpose")
    parser.add_argument("--allow-missing", action="store_true", help="metrics may be absent")
    parser.add_argument("--no-slopes", action="store_true", help="judge only what is left")
    parser.add_argument("--log", type=Path, help="write what the gateway printed there")
    parser.add_argument("--json", type=Path, help="write everything there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
