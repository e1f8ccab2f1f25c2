"""``python -m tests.soak.crowd --readers 1000``: no reader suffers from those who misbehave.

Starts ``pascal serve``, and readers over WebSocket and SSE that read at ten tokens a second. Of
these readers 5% stall, 5% drop their connection and come back, 10% press Stop, and 1% send garbage.
The rest are healthy.

The run passes if every response of a healthy reader has a QoE of at least 0.95 by the times at
which the reader got it, every response is complete and without a hole, every stalled reader is
disconnected with a reason while its response goes on, and every Stop is acknowledged.

The workers follow a script (`tests.soak.crowd.engines`), so that two cores are enough: one for the
gateway, one for workers and clients. ``--emulated`` takes real engines under the emulated profile.
The report says whether the clients kept up.

Ends with status 0 if all checks passed, 1 if one failed, 2 if the run was impossible.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.soak.crowd import report
from tests.soak.crowd.run import Plan, run
from tests.soak.run import CannotRun

_FULL = (1000, 120.0, 30.0)  # readers, seconds, seconds of the ramp
_QUICK = (100, 30.0, 5.0)


def main() -> int:
    """Entry point; returns the exit status."""
    args = _arguments()
    readers, seconds, ramp_s = _QUICK if args.quick else _FULL
    if args.seconds is not None:
        seconds, ramp_s = args.seconds, min(ramp_s, args.seconds / 2)
    plan = Plan(
        readers=args.readers or readers,
        seconds=seconds,
        ramp_s=ramp_s,
        seed=args.seed,
        emulated=args.emulated,
    )
    if plan.readers < 5:
        print("crowd: --readers: at least 5, one of each kind", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="crowd-") as folder:
            outcome = run(plan, Path(folder), args.log)
    except (AssertionError, CannotRun) as error:
        print(f"crowd: the gateway does not serve: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("crowd: interrupted", file=sys.stderr)
        return 2
    report.show(outcome, Console(width=150))
    if args.json is not None:
        report.write(outcome, args.json)
    return 1 if outcome.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.crowd",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--readers", type=int, help=f"at a time; default: {_FULL[0]}")
    parser.add_argument("--seconds", type=float, help="in which responses begin")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK[0]} readers, a minute")
    parser.add_argument("--emulated", action="store_true", help="real engines, emulated devices")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="write the output of the gateway to this file")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
