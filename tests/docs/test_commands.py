"""Every command line on a page or in a docstring is accepted by its program."""

from __future__ import annotations

import argparse
import re

import pytest

from tests.docs.support.commands import Command, commands, faults, flags_of_vllm, parser_of
from tests.docs.support.pages import Excerpt, code_spans

# Flags of other programs that pages mention.
_OTHERS_FLAGS = re.compile(r"--(no-)?build-isolation")


def test_every_command_line_is_understood() -> None:
    lines = list(commands())
    assert len(lines) > 60
    wrong = []
    for command in lines:
        if command.program.startswith("vllm."):
            flags = {word for word in command.words if word.startswith("--")}
            wrong += [f"{command.excerpt}: {flag}" for flag in flags - flags_of_vllm()]
        if command.foreign:
            continue
        parser = parser_of(command.program)
        if parser is None:
            wrong.append(f"{command.excerpt}: there is no {command.program}")
        else:
            wrong += [f"{command.excerpt}: {fault}" for fault in faults(parser, command)]
    assert not wrong, "\n".join(wrong)


def test_every_flag_that_is_named_alone_belongs_to_some_program() -> None:
    known = set(flags_of_vllm())
    programs = {command.program for command in commands() if not command.foreign}
    for program in programs | {"tests.acceptance", "tests.compat"}:  # which `make` runs
        if (parser := parser_of(program)) is not None:
            known |= _flags(parser)
    named = [
        Excerpt(span.page, span.line, match[0])
        for span in code_spans()
        if span.text.startswith("--")
        for match in re.finditer(r"--[a-z][\w-]*", span.text)
    ]
    assert len(named) > 40
    missing = [str(flag) for flag in named if flag.text not in known]
    assert not missing, "\n".join(missing)


def _flags(parser: argparse.ArgumentParser) -> set[str]:
    names = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action.choices.values():
                names |= _flags(choice)
    return names


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("simulate run --emulate here.toml", "--emulate"),
        ("simulate run --emulate here.toml ...", "no flag --emulate"),
        ("simulated", "no command simulated"),
        ("serve --set limits.max_request=2", "unknown key"),
        ("serve --workers many", "workers.count"),
        ("simulate calibrate LOG... --output F [--clock wall|cpu]", "--clock cpu"),
        ("load --api chat-see --num-prompts 2", "chat-see"),
        ("load --num-prompts 2", None),
    ],
)
def test_the_checks_can_fail(line: str, fault: str | None) -> None:
    command = Command(Excerpt("here", 1, line), "pascal", tuple(line.split()))
    parser = parser_of("pascal")
    assert parser is not None
    messages = faults(parser, command)
    if fault is None:
        assert not messages
    else:
        assert fault in "\n".join(messages)
