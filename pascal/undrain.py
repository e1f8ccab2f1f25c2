"""``pascal undrain``: let drained instances of a running gateway serve again."""

from __future__ import annotations

import argparse
import sys

from pascal.admin import AdminError, Gateway, add_arguments

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    """Let instances serve again; :return: the exit status."""
    gateway = Gateway(args)
    try:
        for name in args.instances:
            print(f"{name}: {gateway.call('POST', name, 'undrain')['state']}")
    except AdminError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 1
    return 0
