"""Commands whose modules are imported when they are used."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A command: its module, which has ``add_arguments`` and ``run``, and one line of help."""

    module: str
    help: str


class CommandParser(argparse.ArgumentParser):
    """The parser of a command: gets its arguments from the command's module when it parses."""

    def __init__(self, *, module: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._module = module

    def parse_known_args(  # type: ignore[override]  # argparse overloads it by the namespace's type
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Complete the parser, then parse."""
        self.complete()
        return super().parse_known_args(args, namespace)

    def complete(self) -> None:
        """Import the command's module and add its arguments, unless that is done."""
        if self._module:
            command = import_module(self._module)
            self._module = ""
            command.add_arguments(self)
            self.set_defaults(run=getattr(command, "run", None))


def add_commands(
    parser: argparse.ArgumentParser, commands: Mapping[str, Command], *, metavar: str
) -> None:
    """Add ``commands`` by name; one of them is then required."""
    which = parser.add_subparsers(required=True, metavar=metavar, parser_class=CommandParser)
    for name, command in commands.items():
        which.add_parser(name, help=command.help, module=command.module)
