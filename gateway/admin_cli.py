"""``pascal drain`` and ``pascal undrain``: take instances of a running gateway out of service."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

_POLL_S = 0.5


class AdminError(Exception):
    """The gateway refused, or cannot be reached."""


def add_arguments(parser: argparse.ArgumentParser, *, drain: bool) -> None:
    """The flags of both commands; those of `drain` besides."""
    parser.add_argument("instances", nargs="+", metavar="ID", help="such as worker-0")
    parser.add_argument("--base-url", default="http://127.0.0.1:8080", help="of the gateway")
    parser.add_argument("--api-key", default=None, help="[PASCAL_API_KEY]")
    if drain:
        parser.add_argument(
            "--restart",
            action="store_true",
            help="then start its process again; several are restarted one after another",
        )
        parser.add_argument("--no-wait", action="store_true", help="only begin")


def run_drain(args: argparse.Namespace) -> int:
    """Drain one after another; returns when the last is empty, or back."""
    if args.restart and args.no_wait and len(args.instances) > 1:
        # Nobody would see to it that there is always one that serves.
        print("pascal: --restart with --no-wait takes a single instance", file=sys.stderr)
        return 2
    gateway = _Gateway(args)
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


def run_undrain(args: argparse.Namespace) -> int:
    """Let instances serve again."""
    gateway = _Gateway(args)
    try:
        for name in args.instances:
            print(f"{name}: {gateway.call('POST', name, 'undrain')['state']}")
    except AdminError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 1
    return 0


class _Gateway:
    def __init__(self, args: argparse.Namespace) -> None:
        self._base_url = args.base_url.rstrip("/")
        self._api_key = args.api_key or os.environ.get("PASCAL_API_KEY")

    def call(self, method: str, name: str, action: str = "", body: Any = None) -> dict[str, Any]:
        """:raises AdminError: with the gateway's own words, if it has any."""
        path = f"/admin/instances/{urllib.parse.quote(name, safe='')}"
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        try:
            request = urllib.request.Request(
                f"{self._base_url}{path}{'/' if action else ''}{action}",
                method=method,
                data=json.dumps(body or {}).encode() if method == "POST" else None,
                headers=headers,
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                document: dict[str, Any] = json.loads(answer.read())
                return document
        except urllib.error.HTTPError as error:
            raise AdminError(_message_of(error)) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise AdminError(f"no gateway answers at {self._base_url}: {error}") from error


def _wait(gateway: _Gateway, name: str, seen: dict[str, Any], *, restart: bool) -> None:
    """Print what changes until it is drained, or serves again.

    It ends: requests do, and the gateway gives a restart up that takes too long.

    :raises AdminError: it was to be restarted and was not.
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


def _message_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered {error.code}"
