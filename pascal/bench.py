"""``pascal bench``: measurements of this software itself."""

from __future__ import annotations

import argparse

from pascal.commands import Command, add_commands

_COMMANDS = {
    "scheduler": Command("bench.policies.command", "policies inside an engine: worth and cost"),
    "migration": Command(
        "bench.migration.command", "moves to another engine: what they take and are worth"
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``pascal bench``."""
    add_commands(parser, _COMMANDS, metavar="BENCHMARK")
