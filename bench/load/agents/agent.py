"""An agent: sends its task, runs the tools that the model calls, and sends the results back.

Decides when a task ends, and why. Which tools there are, and what they return, is that of the
subclasses. Pure: an agent must not know how requests travel.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeAlias

from bench.load.plan import Planned, ToolResult
from bench.load.record import Call, ResponseRecord
from bench.load.script import Following

# "answered_early": the model answered where a call was expected. "incomplete": a turn was cut, or
# had neither an answer nor a call. "too_many_turns": the model went on calling.
TaskOutcome: TypeAlias = Literal[
    "answered", "answered_early", "failed", "incomplete", "too_many_turns", "interrupted"
]


class Agent(ABC):
    """One task, as a `bench.load.script.Script`."""

    #: Turns after which the task is given up; None: after those that are expected.
    most_turns: ClassVar[int | None] = None

    def __init__(
        self,
        number: int,
        at_s: float,
        tools: Sequence[Mapping[str, Any]],
        turns: int,
        indices: Iterator[int],
    ) -> None:
        """Make an agent that has not begun.

        :param number: of the task in its run.
        :param at_s: offset from the start of the run at which it begins.
        :param turns: how many are expected, with that of the answer.
        :param indices: numbers for the requests of all tasks, in the order of sending.
        """
        self.number = number
        self.at_s = at_s
        self.tools = tools
        self.expected_turns = turns
        self.turns = 0  # so far
        self.tools_s = 0.0  # spent in tools so far
        self.outcome: TaskOutcome = "interrupted"  # until it has ended
        self._indices = indices

    @property
    def family(self) -> str | None:
        """The kind of the problem; None if the answer cannot be judged."""
        return None

    @property
    def left(self) -> int:
        """Turns that are expected and not sent yet; below 0 if more were sent."""
        return self.expected_turns - self.turns

    @abstractmethod
    def _turn(self, turn: int) -> Planned:
        """A turn of the task, without results, index, conversation and number."""

    @abstractmethod
    def _tool_s(self, turn: int) -> float:
        """How long the tools of a turn take, in seconds."""

    @abstractmethod
    def _run(self, turn: int, call: Call, calls: int) -> str:
        """The result of a call.

        :param calls: how many the turn has.
        """

    def first(self) -> Planned:
        """The turn that begins the task."""
        return self._next(())

    def after(self, record: ResponseRecord) -> Following | None:
        """The turn with the results of the calls; None: the task has ended, see `outcome`.

        Fails the record if the arguments of a call are no JSON object.
        """
        for call in record.calls if record.outcome == "completed" else ():
            if not _is_object(call.arguments):
                record.fail(f"the arguments of the call of {call.name!r} are no JSON object")
        if record.outcome != "completed":
            self.outcome = record.outcome
            return None
        if not record.calls:
            early = self.turns < self.expected_turns
            self.outcome = "answered_early" if early else "answered"
            return None
        if self.turns >= (self.most_turns or self.expected_turns):
            self.outcome = "too_many_turns"
            return None
        assert record.ended_s is not None
        turn = self.turns - 1
        results = tuple(
            ToolResult(call.call_id, self._run(turn, call, len(record.calls)))
            for call in record.calls
        )
        tool_s = self._tool_s(turn)  # calls of one turn run side by side
        self.tools_s += tool_s
        return Following(self._next(results), record.ended_s + tool_s)

    def _next(self, results: tuple[ToolResult, ...]) -> Planned:
        turn = self.turns
        self.turns += 1
        return replace(
            self._turn(turn),
            index=next(self._indices),
            conversation=self.number,
            turn=turn,
            results=results,
        )


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
