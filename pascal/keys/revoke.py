"""``pascal keys revoke``: let an API key be used no more."""

from __future__ import annotations

import argparse
import sys
import time

from gateway.store import StoredKey, revoke_key
from pascal.keys import file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``pascal keys revoke``."""
    parser.add_argument("key", metavar="KEY", help="the name of a key, or its id")
    file.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Revoke a key; :return: the exit status."""

    def tell(key: StoredKey | None, place: str) -> int:
        if key is None:
            print(f"pascal: {place} has no valid key '{args.key}'", file=sys.stderr)
            return 1
        print(f"Key '{key.name}' ({key.key_id}) is revoked.")
        return 0

    return file.run(args, lambda connection: revoke_key(connection, args.key, time.time()), tell)
