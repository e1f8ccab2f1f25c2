"""Agents with given lengths: what each turn adds to the context, and what the model writes.

The tasks are `bench.workloads.agents`. The server forces the lengths. Prompts and results are
filled with words. Pure, except for the random generators.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import count, islice
from typing import Any, Final

from bench.load.agents.agent import Agent
from bench.load.options import AGENT, NUM_PROMPTS, REQUEST_RATE, OptionError, Options
from bench.load.plan import Planned, text_prompt
from bench.load.prompt_filler import Fit, filler
from bench.load.prompts import Prompt
from bench.load.record import Call, ForcedLengths
from bench.workloads.agents import AgentTask, agent_tasks


def _tool(name: str, description: str, parameter: str, meaning: str) -> Mapping[str, Any]:
    schema = {
        "type": "object",
        "properties": {parameter: {"type": "string", "description": meaning}},
        "required": [parameter],
        "additionalProperties": False,
    }
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


# The shortest call of each has at most 20 tokens, as the shortest of the workload, by the
# tokenizer of the embedded model. Its text argument can be made longer.
TOOLS: Final = (
    _tool("read_file", "Reads a file and returns its text.", "path", "Path of the file."),
    _tool("search", "Finds text in all files.", "query", "What to look for."),
    _tool("edit", "Applies a change to a file.", "text", "The change, as a patch."),
    _tool("run", "Runs a command and returns what it prints.", "command", "For the shell."),
)


class SizedAgent(Agent):
    """A task of the workload. Call `fit` before `first`."""

    def __init__(self, number: int, task: AgentTask, indices: Iterator[int], seed: str) -> None:
        super().__init__(number, task.at_s, TOOLS, len(task.rounds), indices)
        self._rounds = task.rounds
        self._rng = random.Random(seed)
        self._prompt: Prompt | None = None
        self._result: Fit | None = None

    def fit(self, prompt: Fit, result: Fit) -> None:
        """Say how many tokens words make: in a prompt with the tools, and in a result.

        Writes the first prompt, so that no task waits for the prompts of others.
        """
        words = prompt.words(self._rounds[0].lengths.prompt)
        self._prompt, self._result = text_prompt(filler(words, self._rng)), result

    def _turn(self, turn: int) -> Planned:
        lengths = self._rounds[turn].lengths
        prompt = Prompt(())
        if turn == 0:
            assert self._prompt is not None
            prompt = self._prompt
        forced = ForcedLengths(
            reasoning_tokens=lengths.reasoning,
            answer_tokens=lengths.answer,
            call_tokens=lengths.call,
        )
        return Planned(0, self.at_s, prompt, forced)

    def _tool_s(self, turn: int) -> float:
        return self._rounds[turn].tool_s

    def _run(self, turn: int, call: Call, calls: int) -> str:
        assert self._result is not None
        tokens = self._rounds[turn + 1].lengths.prompt // calls
        return filler(self._result.words(tokens), self._rng)


def sized_agents(options: Options) -> list[SizedAgent]:
    """The tasks of a run. The same flags give the same tasks.

    :raises OptionError: if they cannot arrive so.
    """
    return _agents(options, options.seed, options.num_prompts or NUM_PROMPTS)


def warmup_agents(options: Options) -> list[SizedAgent]:
    """Other tasks, whose first turns warm the server up."""
    return _agents(options, f"{options.seed}/warm-up", options.num_warmups)


def _agents(options: Options, seed: int | str, number: int) -> list[SizedAgent]:
    rate = options.request_rate or REQUEST_RATE
    try:
        tasks = agent_tasks(rate, seed, burstiness=options.burstiness)
    except ValueError as error:
        raise OptionError(f"--workload {AGENT}: {error}") from error
    indices = count()
    return [
        SizedAgent(index, task, indices, f"{seed}/{index}")
        for index, task in enumerate(islice(tasks, number))
    ]
