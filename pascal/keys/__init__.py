"""``pascal keys``: API keys in the store of a gateway, which may be running."""

from __future__ import annotations

import argparse

from pascal.commands import Command, add_commands

_COMMANDS = {
    "add": Command("pascal.keys.add", "add an API key, and print it once"),
    "list": Command("pascal.keys.listing", "list the API keys and what was used with them"),
    "revoke": Command("pascal.keys.revoke", "revoke an API key"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``pascal keys``."""
    add_commands(parser, _COMMANDS, metavar="ACTION")
