"""The commands of ``pascal`` with their flags, as Markdown; read from the parsers themselves."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from unittest import mock

from source_fields import ended, sentence

from pascal import main
from pascal.commands import CommandParser

_WIDTH = 88


class _Made(BaseException):
    """Carries the parser out of `pascal.main.main`."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def command_line() -> Iterator[str]:
    """A section for each command."""
    listed: dict[str, str] = {}  # by the text of its flags: the first command that has them
    for name, help_text, parser in _commands(_parser()):
        yield f"## {name}"
        yield sentence(help_text)
        if parser._subparsers is None:
            yield f"    {name} {_usage(parser)}"
            flags = "\n\n".join(_groups(parser))
            first = listed.setdefault(flags, name)
            yield (
                flags if first == name else f"Its flags are those of [`{first}`]({_anchor(first)})."
            )
        else:
            inner = [one for one, _, _ in _commands(parser)]
            yield "\n".join(f"- [`{one}`]({_anchor(one)})" for one in inner)


def _anchor(command: str) -> str:
    return f"#{command.replace(' ', '-')}"


def _parser() -> argparse.ArgumentParser:
    def stop(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Made(self)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            main.main([])
        except _Made as made:
            return made.parser
    raise AssertionError("pascal does not read its command line with argparse")


def _commands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Commands below a parser, those that have commands of their own included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                if isinstance(command, CommandParser):
                    command.complete()
                yield command.prog, texts[name], command
                yield from _commands(command)


def _usage(parser: argparse.ArgumentParser) -> str:
    words = ["[flags]"]
    for action in parser._actions:
        if not action.option_strings:
            name = str(action.metavar or action.dest)
            more = {"+": f"{name} [...]", "*": f"[{name} ...]"}
            words.append(more.get(str(action.nargs), name))
        elif action.required:
            words.append(f"{action.option_strings[0]} {_value(action)}")
    return " ".join(words)


def _groups(parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if "--help" not in one.option_strings]
        if not actions:
            continue
        if group.title not in ("options", "positional arguments"):
            yield f"**{sentence(str(group.title))[:-1]}**"
        yield "\n".join(_item(parser, action) for action in actions)


def _item(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    value = _value(action)
    names = [f"`{name}{' ' if value else ''}{value}`" for name in action.option_strings]
    head = ", ".join(names) or f"`{action.metavar or action.dest}`"
    text = f"- {head}: {_help(parser, action)}"
    return textwrap.fill(
        text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _value(action: argparse.Action) -> str:
    if action.nargs == 0 or not action.option_strings:
        return ""
    metavar = action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper()
    more = {"+": f"{metavar} [...]", "?": f"[{metavar}]"}
    return more.get(str(action.nargs), str(metavar))


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = (action.help or "").removesuffix(" (default: %(default)s)")  # Python up to 3.12 adds it
    plain = argparse.HelpFormatter(parser.prog)
    text = plain._expand_help(argparse.Action([], action.dest, help=text, default=action.default))
    if action.required and action.option_strings:
        text += " (required)"
    shown = _default(action)
    if shown and "default" not in text and shown not in text:
        text += f" (default `{shown}`)"
    return ended(_with_names(text))


def _with_names(text: str) -> str:
    """A help text whose environment variable and key of the configuration are marked as such."""
    names = []
    if variable := re.search(r" ?\[(PASCAL_\w+)\]", text):
        names.append(f"variable `{variable[1]}`")
        text = text.replace(variable[0], "")
    if key := re.search(r" ?\(([a-z_]+)\.([a-z_]+)\)$", text):
        names.append(f"key [`{key[1]}.{key[2]}`](configuration.md#{key[1]})")
        text = text.removesuffix(key[0])
    return f"{text} ({', '.join(names)})".strip() if names else text


def _default(action: argparse.Action) -> str:
    """The default as it would be written; empty where there is none to speak of."""
    value = action.default
    if value in (None, False, argparse.SUPPRESS) or isinstance(value, bool):
        return ""
    if isinstance(value, tuple | list):
        return ",".join("" if one is None else str(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
