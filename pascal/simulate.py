"""``pascal simulate``: clusters in virtual time."""

from __future__ import annotations

import argparse

from pascal.commands import Command, add_commands

_COMMANDS = {
    "run": Command(
        "bench.simulator.run.command",
        "simulate a cluster: how many GPUs, which policy, which settings",
    ),
    "calibrate": Command(
        "bench.validation.calibrate", "make a device profile from the step log of a worker"
    ),
    "validate": Command(
        "bench.validation.command",
        "run the same traces on engines and in virtual time, and compare",
    ),
    "paper": Command(
        "bench.paper.command", "reproduce the evaluation of the paper, and list the differences"
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``pascal simulate``."""
    add_commands(parser, _COMMANDS, metavar="COMMAND")
