"""``pascal keys add``: make an API key, store its digest, and print it."""

from __future__ import annotations

import argparse
import sys

from gateway.keys.making import NAME, new_key
from gateway.store import PRIORITIES, SCOPES, KeyLimits, add_key
from pascal.keys import file

_MOST = 10**12  # of any limit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``pascal keys add``."""
    parser.add_argument("name", metavar="NAME", type=_name, help="what to call the key")
    parser.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        dest="scopes",
        help="what it may do: chat (the default) is all of /v1, operations reads /metrics and "
        "/admin, admin manages instances; can be repeated",
    )
    for flag, text in (
        ("--requests-per-minute", "most requests that begin in any minute"),
        ("--tokens-per-minute", "most tokens of prompts and outputs in any minute"),
        ("--tokens-per-day", "most tokens from midnight to midnight, UTC"),
        ("--concurrent", "most responses that are generated at a time"),
    ):
        parser.add_argument(flag, type=_limit, metavar="NUMBER", help=f"{text} (default: no limit)")
    parser.add_argument(
        "--priority",
        choices=PRIORITIES,
        default="normal",
        help="low leaves the last fifth of the server's limits to others (default: normal)",
    )
    file.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Add a key. Its text alone goes to standard output; :return: the exit status."""
    limits = KeyLimits(
        requests_per_minute=args.requests_per_minute,
        tokens_per_minute=args.tokens_per_minute,
        tokens_per_day=args.tokens_per_day,
        concurrent=args.concurrent,
    )
    text, key = new_key(args.name, args.scopes or ["chat"], limits, args.priority)

    def tell(_: None, place: str) -> int:
        print(f"Key '{key.name}' ({key.key_id}) is in {place}.", file=sys.stderr)
        print("Keep its text, it is not shown again:", file=sys.stderr, flush=True)
        print(text)
        return 0

    return file.run(args, lambda connection: add_key(connection, key), tell, create=True)


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name: 1 to 64 letters, digits, '.', '_' and '-', which do not begin "
            "with 'key_' or a sign"
        )
    return text


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:20]) <= _MOST):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {_MOST}")
    return int(text)
