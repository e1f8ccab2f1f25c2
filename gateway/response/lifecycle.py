"""The life of a request: its states, the events that move it, and the one table that says how.

This module owns everything about these transitions. The stages of a request among the instances
have a table of the same form in `gateway.routing.route`; `advance` reads both. The diagrams in
``docs/explanation/lifecycle.md`` are generated from the tables (``scripts/lifecycle_diagrams.py``).

Pure. An event that a table does not have is a bug of the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar


class State(Enum):
    """Where a request is."""

    QUEUED = "queued"  # sent to an instance, not yet accepted
    REASONING = "reasoning"  # in the engine: waiting for prefill, in prefill, or thinking
    BETWEEN_INSTANCES = "between_instances"  # left one, and no other has accepted it yet
    ANSWERING = "answering"  # it writes the answer, whose tokens go through the pacer
    CALLING = "calling"  # it writes a call of a tool, whose tokens go out at once
    DELIVERING = "delivering"  # the engine is done with it, the buffer still feeds the reader
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    __hash__ = object.__hash__  # members are unique; that of an enum is slow


class Event(Enum):
    """What can happen to a request."""

    REASONING_BEGAN = "reasoning_began"  # an instance accepted it, and it thinks (again)
    ANSWERING_BEGAN = "answering_began"  # an instance accepted it, and it answers (again)
    CALLING_BEGAN = "calling_began"  # an instance accepted it, in the middle of a call
    TO_REASONING = "to_reasoning"  # the phase changed: it thinks (again)
    TO_ANSWERING = "to_answering"  # the phase changed: it answers
    TO_CALLING = "to_calling"  # the phase changed: it calls a tool
    LEFT = "left"  # its instance handed it over or was lost
    GENERATED = "generated"  # the engine's last token came
    DELIVERED = "delivered"  # the reader has the last token
    CANCEL = "cancel"
    FAIL = "fail"


GENERATING = (State.REASONING, State.ANSWERING, State.CALLING)
_PHASES = {
    Event.TO_REASONING: State.REASONING,
    Event.TO_ANSWERING: State.ANSWERING,
    Event.TO_CALLING: State.CALLING,
}

FINAL = frozenset({State.DONE, State.CANCELLED, State.FAILED})

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.REASONING_BEGAN): State.REASONING,
    (State.QUEUED, Event.ANSWERING_BEGAN): State.ANSWERING,
    # The model may change its phase in any order.
    **{
        (state, event): after
        for state in GENERATING
        for event, after in _PHASES.items()
        if after is not state
    },
    **{(state, Event.LEFT): State.BETWEEN_INSTANCES for state in GENERATING},
    (State.BETWEEN_INSTANCES, Event.REASONING_BEGAN): State.REASONING,
    (State.BETWEEN_INSTANCES, Event.ANSWERING_BEGAN): State.ANSWERING,
    (State.BETWEEN_INSTANCES, Event.CALLING_BEGAN): State.CALLING,
    # The model may end without an answer.
    **{(state, Event.GENERATED): State.DELIVERING for state in GENERATING},
    (State.DELIVERING, Event.DELIVERED): State.DONE,
    **{(state, Event.CANCEL): State.CANCELLED for state in State if state not in FINAL},
    **{(state, Event.FAIL): State.FAILED for state in State if state not in FINAL},
}

_State = TypeVar("_State", bound=Enum)
_Event = TypeVar("_Event", bound=Enum)


class IllegalTransition(Exception):
    """``event`` cannot happen in ``state``, by the table of the caller."""

    def __init__(self, state: Enum, event: Enum) -> None:
        super().__init__(f"{event.name} in state {state.name}")
        self.state = state
        self.event = event


def advance(table: Mapping[tuple[_State, _Event], _State], state: _State, event: _Event) -> _State:
    """The state after ``event``.

    :raises IllegalTransition: the table has no such row.
    """
    try:
        return table[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None
