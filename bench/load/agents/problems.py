"""Agents with problems of the embedded model: the tools are really run, and answers are judged.

Tasks are held out from its training (`models.tools`). Pure, except for the random generators.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

from bench.load.agents.agent import Agent
from bench.load.agents.toolbox import Toolbox
from bench.load.options import NUM_PROMPTS, REQUEST_RATE, Options
from bench.load.plan import Planned, arrival_times
from bench.load.prompts import ChatMessage, Prompt
from bench.load.ranges import Pause
from bench.load.record import Call
from models.tools import Task, Toolset, draw_task, draw_toolset, kinds_of


class ProblemAgent(Agent):
    """A problem that needs tools, or looks as if it did."""

    most_turns = 20  # a model that calls again and again gets no further

    def __init__(
        self,
        number: int,
        at_s: float,
        drawn: tuple[Toolset, Task],
        tool_time: Pause,
        indices: Iterator[int],
        rng: random.Random,
    ) -> None:
        toolset, task = drawn
        definitions = [tool.definition() for tool in toolset.tools]
        super().__init__(number, at_s, definitions, len(task.steps) + 1, indices)
        self.task = task
        self.toolbox = Toolbox(toolset, task)
        self._tool_time = tool_time
        self._rng = rng

    @property
    def family(self) -> str | None:
        """The kind of the task."""
        return self.task.kind

    def _turn(self, turn: int) -> Planned:
        asked = () if turn else (ChatMessage("user", self.task.question),)
        return Planned(0, self.at_s, Prompt(asked, self.task.as_problem()), None)

    def _tool_s(self, turn: int) -> float:
        return self._tool_time.draw_s(self._rng)

    def _run(self, turn: int, call: Call, calls: int) -> str:
        return self.toolbox.run(call.name, call.arguments)


def problem_agents(options: Options) -> list[ProblemAgent]:
    """The tasks of a run. The same flags give the same tasks."""
    count_, rate = options.num_prompts or NUM_PROMPTS, options.request_rate or REQUEST_RATE
    rng = random.Random(f"{options.seed}/arrivals")
    return _agents(options, arrival_times(count_, rate, options.burstiness, rng), "prompts")


def warmup_problems(options: Options) -> list[ProblemAgent]:
    """Other tasks, whose first turns warm the server up."""
    return _agents(options, [0.0] * options.num_warmups, "warm-up")


def _agents(options: Options, times: list[float], part: str) -> list[ProblemAgent]:
    rng, pauses = random.Random(f"{options.seed}/{part}"), random.Random(f"{options.seed}/tools")
    indices = count()
    return [
        ProblemAgent(
            number, at_s, _drawn(rng.choice(options.families), rng), options.tool_time, indices,
            pauses,
        )
        for number, at_s in enumerate(times)
    ]  # fmt: skip


def _drawn(kind: str, rng: random.Random) -> tuple[Toolset, Task]:
    """Tools and a task of a kind, without those whose tool is to fail: here it is really run."""
    while True:
        toolset = draw_toolset(rng)
        if kind not in kinds_of(toolset):
            continue
        try:
            task = draw_task(rng, toolset, kind, "held_out")
        except ValueError:  # these tools may allow no task that is held out
            continue
        results = (call.result for step in task.steps for call in step.calls)
        if not any("error" in result.lower() for result in results):
            return toolset, task
