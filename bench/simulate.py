"""``pascal simulate``: a cluster that is not there, in virtual time.

Each subcommand is a module with ``add_arguments`` and ``run``; none imports an engine before it
runs.
"""

from __future__ import annotations

import argparse
from typing import Protocol

from bench import calibrate, simulate_run, validate


class _Subcommand(Protocol):
    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


_SUBCOMMANDS: dict[str, tuple[_Subcommand, str]] = {
    "run": (simulate_run, "how a cluster would fare: how many GPUs, which policy, which settings"),
    "calibrate": (calibrate, "a device profile from the step log of a running worker"),
    "validate": (validate, "the same traces on engines and in virtual time: how far apart"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``pascal simulate``."""
    which = parser.add_subparsers(dest="simulation", required=True, metavar="COMMAND")
    for name, (module, text) in _SUBCOMMANDS.items():
        module.add_arguments(which.add_parser(name, help=text))


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; :return: the exit status."""
    module, _ = _SUBCOMMANDS[args.simulation]
    return module.run(args)
