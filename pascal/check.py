"""``pascal check``: check whether `serve` could start, and print the resolved configuration."""

from __future__ import annotations

import argparse
import sys

from gateway import config as configuration
from gateway.launchers import preflight
from pascal import config_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``pascal check``, which are those of `serve`."""
    config_flags.add_config_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Make the checks of `serve` and print the configuration as TOML, without secrets.

    :return: the exit status: 0, 1 if `serve` could not start here, 2 if the configuration is wrong.
    """
    try:
        config = config_flags.config_of(args)
        preflight.check(config)
        described = preflight.describe_model(config)
    except configuration.ConfigError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 2
    except preflight.PreflightError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 1
    print(configuration.as_toml(config))
    print(f"# model loaded from: {config.model_path}")
    print(f"# model name in the API: {config.served_model_name}")
    for line in described:
        print(f"# {line}")
    return 0
