"""``pascal simulate``: a cluster that is not there, in virtual time."""

from __future__ import annotations

import argparse

from pascal.commands import Command, add_commands

_COMMANDS = {
    "run": Command(
        "bench.simulator.run.command",
        "how a cluster would fare: how many GPUs, which policy, which settings",
    ),
    "calibrate": Command(
        "bench.validation.calibrate", "a device profile from the step log of a running worker"
    ),
    "validate": Command(
        "bench.validation.command",
        "the same traces on engines and in virtual time: how far apart",
    ),
    "paper": Command(
        "bench.paper.command", "the paper's evaluation again, with figures and what differs"
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``pascal simulate``."""
    add_commands(parser, _COMMANDS, metavar="COMMAND")
