"""Judges what the model does with tools and in long conversations; `models.evaluate` prints it.

Tools are played: when the calls of a turn are the expected ones, the model gets the expected
results and goes on. Conversations have the model's own answers as their earlier turns.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from models.conversation import ASSISTANT, NUMERIC, calls_text, results_turn, system_turn
from models.dialogue import END_THINK, IM_END, THINK, turn
from models.problems import FAMILIES, Problem, generate, is_correct
from models.problems.base import weighted
from models.problems.followups import follow_up
from models.tools import KINDS, Task, Toolset, draw_task, draw_toolset, kinds_of
from models.tools.schema import END_TOOL_CALL, TOOL_CALL, Call

TURNS = 20
Complete = Callable[[list[str]], list[tuple[str, bool]]]
"""Prompts to (text, whether it ended by itself)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table. Shares lie in [0, 1]; `calls` is None where there are no tools."""

    name: str
    problems: int
    correct: float
    well_formed: float
    calls: float | None = None


def closed(text: str, finished: bool) -> bool:
    """One think block, closed, something after it, and a proper end."""
    once = text.count(THINK) == text.count(END_THINK) == 1 and text.startswith(THINK)
    return finished and once and bool(text.rsplit(END_THINK, 1)[-1].strip())


def calls_in(text: str) -> list[dict[str, object]] | None:
    """The calls after the thoughts; None if one of them is no valid call."""
    found = []
    for piece in text.rsplit(END_THINK, 1)[-1].split(TOOL_CALL)[1:]:
        body, end, rest = piece.partition(END_TOOL_CALL)
        try:
            call = json.loads(body)
        except json.JSONDecodeError:
            return None
        if not end or rest.strip() or not isinstance(call, dict):
            return None
        found.append(call)
    return found


def _same(call: dict[str, object], expected: Call) -> bool:
    """The same tool and the same arguments; blanks in an expression do not matter."""

    def plain(value: object) -> object:
        return value.replace(" ", "") if isinstance(value, str) else value

    arguments = call.get("arguments")
    return (
        call.get("name") == expected.name
        and isinstance(arguments, dict)
        and {k: plain(v) for k, v in arguments.items()}
        == {k: plain(v) for k, v in expected.arguments.items()}
    )


def right_calls(text: str, expected: Sequence[Call]) -> bool:
    """True when the text makes exactly these calls, in this order."""
    found = calls_in(text)
    return (
        found is not None
        and len(found) == len(expected)
        and all(_same(call, want) for call, want in zip(found, expected, strict=True))
    )


@dataclass(slots=True)
class _Play:
    """One task on its way."""

    toolset: Toolset
    task: Task
    prompt: str
    kept: bool
    step: int = 0
    calls: bool = True
    formed: bool = True
    correct: bool = False


def draw_plays(kind: str, count: int, seed: int) -> list[tuple[Toolset, Task]]:
    """`count` held-out tasks of a kind, each with its own tools."""
    rng = random.Random(f"{seed}:{kind}")
    found: list[tuple[Toolset, Task]] = []
    while len(found) < count:
        toolset = draw_toolset(rng)
        if kind in kinds_of(toolset):
            with suppress(ValueError):  # these tools may allow no task that is held out
                found.append((toolset, draw_task(rng, toolset, kind, "held_out")))
    return found


def _advance(play: _Play, text: str, finished: bool) -> bool:
    """Take in what the model wrote; True if it goes on with the results of its calls."""
    play.formed = play.formed and closed(text, finished)
    steps = play.task.steps
    expected = steps[play.step].calls if play.step < len(steps) else ()
    play.calls = play.calls and right_calls(text, expected)
    if not (play.formed and play.calls):
        return False
    if not expected:
        play.correct = is_correct(play.task.as_problem(), text)
        return False
    written = text if play.kept else calls_text(expected)
    play.prompt += written + results_turn(expected)
    play.step += 1
    return True


def tools(
    complete: Complete, kind: str, count: int, seed: int, wrong: list[str] | None = None
) -> Row:
    """Accuracy of one kind of task. In every second one the thoughts are not sent back."""
    plays = [
        _Play(tools, task, system_turn(None, tools) + turn("user", task.question) + ASSISTANT, k)
        for (tools, task), k in zip(
            draw_plays(kind, count, seed), (i % 2 == 0 for i in range(count)), strict=True
        )
    ]
    waiting = plays
    while waiting:
        done = complete([play.prompt for play in waiting])
        following = []
        for play, (text, finished) in zip(waiting, done, strict=True):
            if _advance(play, text, finished):
                following.append(play)
            elif not play.correct and wrong is not None:
                wrong.append(f"[{kind}] {play.prompt}{text}\nexpected {play.task}")
        waiting = following
    return Row(
        kind,
        count,
        sum(p.correct for p in plays) / count,
        sum(p.formed for p in plays) / count,
        sum(p.calls for p in plays) / count,
    )


def all_tools(
    complete: Complete, count: int, seed: int, wrong: list[str] | None = None
) -> list[Row]:
    """A row for each kind, and one for all."""
    rows = [tools(complete, kind, count, seed, wrong) for kind in KINDS]
    mean = [
        sum(getattr(row, name) for row in rows) / len(rows)
        for name in ("correct", "well_formed", "calls")
    ]
    return [*rows, Row("all kinds", count * len(rows), *mean)]


@dataclass(slots=True)
class _Talk:
    """One conversation on its way."""

    rng: random.Random
    prompt: str = ""
    value: int | None = None
    problem: Problem | None = None


def _next(talk: _Talk) -> Problem:
    """The next question: half of the time about the last result, if that was right."""
    if talk.value is not None and talk.rng.random() < 0.5:
        problem = follow_up(talk.rng, talk.value)
        if problem:
            return problem
    while True:
        family = weighted(talk.rng, FAMILIES, [1.0] * len(FAMILIES))
        problem = generate(family, talk.rng, split="held_out")
        if len(problem.answer) < 500:
            return problem


def conversations(
    complete: Complete, count: int, seed: int, wrong: list[str] | None = None
) -> list[Row]:
    """Accuracy at turns 1 to 20 of `count` conversations, by fives; and of all follow-ups."""
    talks = [_Talk(random.Random(f"{seed}:talk:{i}")) for i in range(count)]
    results: list[tuple[int, bool, bool, bool]] = []
    for number in range(1, TURNS + 1):
        for talk in talks:
            talk.problem = _next(talk)
            talk.prompt += turn("user", talk.problem.question) + ASSISTANT
        done = complete([talk.prompt for talk in talks])
        for talk, (text, finished) in zip(talks, done, strict=True):
            assert talk.problem is not None
            formed = closed(text, finished)
            right = formed and is_correct(talk.problem, text)
            results.append((number, right, formed, talk.problem.family == "follow-up"))
            if not right and wrong is not None:
                wrong.append(
                    f"[turn {number}] {talk.problem.question}\n{text}\n"
                    f"expected {talk.problem.expected}"
                )
            numeric = talk.problem.family in (*NUMERIC, "follow-up")
            counts = right and numeric and talk.problem.expected.isdigit()
            talk.value = int(talk.problem.expected) if counts else None
            answer = text.rsplit(END_THINK, 1)[-1].lstrip("\n") if formed else "I do not know."
            talk.prompt += f"{answer}{IM_END}\n"
    sets = [
        (f"turns {first} to {first + 4}", [r for r in results if first <= r[0] < first + 5])
        for first in range(1, TURNS + 1, 5)
    ]
    sets.append(("follow-ups", [r for r in results if r[3]]))
    sets.append(("all turns", results))
    return [
        Row(
            name,
            len(s),
            sum(r[1] for r in s) / max(len(s), 1),
            sum(r[2] for r in s) / max(len(s), 1),
        )
        for name, s in sets
    ]


def table(rows: Sequence[Row], what: str) -> str:
    """The rows as a Markdown table."""
    calls = any(row.calls is not None for row in rows)
    head = f"| {what} | problems | correct |{' right calls |' if calls else ''} well-formed |"
    lines = [head, "|---|---:|---:|---:|" + ("---:|" if calls else "")]
    for row in rows:
        shares = [row.correct, *([row.calls] if row.calls is not None else []), row.well_formed]
        cells = " | ".join(f"{share:.1%}" for share in shares)
        lines.append(f"| {row.name} | {row.problems} | {cells} |")
    return "\n".join(lines)
