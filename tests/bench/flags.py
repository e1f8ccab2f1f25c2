"""Options as the command line gives them."""

from __future__ import annotations

import argparse

from bench.options import Options, add_arguments, options_from


def options(*flags: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return options_from(parser.parse_args(flags))
