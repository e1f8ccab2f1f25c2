"""What a user asks when the request has tools: one call, two at once, a chain, or none that fits.

A task holds every step that the model takes: what it thinks, which calls it makes, what the tools
return, and the answer.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace
from typing import Literal

from models.problems import FAMILIES, Problem, generate
from models.problems.base import HELD_OUT_OF_256, number, pick, weighted
from models.tools import goals
from models.tools.catalog import OPERATIONS, Toolset
from models.tools.goals import Goal
from models.tools.schema import Call, Tool

Split = Literal["train", "held_out"]
KINDS = ("calculator", "converter", "clock", "lookup", "parallel", "chain", "decline")
"""The kinds of tasks. `decline`: no tool fits; the model answers itself or says that it cannot."""

_ARITHMETIC = ("addition", "subtraction", "multiplication", "division", "sums", "stories")
_OWN = {
    "addition": 2, "subtraction": 2, "multiplication": 1.5, "division": 1, "sums": 0.5,
    "stories": 1, "units": 2, "comparison": 1, "sorting": 2, "parity": 1, "sequences": 1,
    "letters": 2.5, "spelling": 2, "chat": 4.5,
}  # fmt: skip
_ABOUT_TOOLS = ("time", "day is", "weather", "capital", "news", "age", "Translate", "email", "Plan")


@dataclass(frozen=True, slots=True)
class Step:
    """What the model thinks, and the calls that it then makes."""

    thinking: tuple[str, ...]
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """A question, the steps to its answer, and the answer.

    `value` is the result if it is one number, so that a follow-up can refer to it.
    """

    kind: str
    question: str
    steps: tuple[Step, ...]
    thinking: tuple[str, ...]
    answer: str
    accept: tuple[str, ...]
    key: str
    value: str | None = None

    def as_problem(self) -> Problem:
        """The task as a problem, for `is_correct`, which takes no notice of asterisks."""
        accept = tuple(phrase.replace("*", "") for phrase in self.accept)
        return Problem(
            self.kind, self.question, self.thinking, self.answer, accept[0], accept, self.key
        )


def is_held_out(key: str) -> bool:
    """True for the tenth of all tasks that training never sees."""
    return hashlib.sha256(key.encode()).digest()[0] < HELD_OUT_OF_256


def _tool_for(toolset: Toolset, goal: Goal) -> Tool | None:
    """The tool that reaches a goal: its own, or the calculator for any calculation."""
    if goal.role in OPERATIONS:
        return toolset.of("calculator") or toolset.of(goal.role)
    return toolset.of(goal.role)


def _reading(task: Task, toolset: Toolset) -> Task:
    """The task with the tools read first: a line for each with its name and what it is for.

    A name always stands at the start of a line or after a bracket, so that its tokens are those
    that it has in its definition.
    """
    lines = tuple(f"{tool.name}: {tool.purpose}" for tool in toolset.tools)
    if not task.steps:
        return replace(task, thinking=(*lines, *task.thinking))
    first, *rest = task.steps
    return replace(task, steps=(replace(first, thinking=(*lines, *first.thinking)), *rest))


def _intent(goal: Goal, tool: Tool, also: bool = False) -> tuple[str, ...]:
    """The lines with which the model picks a tool."""
    return (
        *goal.lead,
        f"The user {'also ' if also else ''}wants {goal.wish}.",
        f"{tool.name} can do that.",
    )


def _accept(goal: Goal) -> tuple[str, ...]:
    """Phrases that state the result of a goal; a conversion with its unit, or as the answer."""
    if goal.role == "converter":
        return (goal.fact, f"{goal.result} {goal.values['to']}", f"answer is {goal.found}")
    leads = ("=", "is", "are", "gives", "get", "equals", "is about")
    return (goal.fact, *(f"{lead} {goal.result}" for lead in leads))


def _closing(rng: random.Random, names: list[str]) -> str:
    used = ", ".join(f"({name})" for name in dict.fromkeys(names))
    return pick(
        rng,
        f"I used a tool for this {used}.",
        f"The result comes from a tool {used}.",
        f"I asked a tool {used} and did not calculate it myself.",
    )


def _asked(rng: random.Random, question: str) -> str:
    """The question, sometimes with the wish that a tool be used."""
    if rng.random() > 0.06:
        return question
    end = "" if question[-1] in "?." else "."
    return question + end + pick(rng, " Use a tool.", " Use the tools.", " Please use a tool.")


def _single(rng: random.Random, goal: Goal, tool: Tool, kind: str) -> Task:
    if rng.random() < 0.03:
        return _failed(rng, goal, tool, kind)
    result = goals.returned(rng, goal)
    step = Step(_intent(goal, tool), (goal.call(tool, result),))
    answer = pick(rng, f"{goal.fact}.", f"{goal.fact}.", f"The answer is {goal.found}.")
    if kind in ("clock", "lookup"):
        answer = f"{goal.fact}."
    answer += "\n\n" + _closing(rng, [tool.name])
    value = goal.result if kind in ("calculator", "converter") else None
    thinking = (f"The result is {goal.found}.",)
    return Task(
        kind, _asked(rng, goal.question), (step,), thinking, answer, _accept(goal), goal.key, value
    )


def _failed(rng: random.Random, goal: Goal, tool: Tool, kind: str) -> Task:
    """The tool returns an error, and the model says so."""
    error = pick(
        rng, "division by zero", "not available", "unknown unit", "timeout", "bad input", "no data"
    )
    result = pick(rng, f"Error: {error}", f"error: {error}", f'{{"error": "{error}"}}')
    step = Step(_intent(goal, tool), (goal.call(tool, result),))
    answer = f"The tool ({tool.name}) reports an error: {error}. So I do not have a result."
    thinking = (f"The tool reports an error: {error}.",)
    return Task(
        kind, goal.question, (step,), thinking, answer, (f"error: {error}",), f"{goal.key} error"
    )


def _parallel(rng: random.Random, pairs: list[tuple[Goal, Tool]]) -> Task:
    """Two independent goals in one question: two calls in one turn."""
    (first, one), (second, two) = pairs
    begin, end = first.question.rstrip(".?"), second.question
    small = end[0].lower() + end[1:]
    question = pick(
        rng,
        f"{begin}, and {small}",
        f"{begin} and {small}",
        f"{first.question} {end}",
        f"{first.question} And {small}",
        f"{first.question} Also: {small}",
        f"Two things: {begin[0].lower() + begin[1:]}, and {small}",
    )
    calls = tuple(g.call(t, goals.returned(rng, g)) for g, t in pairs)
    thinking = (*_intent(first, one), *_intent(second, two, also=True))
    fact = second.fact
    lower = fact if fact.startswith("I") else fact[0].lower() + fact[1:]
    answer = pick(rng, f"{first.fact}, and {lower}.", f"{first.fact}. {fact}.")
    answer += "\n\n" + _closing(rng, [one.name, two.name])
    return Task(
        "parallel",
        question,
        (Step(thinking, calls),),
        (f"The results are {first.found} and {second.found}.",),
        answer,
        (
            answer.split("\n\n")[0].rstrip("."),
            f"{first.fact}. {fact}",
            f"{first.fact}, and {lower}",
        ),
        f"{first.key}; {second.key}",
    )


_VERBS = {
    "+": ("add {0}",),
    "-": ("subtract {0}", "take away {0}"),
    "*": ("multiply by {0}", "multiply it by {0}", "multiply the result by {0}"),
    "/": ("divide by {0}", "divide it by {0}", "divide the result by {0}"),
}
_FIRST = {
    "+": "Add {0} and {1}", "-": "Subtract {1} from {0}",
    "*": "Multiply {0} by {1}", "/": "Divide {0} by {1}",
}  # fmt: skip


def next_step(rng: random.Random, value: str, signs: tuple[str, ...]) -> tuple[str, Goal]:
    """A further operation on a value: how a user says it, and the calculation."""
    sign = rng.choice(signs)
    operand = number(rng, pick(rng, 1, 2, 3)) + 2 if sign in "+-" else rng.randint(2, 20)
    if sign == "-" and float(value) > 1 and operand > float(value):
        operand = rng.randint(1, max(1, int(float(value))))
    said = rng.choice(_VERBS[sign]).format(operand)
    return said, goals.calculation(f"{value} {sign} {operand}", said)


def _chain(rng: random.Random, toolset: Toolset) -> Task:
    """Two or three calls, each with the result of the one before."""
    signs = tuple(s for r, s in OPERATIONS.items() if toolset.of("calculator") or toolset.of(r))
    has_units = toolset.of("converter") is not None
    count = 2 if rng.random() < 0.6 else 3
    clauses, steps, known, last, lead = [], [], [], None, ""
    for i in range(count):
        unit_step = has_units and rng.random() < (0.4 if i in (0, count - 1) else 0)
        if unit_step or not signs:
            source, target = goals.draw_units(rng)
            value = last.result if last else str(number(rng, pick(rng, 1, 2, 3)) + 1)
            said = (
                pick(
                    rng,
                    f"convert that many {source} to {target}",
                    f"convert the result from {source} to {target}",
                )
                if last
                else f"Convert {value} {source} to {target}"
            )
            goal = goals.conversion(value, source, target, said)
        elif last is None:
            sign = rng.choice(signs)
            a = number(rng, pick(rng, 1, 2, 3)) + 1
            b = number(rng, pick(rng, 1, 2)) + 1
            said = _FIRST[sign].format(a, b)
            goal = goals.calculation(f"{a} {sign} {b}", said)
        else:
            said, goal = next_step(rng, last.result, signs)
        tool = _tool_for(toolset, goal)
        assert tool is not None, goal
        thinking = (
            (f"The result is {last.found}.", f"Next: {said}.", *_intent(goal, tool)[-2:])
            if last
            else (f"There are {count} steps.", *_intent(goal, tool))
        )
        steps.append(Step(thinking, (goal.call(tool, goals.returned(rng, goal)),)))
        clauses.append(said)
        known.append((goal, tool))
        last = goal
    assert last is not None
    middle = pick(rng, ", then ", ", and then ", ", then ")
    question = middle.join(clauses) + "."
    if rng.random() < 0.15:
        lead = pick(rng, "Please ", "Can you ")
        question = f"{lead}{question[0].lower()}{question[1:]}"
    done = ", then ".join(goal.fact for goal, _ in known)
    answer = f"The answer is {last.found}.\n\nStep by step: {done}. "
    answer += _closing(rng, [tool.name for _, tool in known])
    return Task(
        "chain",
        question,
        tuple(steps),
        (f"The result is {last.found}.", "No step is left."),
        answer,
        (last.fact, *_accept(last)),
        "; ".join(goal.key for goal, _ in known),
        last.result,
    )


def task_of_problem(problem: Problem, remark: str | None = None) -> Task:
    """An exercise as a task without calls."""
    thinking = (remark, *problem.thinking) if remark else problem.thinking
    value = problem.expected if problem.expected.isdigit() else None
    return Task(
        "decline", problem.question, (), thinking, problem.answer, problem.accept,
        problem.key, value,
    )  # fmt: skip


def _decline(rng: random.Random, toolset: Toolset, split: Split) -> Task:
    """A question that no tool fits: an exercise, or something that the model does not know."""
    weights = dict(_OWN)
    if toolset.calculates():
        weights |= dict.fromkeys(_ARITHMETIC, 0.0)
    if toolset.of("converter"):
        weights["units"] = 0
    while True:
        family = weighted(rng, FAMILIES, [weights[f] for f in FAMILIES])
        problem = generate(family, rng, split=split)
        if family != "chat" or not _might_fit(problem, toolset):
            break
    if family == "chat":
        return task_of_problem(problem, "No tool fits.")
    return task_of_problem(problem, "No tool fits, so I do it myself.")


def _might_fit(problem: Problem, toolset: Toolset) -> bool:
    """True if a tool could be meant: by numbers for a calculator, or by a word for the others."""
    if problem.thinking[0].startswith("This is a calculation"):
        return toolset.calculates() or toolset.of("converter") is not None
    nouns = [tool.role.split(" ")[1] for tool in toolset.lookups()]
    words = (*_ABOUT_TOOLS, *nouns, "search", "translat", "code", "song", "alarm", "note", "file")
    return any(word.lower() in problem.question.lower() for word in words)


def _goal_of(
    rng: random.Random, toolset: Toolset, kind: str, split: Split
) -> tuple[Goal, Tool] | None:
    """A goal of a kind that one of the tools reaches."""
    goal: Goal | None = None
    if kind == "calculator":
        role = pick(rng, *(r for r in ("calculator", *OPERATIONS) if toolset.of(r)))
        goal = goals.calculate(rng, split) if role == "calculator" else goals.operate(rng, role)
        if goal.role != role and role != "calculator":
            return None
    elif kind == "converter":
        goal = goals.convert(rng)
    elif kind == "clock":
        clock = toolset.of("clock")
        goal = goals.tell_time(rng, clock) if clock else None
    else:
        goal = goals.look_up(rng, pick(rng, *toolset.lookups()))
    tool = _tool_for(toolset, goal) if goal else None
    return (goal, tool) if goal and tool else None


def kinds_of(toolset: Toolset) -> list[str]:
    """The kinds of tasks that these tools allow."""
    single = ["calculator"] if toolset.calculates() else []
    single += ["converter"] if toolset.of("converter") else []
    single += ["clock"] if toolset.of("clock") else []
    single += ["lookup"] if toolset.lookups() else []
    parallel = single and (len(single) > 1 or single[0] != "clock")
    chain = toolset.calculates()
    return [*single, *(["parallel"] if parallel else []), *(["chain"] if chain else []), "decline"]


def _draw(rng: random.Random, toolset: Toolset, kind: str, split: Split) -> Task | None:
    if kind == "decline":
        return _decline(rng, toolset, split)
    if kind == "chain":
        return _chain(rng, toolset)
    if kind != "parallel":
        pair = _goal_of(rng, toolset, kind, split)
        return _single(rng, *pair, kind) if pair else None
    single = [k for k in kinds_of(toolset) if k not in ("parallel", "chain", "decline")]
    pairs = [_goal_of(rng, toolset, rng.choice(single), split) for _ in range(2)]
    (first, second) = pairs
    if not first or not second or first[0].wish == second[0].wish:
        return None
    if any(g.lead or len(g.question) > 70 for g, _ in (first, second)):
        return None
    return _parallel(rng, [first, second])


def draw_task(
    rng: random.Random, toolset: Toolset, kind: str, split: Split, tries: int = 400
) -> Task:
    """A task of one of `kinds_of(toolset)`. Raises `ValueError` when none is found."""
    for _ in range(tries):
        task = _draw(rng, toolset, kind, split)
        if task and is_held_out(task.key) == (split == "held_out"):
            return _reading(task, toolset)
    raise ValueError(f"no {kind} task for {[t.name for t in toolset.tools]}")


def follow_up(rng: random.Random, toolset: Toolset, value: str) -> Task | None:
    """A question about the result of the turn before, for the calculator: "Add 5 to that."."""
    if not toolset.calculates():
        return None
    signs = tuple(s for r, s in OPERATIONS.items() if toolset.of("calculator") or toolset.of(r))
    _, goal = next_step(rng, value, signs)
    _, sign, operand = goal.wish.rsplit(" ", 2)
    question = rng.choice(FOLLOW_UPS[sign]).format(operand)
    tool = _tool_for(toolset, goal)
    if tool is None:
        return None
    goal = replace(goal, question=question, lead=(f"The last result is {value}.",))
    return _reading(_single(rng, goal, tool, "calculator"), toolset)


FOLLOW_UPS: dict[str, tuple[str, ...]] = {
    "+": ("Add {0} to that.", "Now add {0}.", "And plus {0}?", "What is that plus {0}?"),
    "-": ("Subtract {0} from that.", "Now subtract {0}.", "What is that minus {0}?", "Minus {0}?"),
    "*": ("Multiply that by {0}.", "Now multiply it by {0}.", "What is that times {0}?"),
    "/": ("Divide that by {0}.", "Now divide it by {0}.", "What is that divided by {0}?"),
}
