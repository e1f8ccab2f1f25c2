"""The life of a request: its states, the events that move it, and the one table that says how.

    QUEUED ──REASONING_BEGAN──> REASONING ──BOUNDARY──> ANSWERING
       └─────ANSWERING_BEGAN───────────────────────────────^ │
                            DONE <──DELIVERED── DELIVERING <──GENERATED

    REASONING, ANSWERING ──LEFT──> BETWEEN_INSTANCES ──REASONING_BEGAN, ANSWERING_BEGAN──> as before

GENERATED may also come while reasoning (the model never reached the boundary). CANCEL and FAIL end
a request from every state that is not final. An event that the table does not have is a bug of the
caller and raises `IllegalTransition`. The stages of a request among the instances have a table of
their own, in `gateway.routing.route`.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a request is."""

    QUEUED = "queued"  # sent to an instance, not yet accepted
    REASONING = "reasoning"  # in the engine: waiting for prefill, in prefill, or thinking
    BETWEEN_INSTANCES = "between_instances"  # left one, and no other has accepted it yet
    ANSWERING = "answering"  # past the phase boundary; tokens go through the pacer
    DELIVERING = "delivering"  # the engine is done with it, the buffer still feeds the reader
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Event(Enum):
    """What can happen to it."""

    REASONING_BEGAN = "reasoning_began"
    ANSWERING_BEGAN = "answering_began"
    BOUNDARY = "boundary"
    LEFT = "left"
    GENERATED = "generated"
    DELIVERED = "delivered"
    CANCEL = "cancel"
    FAIL = "fail"


FINAL = frozenset({State.DONE, State.CANCELLED, State.FAILED})

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.REASONING_BEGAN): State.REASONING,
    (State.QUEUED, Event.ANSWERING_BEGAN): State.ANSWERING,
    (State.REASONING, Event.BOUNDARY): State.ANSWERING,
    (State.REASONING, Event.LEFT): State.BETWEEN_INSTANCES,
    (State.ANSWERING, Event.LEFT): State.BETWEEN_INSTANCES,
    (State.BETWEEN_INSTANCES, Event.REASONING_BEGAN): State.REASONING,
    (State.BETWEEN_INSTANCES, Event.ANSWERING_BEGAN): State.ANSWERING,
    (State.REASONING, Event.GENERATED): State.DELIVERING,
    (State.ANSWERING, Event.GENERATED): State.DELIVERING,
    (State.DELIVERING, Event.DELIVERED): State.DONE,
    **{(state, Event.CANCEL): State.CANCELLED for state in State if state not in FINAL},
    **{(state, Event.FAIL): State.FAILED for state in State if state not in FINAL},
}


class IllegalTransition(Exception):
    """``event`` cannot happen in ``state``; of this table or of that in `gateway.routing.route`."""

    def __init__(self, state: Enum, event: Enum) -> None:
        super().__init__(f"{event.name} in state {state.name}")
        self.state = state
        self.event = event


def advance(state: State, event: Event) -> State:
    """The state after ``event``. Raises `IllegalTransition` if the table has no such row."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None
