"""``pascal check``: find out whether `serve` could start, and print the resolved configuration."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from gateway import config as configuration
from gateway.launchers import preflight
from pascal import config_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``pascal check``: those of `serve`."""
    config_flags.add_config_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Make the checks of `serve`, and print the configuration as TOML without secrets.

    :return: the exit status: 0, 1 if `serve` could not start here, 2 if the configuration is wrong.
    """
    try:
        config = config_flags.config_of(args)
        preflight.check(config)
    except configuration.ConfigError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 2
    except preflight.PreflightError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 1
    for table in configuration.TABLES:
        print(f"[{table}]")
        for key, value in dataclasses.asdict(getattr(config, table)).items():
            print(
                f"{key} = {_toml('(hidden)' if key in configuration.SECRETS and value else value)}"
            )
        print()
    print(f"# model loaded from: {config.model_path}")
    print(f"# model name in the API: {config.served_model_name}")
    return 0


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)
