"""What one conversation sends: its first turn, and what follows each answer.

`Turns` asks the planned questions, one after another. Agents are `bench.load.agents`. Pure: a
script must not know how requests travel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

from bench.load.conversation import next_due_s
from bench.load.plan import Planned
from bench.load.record import ResponseRecord


@dataclass(frozen=True, slots=True)
class Following:
    """The next turn, and when it is sent, on the clock of the record."""

    planned: Planned
    due_s: float


class Script(Protocol):
    """One conversation."""

    @property
    def at_s(self) -> float:
        """Offset from the start of the run at which it begins, in seconds."""

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The tools of each of its requests, in the form of chat completions."""

    @property
    def left(self) -> int:
        """Turns that are expected and not sent yet; below 0 if more were sent."""

    def first(self) -> Planned:
        """The first turn."""

    def after(self, record: ResponseRecord) -> Following | None:
        """What follows a turn that has ended; None: the conversation is over."""


class Turns:
    """The turns of a plan. A turn that fails is the last one."""

    tools: Sequence[Mapping[str, Any]] = ()

    def __init__(self, turns: Sequence[Planned]) -> None:
        self.at_s = turns[0].at_s
        self._first, *self._rest = turns

    @property
    def left(self) -> int:
        """Turns that are not sent yet."""
        return len(self._rest)

    def first(self) -> Planned:
        """The first turn."""
        return self._first

    def after(self, record: ResponseRecord) -> Following | None:
        """The next turn, a think time after the last token of the answer."""
        if not self._rest or not record.sound:
            return None
        following = self._rest.pop(0)
        return Following(following, next_due_s(record, following.think_s))


def turns_of(plan: Sequence[Planned]) -> list[Turns]:
    """The conversations of a plan, whose requests are grouped by conversation."""
    grouped = groupby(plan, key=lambda planned: planned.conversation)
    return [Turns(list(turns)) for _, turns in grouped]
