"""Prompts of the load generator: new problems of the model's families, or a prompt file.

A prompt file holds one prompt per line. If its first line begins with ``{``, every line is a JSON
object with either ``prompt`` (text) or ``messages`` (a conversation); other fields are ignored.
Otherwise every line is the text of a prompt. Empty lines are skipped.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from models.problems import FAMILIES, Problem, generate, is_correct


class PromptError(Exception):
    """The prompts cannot be made; the message names file and line, or the family."""


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages to send, and the problem that they pose, if the answer can be judged."""

    messages: tuple[ChatMessage, ...]
    problem: Problem | None = None

    @property
    def family(self) -> str | None:
        """The problem's family; None for a prompt of a file."""
        return self.problem.family if self.problem else None

    def judge(self, answer: str) -> bool | None:
        """Whether the answer is right; None if it cannot be judged."""
        return is_correct(self.problem, answer) if self.problem else None


class _Line(msgspec.Struct):
    prompt: str | None = None
    messages: tuple[ChatMessage, ...] | None = None


def problem_prompts(count: int, families: Sequence[str], rng: random.Random) -> list[Prompt]:
    """``count`` problems, each of a family drawn evenly from ``families`` (empty: from all).

    :raises PromptError: for an unknown family.
    """
    for family in families:
        if family not in FAMILIES:
            raise PromptError(f"unknown family {family!r}; known are {', '.join(FAMILIES)}")
    problems = (generate(rng.choice(families or FAMILIES), rng) for _ in range(count))
    return [Prompt((ChatMessage("user", problem.question),), problem) for problem in problems]


def file_prompts(count: int, path: Path) -> list[Prompt]:
    """The first ``count`` prompts of a file, which is repeated if it has fewer.

    :raises PromptError: if the file cannot be read, is empty, or a line is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8").split(
            "\n"
        )  # JSON strings may hold the other line separators
    except OSError as error:
        raise PromptError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}: not UTF-8 text") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise PromptError(f"{path}: holds no prompt")
    json_lines = numbered[0][1].lstrip().startswith("{")
    prompts = [
        _json_prompt(line, f"{path}:{number}") if json_lines else _user_prompt(line.strip())
        for number, line in numbered
    ]
    return [prompts[index % len(prompts)] for index in range(count)]


def _user_prompt(text: str) -> Prompt:
    return Prompt((ChatMessage("user", text),))


def _json_prompt(line: str, where: str) -> Prompt:
    try:
        entry = msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError as error:
        raise PromptError(f"{where}: {error}") from error
    if (entry.prompt is None) == (entry.messages is None):
        raise PromptError(f'{where}: needs either "prompt" or "messages"')
    prompt = (
        Prompt(entry.messages) if entry.messages is not None else _user_prompt(entry.prompt or "")
    )
    if not prompt.messages or not all(message.content.strip() for message in prompt.messages):
        raise PromptError(f"{where}: the prompt is empty")
    return prompt
