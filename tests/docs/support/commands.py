"""Command lines on pages, and the parsers that must accept them."""

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
from tests.docs.support.pages import Excerpt, code_blocks, code_spans, docstring_spans

# A line or a code span may begin with `$ `, variables, a key of a systemd unit, `kubectl exec`, or
# the path of a folder.
_COMMAND = re.compile(
    r"(?:\$ )?(?:ExecStart=)?(?:[A-Z_]+=\S* )*(?:kubectl exec \S+ -- )?(?:\S*/)?"
    r"(?P<program>pascal|python -m|make serve)\b(?P<rest>(?: .*)?)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Command:
    """One command line."""

    excerpt: Excerpt
    program: str  # "pascal", or the module after `python -m`
    words: tuple[str, ...]

    @property
    def foreign(self) -> bool:
        """Whether its program is a package of others, such as pytest or vLLM's server."""
        return self.program.partition(".")[0] in ("pytest", "vllm")

    @property
    def schematic(self) -> bool:
        """Whether it is a summary, with placeholders or choices, instead of text to type."""
        return any(re.search(r"[\[\]|]|\.\.\.|^[A-Z]{1,4}$", word) for word in self.words)


class _Parsed(BaseException):
    """Carries a parser out of a program that is about to parse its command line."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def commands() -> Iterator[Command]:
    """All command lines on all pages and in docstrings."""
    for excerpt in (*code_spans(), *docstring_spans()):
        yield from _command(excerpt)
    for block in code_blocks():
        joined = re.sub(r"\\\n\s*", " ", block.text)  # a line that the shell continues
        joined = re.sub(r"\n\s+(?=\[)", " ", joined)  # a continued summary
        for offset, line in enumerate(joined.splitlines()):
            yield from _command(Excerpt(block.page, block.line + offset, line))


def _command(excerpt: Excerpt) -> Iterator[Command]:
    match = _COMMAND.fullmatch(excerpt.text)
    if match is None:
        return
    try:
        words = shlex.split(match["rest"], comments=True)
    except ValueError:  # an apostrophe: it is prose
        return
    if match["program"] == "make serve":
        flags = next((word for word in words if word.startswith("ARGS=")), "ARGS=")
        words = ["serve", *shlex.split(flags.removeprefix("ARGS="))]
        yield Command(excerpt, "pascal", tuple(words))
    elif match["program"] == "pascal":
        yield Command(excerpt, "pascal", tuple(words))
    elif words:
        yield Command(excerpt, words[0], tuple(words[1:]))


@cache
def parser_of(program: str) -> argparse.ArgumentParser | None:
    """The parser of a program's command line; None if there is no such program."""
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
        # The module may be imported already, which does no harm here.
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except _Parsed as parsed:
            return parsed.parser
    raise AssertionError(f"python -m {program} does not read its command line with argparse")


def faults(parser: argparse.ArgumentParser, command: Command) -> list[str]:
    """The faults of a command line: unknown commands and flags, and refused values."""
    only_named = not any(word.startswith("-") for word in command.words)
    if command.schematic or only_named:  # required arguments are left out
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
    messages: list[str] = []

    def complain(_: argparse.ArgumentParser, message: str) -> NoReturn:
        messages.append(message)
        raise SystemExit(2)

    with mock.patch.object(argparse.ArgumentParser, "error", complain):
        try:
            parser.parse_args(command.words)
        except SystemExit:
            # A flag that is only mentioned, as in `pascal drain --restart`, needs no arguments.
            return [text for text in messages if not re.search("are required|expected one", text)]
    return []


def _wrong_settings(parser: argparse.ArgumentParser, command: Command) -> list[str]:
    """The error of the configuration for flags and ``--set`` of `pascal serve` and others."""
    if command.program != "pascal" or command.words[0] not in ("serve", "check", "worker"):
        return []
    try:
        args = parser.parse_args(command.words)
    except SystemExit:
        return []  # a flag that is only mentioned, as above
    flags: dict[str, Any] = {key: value for key, value in vars(args).items() if "." in key}
    flags |= {key: value for key, _, value in (word.partition("=") for word in args.settings)}
    flags.pop("launcher.token_file", None)  # the file is not here
    try:
        configuration.load(environment={}, flags=flags)
    except configuration.ConfigError as error:
        return [str(error)]
    return []


@cache
def flags_of_vllm() -> frozenset[str]:
    """The flags of vLLM's server that configure its engine."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    return frozenset(
        "--" + spec.name.replace("_", "-") for spec in dataclasses.fields(AsyncEngineArgs)
    )
