"""``pascal serve``: start the workers and the gateway, and serve until a signal."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable

from pascal import config_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``pascal serve``."""
    config_flags.add_config_flags(parser)


def run(args: argparse.Namespace, announce: Callable[[str], None] | None = None) -> int:
    """Serve.

    :param announce: gets each line for the terminal, instead of `say`.
    :return: the exit status: 0 after a clean stop, 1 if something is missing on this machine or
        the server cannot go on, 2 if the configuration is wrong.
    """
    from gateway import app, logs
    from gateway.config import ConfigError
    from gateway.launchers import preflight
    from gateway.launchers.local import CannotServe
    from gateway.store import StoreUnusable
    from workers import loop

    try:
        config = config_flags.config_of(args)
    except ConfigError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 2
    logs.configure(config.server.log_level)
    try:
        preflight.check(config)
        loop.run(app.serve(config, announce=announce or say))
    except (preflight.PreflightError, CannotServe, OSError, StoreUnusable) as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 1
    return 0


def say(line: str) -> None:
    """Print a line for the terminal."""
    with contextlib.suppress(OSError):  # a closed pipe, or a full disk
        print(line, flush=True)
