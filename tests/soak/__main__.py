"""``python -m tests.soak --minutes 60``: looks for slow growth in a gateway under clumsy readers.

Starts ``pascal serve`` with two emulated workers. Readers read, stall, stop, vanish, come back and
send garbage (`tests.soak.clients.places`), and every few minutes a worker is killed. Each reader
checks its own stream.

From outside, the soak watches memory, descriptors, tasks, sessions, log and store
(`tests.soak.growth.series`). After the warm-up none of them may grow (`tests.soak.growth.slopes`).
At the end the readers leave, and everything must be as it was before the first one.

Ends with status 0 if all checks passed, 1 if one failed, 2 if the run was impossible.
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
                outcome = asyncio.run(soak(server, Path(folder), plan))
        except (AssertionError, CannotRun) as error:
            print(f"soak: the gateway does not serve: {error}", file=sys.stderr)
            return 2
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("soak: interrupted", file=sys.stderr)
            return 2
        if args.log is not None:
            args.log.write_text(server.output(), encoding="utf-8")
        outcome.trouble += after_the_end(server, outcome.pids, outcome.kills)
    report.show(outcome, Console(width=150))
    if args.json is not None:
        report.write(outcome, args.json)
    return 1 if outcome.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--readers", type=int, default=60, help="number of concurrent readers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-every", type=float, default=240.0, help="seconds; 0: no kills")
    parser.add_argument("--leak", choices=sorted(leaks.KINDS), help="leak on purpose")
    parser.add_argument("--allow-missing", action="store_true", help="some metrics may be absent")
    parser.add_argument("--no-slopes", action="store_true", help="judge only what is left")
    parser.add_argument("--log", type=Path, help="write the output of the gateway to this file")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
