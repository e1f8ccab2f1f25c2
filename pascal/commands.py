"""Commands that import their modules only when they are used."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A command.

    Its module has ``add_arguments`` and, unless it has subcommands, ``run``. ``help`` is one line.
    """

    module: str
    help: str


class CommandParser(argparse.ArgumentParser):
    """The parser of a command; it asks the command's module for arguments when it parses."""

    def __init__(self, *, module: str = "", **options: Any) -> None:
        options.setdefault("allow_abbrev", False)  # a new flag must not change an old command line
        super().__init__(**options)
        self._module = module

    def parse_known_args(  # type: ignore[override]  # argparse overloads it by the namespace's type
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Complete the parser, then parse."""
        self.complete()
        return super().parse_known_args(args, namespace)

    def complete(self) -> None:
        """Import the command's module and add its arguments, once."""
        if self._module:
            command = import_module(self._module)
            self._module = ""
            command.add_arguments(self)
            self.set_defaults(run=getattr(command, "run", None))


def add_commands(
    parser: argparse.ArgumentParser, commands: Mapping[str, Command], *, metavar: str
) -> None:
    """Add ``commands`` by name; the command line must then name one of them."""
    which = parser.add_subparsers(required=True, metavar=metavar, parser_class=CommandParser)
    for name, command in commands.items():
        which.add_parser(name, help=command.help, module=command.module)
