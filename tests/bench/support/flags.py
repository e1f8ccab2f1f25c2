"""Options from flags of the command line."""

from __future__ import annotations

import argparse

from bench.load.flags import add_arguments
from bench.load.options import Options, options_from


def options(*flags: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return options_from(parser.parse_args(flags))
