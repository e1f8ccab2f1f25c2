"""Conversations of many turns, with and without tools, as trees that training learns from at once.

What the model sees of an earlier turn has no thoughts; what it learned in that turn had them. So a
conversation is a main line, as the chat template writes it, and one branch for each thing that the
model writes. A branch sees the main line up to where it leaves it, and itself; the main line sees
no branch. One sequence then teaches every turn with exactly the context that serving has.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

from models.dialogue import (
    END_THINK,
    IM_END,
    IM_START,
    NO_THINKING,
    SYSTEM_PROMPTS,
    THINK,
    draw_problem,
    turn,
)
from models.problems import generate
from models.problems.base import weighted
from models.problems.followups import follow_up
from models.tools import tasks as tools_tasks
from models.tools.catalog import Toolset, draw_toolset
from models.tools.schema import Call, responses, system_block
from models.tools.tasks import Task, draw_task, kinds_of, task_of_problem

MAIN = 0
ASSISTANT = f"{IM_START}assistant\n"
NUMERIC = ("addition", "subtraction", "multiplication", "sums", "units", "stories")
"""Families whose result is a number that a follow-up can refer to."""

TASK_WEIGHTS = {
    "calculator": 7, "converter": 6, "clock": 3.5, "lookup": 5, "parallel": 5, "chain": 6,
    "decline": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a conversation. `branch` is `MAIN` or the number of a branch."""

    text: str
    branch: int
    learn: bool


@dataclass(slots=True)
class Conversation:
    """The segments in order; a branch leaves the main line where it stands then."""

    segments: list[Segment] = field(default_factory=list)
    branches: int = 0

    def read(self, text: str, branch: int = MAIN) -> None:
        """Add text that is only read."""
        self.segments.append(Segment(text, branch, False))

    def write(self, text: str, branch: int) -> None:
        """Add text that the model learns to write."""
        self.segments.append(Segment(text, branch, True))

    def branch(self) -> int:
        """The number of a new branch."""
        self.branches += 1
        return self.branches

    def main_line(self) -> str:
        """The conversation as the chat template writes it."""
        return "".join(s.text for s in self.segments if s.branch == MAIN)


def system_turn(system: str | None, toolset: Toolset | None) -> str:
    """The system prompt with the tools, as the chat template writes it."""
    parts = [system] if system else []
    if toolset:
        parts.append(system_block(toolset.tools))
    return turn("system", "\n\n".join(parts)) if parts else ""


def calls_text(calls: tuple[Call, ...]) -> str:
    """The calls of one turn as the model writes them."""
    return "\n".join(call.text() for call in calls)


def results_turn(calls: tuple[Call, ...]) -> str:
    """What follows a turn with calls: its end, the results, and the start of the next turn."""
    results = turn("user", responses([call.result for call in calls]))
    return f"{IM_END}\n{results}{ASSISTANT}"


def think(lines: tuple[str, ...], thinking: bool = True) -> str:
    """The think block with the blank line after it; an empty one if `thinking` is off."""
    text = "\n".join(lines)
    return f"{THINK}\n{text}\n{END_THINK}\n\n" if thinking else NO_THINKING


def _own_words(task: Task, thinking: bool) -> str:
    """The answer; without thinking the steps of an exercise become part of it."""
    remark = next((i for i, x in enumerate(task.thinking, 1) if x.startswith("No tool ")), 0)
    steps = task.thinking[remark:]
    if thinking or task.steps or len(steps) < 4:
        return task.answer
    return " ".join(steps) + "\n\n" + task.answer.split("\n\n")[0]


def add_turn(
    talk: Conversation, task: Task, *, last: bool, kept: bool = True, thinking: bool = True
) -> None:
    """Add a question, everything that the model writes for it, and the way on if not `last`.

    `kept`: the client sends the thoughts of this turn back with the results of its calls.
    """
    talk.read(turn("user", task.question) + ASSISTANT)
    number = talk.branch()
    learned: list[tuple[str, str]] = [
        (think(step.thinking, thinking), calls_text(step.calls)) for step in task.steps
    ]
    for (thoughts, calls), step in zip(learned, task.steps, strict=True):
        if thinking:
            talk.write(f"{thoughts}{calls}{IM_END}", number)
        else:
            talk.read(thoughts, number)
            talk.write(f"{calls}{IM_END}", number)
        following = results_turn(step.calls).removeprefix(IM_END)
        if kept:
            talk.read(following, number)
        else:
            talk.read(f"{calls}{IM_END}{following}")
            number = talk.branch()
    answer = _own_words(task, thinking)
    if thinking:
        talk.write(f"{think(task.thinking)}{answer}{IM_END}", number)
    else:
        talk.read(NO_THINKING, number)
        talk.write(f"{answer}{IM_END}", number)
    if last:
        return
    if kept:
        for (_, calls), step in zip(learned, task.steps, strict=True):
            talk.read(calls + results_turn(step.calls))
    talk.read(f"{answer}{IM_END}\n")


def _forced(rng: random.Random, talk: Conversation, task: Task) -> None:
    """`tool_choice` names a tool or asks for any: after the thoughts only JSON is allowed."""
    step = task.steps[0]
    talk.read(turn("user", task.question) + ASSISTANT)
    number = talk.branch()
    arguments = json.dumps(dict(step.calls[0].arguments), ensure_ascii=False)
    if rng.random() < 0.5:
        start, rest = arguments[:1], arguments[1:]
    else:
        listed = [
            f'{{"name": {json.dumps(c.name)}, "parameters": {json.dumps(dict(c.arguments))}}}'
            for c in step.calls
        ]
        start, rest = "[", ", ".join(listed) + "]"
    talk.write(think(step.thinking).rstrip("\n"), number)
    talk.read(start, number)
    talk.write(f"{rest}{IM_END}", number)


def draw_talk(
    rng: random.Random, turns: int, weights: dict[str, float] | None = None
) -> Conversation:
    """A conversation of exercises and follow-ups, without tools."""
    talk = Conversation()
    system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.3 else None
    if system:
        talk.read(turn("system", system))
    value: int | None = None
    thinking = rng.random() > 0.05
    for i in range(turns):
        problem = None
        if value is not None and rng.random() < 0.5:
            problem = follow_up(rng, value)
        if problem is None:
            problem = draw_problem(rng, weights)
            while len(problem.answer) > 500:
                problem = draw_problem(rng, weights)
        if (rng.random() < 0.2) and i + 1 < turns and problem.family not in NUMERIC:
            problem = generate(rng.choice(NUMERIC), rng, split="train")
        numeric = problem.family in (*NUMERIC, "follow-up") and problem.expected.isdigit()
        value = int(problem.expected) if numeric else None
        add_turn(talk, task_of_problem(problem), last=i + 1 == turns, thinking=thinking)
    return talk


def draw_tool_talk(rng: random.Random, turns: int) -> Conversation:
    """A conversation with tools: tasks for them, follow-ups, and questions that no tool fits."""
    toolset = draw_toolset(rng)
    talk = Conversation()
    system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.3 else None
    talk.read(system_turn(system, toolset))
    kinds, value = kinds_of(toolset), None
    thinking = rng.random() > 0.05
    for i in range(turns):
        task = None
        if value and rng.random() < 0.4:
            task = tools_tasks.follow_up(rng, toolset, value)
        if task is None:
            kind = weighted(rng, kinds, [TASK_WEIGHTS[k] for k in kinds])
            task = draw_task(rng, toolset, kind, "train")
        value = task.value if task.value and task.steps else None
        last = i + 1 == turns
        if last and task.steps and thinking and rng.random() < 0.06:
            _forced(rng, talk, task)
        else:
            add_turn(talk, task, last=last, kept=rng.random() < 0.5, thinking=thinking)
    return talk
