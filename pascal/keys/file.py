"""The store of keys that the flags of a command name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TypeVar

from gateway.config import ConfigError
from gateway.store import Connection, KeyNotAdded, StoreUnusable, key_file, name_of
from pascal import config_flags

Done = TypeVar("Done")

_TABLES = ("server", "model", "workers", "pacing", "launcher")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where the store is: those of the configuration."""
    config_flags.add_config_flags(parser, without=_TABLES)


def run(
    args: argparse.Namespace,
    work: Callable[[Connection], Done],
    tell: Callable[[Done, str], int],
    *,
    create: bool = False,
) -> int:
    """Do something in one transaction of the store, and tell what was done once it is stored.

    :param tell: prints it, given where the store is; an output that fails must not undo what was
        done.
    :param create: make a SQLite file if it is not there.
    :return: what ``tell`` returns, or 1 if the store cannot be used or nobody reads the output, or
        2 if the configuration is wrong.
    """
    try:
        place = config_flags.config_of(args).store_place
        with key_file(place, create=create) as connection:
            done = work(connection)
    except ConfigError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 2
    except (StoreUnusable, KeyNotAdded) as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 1
    try:
        return tell(done, name_of(place))
    except BrokenPipeError:
        return 1
