"""``pascal drain``: take instances of a running gateway out of service."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from pascal import admin
from pascal.admin import AdminError, Gateway

_POLL_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``pascal drain``."""
    admin.add_arguments(parser)
    parser.add_argument(
        "--restart",
        action="store_true",
        help="then restart its process; several instances are restarted one after another",
    )
    parser.add_argument(
        "--no-wait", action="store_true", help="begin to drain, and do not wait for the end"
    )


def run(args: argparse.Namespace) -> int:
    """Drain instances one after another; return when the last is empty, or has restarted."""
    if args.restart and args.no_wait and len(args.instances) > 1:
        # Without waiting, all would be restarted at once and none could serve.
        print("pascal: --restart with --no-wait takes a single instance", file=sys.stderr)
        return 2
    gateway = Gateway(args)
    try:
        for name in args.instances:
            before = gateway.call("POST", name, "drain", {"restart": args.restart})
            print(f"{name}: draining, {_requests(before['requests'])}", flush=True)
            if not args.no_wait:
                _wait(gateway, name, before, restart=args.restart)
    except AdminError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 1
    return 0


def _wait(gateway: Gateway, name: str, seen: dict[str, Any], *, restart: bool) -> None:
    """Print changes of an instance until it is drained, or serves again.

    This ends, since requests end and the gateway gives up a restart that takes too long.

    :raises AdminError: the instance was not restarted.
    """
    while True:
        now = gateway.call("GET", name)
        state, requests = now["state"], now["requests"]
        if (state, requests) != (seen["state"], seen["requests"]):
            left = f", {_requests(requests)}" if state == "draining" else ""
            print(f"{name}: {state}{left}", flush=True)
        if restart and now.get("error"):
            raise AdminError(now["error"])
        if restart and state in ("drained", "absent"):
            raise AdminError(f"{name} is {state}: its restart was given up")
        if state in ("drained", "serving", "absent"):
            return
        seen = now
        time.sleep(_POLL_S)


def _requests(count: int) -> str:
    return f"{count} request{'s' * (count != 1)} left"
