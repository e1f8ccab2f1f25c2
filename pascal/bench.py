"""``pascal bench``: measurements of policies, migration, delivery, agents, and the gateway."""

from __future__ import annotations

import argparse

from pascal.commands import Command, add_commands

_COMMANDS = {
    "scheduler": Command(
        "bench.policies.command", "compare scheduling policies: benefit and overhead"
    ),
    "migration": Command(
        "bench.migration.command", "measure migrations between engines: duration and benefit"
    ),
    "pacing": Command(
        "bench.pacing.command", "measure the delivery of tokens: CPU time, lateness, memory"
    ),
    "agents": Command(
        "bench.agents.command", "compare ways to treat the calls of agents beside chats"
    ),
    "conversations": Command(
        "bench.conversations.command", "hold long conversations: is their KV found again?"
    ),
    "overload": Command("bench.overload", "offer more than the engines can generate in time"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``pascal bench``."""
    add_commands(parser, _COMMANDS, metavar="BENCHMARK")
