"""What the load generator asks: fresh problems of the model's families, or a prompt file.

A prompt file holds one prompt a line. If its first line begins with ``{``, every line is a JSON
object with either ``prompt`` (text) or ``messages`` (a conversation); other fields are ignored.
Otherwise every line is a prompt. Empty lines are skipped.
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
    """The prompts cannot be had; the message names file and line, or the family."""


class ChatMessage(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to ask, and how to judge the answer if that is known."""

    messages: tuple[ChatMessage, ...]
    problem: Problem | None = None

    @property
    def family(self) -> str | None:
        """The problem's family; None for a prompt of a file."""
        return self.problem.family if self.problem else None

    def judge(self, answer: str) -> bool | None:
        """Whether the answer is right; None where nobody can tell."""
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
            raise PromptError(f"unknown family {family!r}; there are {', '.join(FAMILIES)}")
    problems = (generate(rng.choice(families or FAMILIES), rng) for _ in range(count))
    return [Prompt((ChatMessage("user", problem.question),), problem) for problem in problems]


def file_prompts(count: int, path: Path) -> list[Prompt]:
    """The first ``count`` prompts of a file, from the top again when it has fewer.

    :raises PromptError: if the file cannot be read, is empty, or a line is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold other separators
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
        found = msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError as error:
        raise PromptError(f"{where}: {error}") from error
    if (found.prompt is None) == (found.messages is None):
        raise PromptError(f'{where}: needs either "prompt" or "messages"')
    prompt = (
        Prompt(found.messages) if found.messages is not None else _user_prompt(found.prompt or "")
    )
    if not prompt.messages or not all(message.content.strip() for message in prompt.messages):
        raise PromptError(f"{where}: the prompt is empty")
    return prompt
