"""Command lines as pages write them, and the parsers that they have to please."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn
from unittest import mock

from gateway import config as configuration
from pascal.commands import CommandParser
from tests.docs.pages import Found, code_blocks, code_spans, docstring_spans

# At the start of a line or of a code span: `$ `, variables, a unit file's key, a container, a path.
_COMMAND = re.compile(
    r"(?:\$ )?(?:ExecStart=)?(?:[A-Z_]+=\S* )*(?:kubectl exec \S+ -- )?(?:\S*/)?"
    r"(?P<program>pascal|python -m|make serve)\b(?P<rest>(?: .*)?)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Command:
    """One command line."""

    found: Found
    program: str  # "pascal", or the module after `python -m`
    words: tuple[str, ...]

    @property
    def schematic(self) -> bool:
        """Whether it shows what may be written instead of what to type."""
        return any(re.search(r"[\[\]|]|\.\.\.|^[A-Z]{1,4}$", word) for word in self.words)


class _Parsed(BaseException):
    """The parser of a program that was about to read its command line."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def commands() -> Iterator[Command]:
    """All command lines on all pages and in docstrings."""
    for found in (*code_spans(), *docstring_spans()):
        yield from _command(found)
    for block in code_blocks():
        joined = re.sub(r"\\\n\s*", " ", block.text)  # the shell's way to go on
        joined = re.sub(r"\n\s+(?=\[)", " ", joined)  # a summary's way
        for offset, line in enumerate(joined.splitlines()):
            yield from _command(Found(block.page, block.line + offset, line))


def _command(found: Found) -> Iterator[Command]:
    match = _COMMAND.fullmatch(found.text)
    if match is None:
        return
    try:
        words = shlex.split(match["rest"], comments=True)
    except ValueError:  # an apostrophe: prose after all
        return
    if match["program"] == "make serve":
        flags = next((word for word in words if word.startswith("ARGS=")), "ARGS=")
        words = ["serve", *shlex.split(flags.removeprefix("ARGS="))]
        yield Command(found, "pascal", tuple(words))
    elif match["program"] == "pascal":
        yield Command(found, "pascal", tuple(words))
    elif words:
        yield Command(found, words[0], tuple(words[1:]))


@cache
def parser_of(program: str) -> argparse.ArgumentParser | None:
    """The parser with which a program reads its command line; None: there is no such program."""
    module = "pascal" if program == "pascal" else program
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except ModuleNotFoundError:
        return None

    def stop(self: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        raise _Parsed(self)

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        mock.patch.object(sys, "argv", [module]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)  # it is imported already: that is fine here
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except _Parsed as parsed:
            return parsed.parser
    raise AssertionError(f"python -m {program} does not read its command line with argparse")


def faults(parser: argparse.ArgumentParser, command: Command) -> list[str]:
    """What is wrong with a command line: unknown commands and flags, values that are refused."""
    only_named = not any(word.startswith("-") for word in command.words)
    if command.schematic or only_named:  # what it needs is left out
        return _unknown(parser, list(command.words))
    return _refused(parser, command) or _wrong_settings(parser, command)


def _unknown(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    wrong = []
    for position, word in enumerate(words):
        bare = word.strip("[]").partition("=")[0]
        which = _subcommands(parser)
        if bare.startswith("--"):
            option = parser._option_string_actions.get(bare)
            if option is None:
                wrong.append(f"no flag {bare}")
            elif option.choices and position + 1 < len(words):
                values = words[position + 1].strip("[]").split("|")
                known = [str(choice) for choice in option.choices]
                unknown = [value for value in values if value.islower() and value not in known]
                wrong += [f"{bare} {value}" for value in unknown]
        elif which and bare and not bare.isupper() and bare != "...":
            if bare not in which:
                return [*wrong, f"no command {bare}"]
            return wrong + _unknown(which[bare], words[position + 1 :])
    return wrong


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                if isinstance(command, CommandParser):
                    command.complete()
            return dict(action.choices)
    return {}


def _refused(parser: argparse.ArgumentParser, command: Command) -> list[str]:
    said: list[str] = []

    def complain(_: argparse.ArgumentParser, message: str) -> NoReturn:
        said.append(message)
        raise SystemExit(2)

    with mock.patch.object(argparse.ArgumentParser, "error", complain):
        try:
            parser.parse_args(command.words)
        except SystemExit:
            # A flag in passing, such as `pascal drain --restart`, need not bring an argument.
            return [text for text in said if not re.search("are required|expected one", text)]
    return []


def _wrong_settings(parser: argparse.ArgumentParser, command: Command) -> list[str]:
    """What the configuration says to flags and to ``--set`` of `pascal serve` and the like."""
    if command.program != "pascal" or command.words[0] not in ("serve", "check", "worker"):
        return []
    try:
        args = parser.parse_args(command.words)
    except SystemExit:
        return []  # a flag in passing, as above
    flags: dict[str, Any] = {key: value for key, value in vars(args).items() if "." in key}
    flags |= {key: value for key, _, value in (word.partition("=") for word in args.settings)}
    flags.pop("launcher.token_file", None)  # the file is somebody else's
    try:
        configuration.load(environment={}, flags=flags)
    except configuration.ConfigError as error:
        return [str(error)]
    return []


@cache
def flags_of_vllm() -> frozenset[str]:
    """The flags of vLLM's server that set something in an engine."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    return frozenset(
        "--" + spec.name.replace("_", "-") for spec in dataclasses.fields(AsyncEngineArgs)
    )
