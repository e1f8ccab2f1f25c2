"""The faults, and the order in which they are injected. Pure.

A *place* is a state of the session together with a stage of the route. The places that exist are
computed from the two transition tables and from `TOGETHER`, which lists what happens in one call.
At each place a fault hits a *party*. `EXCLUDED` lists the combinations without a meaning, each with
its reason; every other combination is a cell.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from gateway.response import lifecycle
from gateway.response.lifecycle import FINAL, Event, State
from gateway.routing import route
from gateway.routing.route import Move, Stage


class Party(Enum):
    """The target of a fault."""

    SOURCE = "source"  # the worker that has the request or its KV, or had it last
    TARGET = "target"  # the worker that it is moving to
    LINK = "link"  # the gateway's connection to the worker that has it, or to the next one


class Fault(Enum):
    """The kind of damage."""

    KILL = "kill"  # SIGKILL
    STOP = "stop"  # stands still for longer than the heartbeat timeout, then goes on
    SLOW = "slow"  # a process runs half of the time; a link delays all data
    CUT = "cut"  # the connection is reset; of a worker, its KV connection


@dataclass(frozen=True, slots=True)
class Place:
    """The state and stage of a request."""

    state: State
    stage: Stage

    def __str__(self) -> str:
        return f"{self.state.value}/{self.stage.value}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A fault that is injected when a request enters a place."""

    place: Place
    party: Party
    fault: Fault

    def __str__(self) -> str:
        return f"{self.place} {self.party.value} {self.fault.value}"


# ---- places -----------------------------------------------------------------------------------

START = Place(State.QUEUED, Stage.WAITING)

# The events that a session gets when its route moves; None means that it may get none. Where no
# None is listed and the session's table allows an event, it always gets one: a request that leaves
# an instance in REASONING is never SUBMITTED in REASONING.
TOGETHER: dict[Move, tuple[Event | None, ...]] = {
    Move.SUBMIT: (Event.LEFT,),
    Move.WAIT: (Event.LEFT,),
    Move.ACCEPT: (Event.REASONING_BEGAN, Event.ANSWERING_BEGAN, Event.CALLING_BEGAN),
    Move.ACCEPT_TICKET: (Event.REASONING_BEGAN, Event.ANSWERING_BEGAN, Event.CALLING_BEGAN),
    Move.PROGRESS: (Event.TO_ANSWERING, Event.TO_CALLING, None),
    Move.HAND_OVER: (None,),
    Move.END: (Event.GENERATED, Event.CANCEL, Event.FAIL),
}
# Events of a session whose route does not move, and the stages in which they happen.
ALONE: dict[Event, frozenset[Stage]] = {
    Event.TO_ANSWERING: frozenset({Stage.RUNNING, Stage.HANDING_OVER}),
    Event.TO_CALLING: frozenset({Stage.RUNNING, Stage.HANDING_OVER}),
    Event.DELIVERED: frozenset({Stage.OVER}),
    Event.CANCEL: frozenset({Stage.OVER}),
    Event.FAIL: frozenset({Stage.OVER}),
}
# Only a request that was handed over has a ticket.
TICKET_STATES = frozenset({State.BETWEEN_INSTANCES})


def _after(place: Place) -> set[Place]:
    following = set()
    for (stage, move), next_stage in route.TRANSITIONS.items():
        if stage is not place.stage:
            continue
        if move is Move.ACCEPT_TICKET and place.state not in TICKET_STATES:
            continue
        legal = [e for e in TOGETHER[move] if (place.state, e) in lifecycle.TRANSITIONS]
        if not legal and move not in (Move.SUBMIT, Move.WAIT) and None not in TOGETHER[move]:
            continue
        states = {lifecycle.TRANSITIONS[place.state, event] for event in legal if event}
        if None in TOGETHER[move] or not legal:
            states.add(place.state)
        following |= {Place(state, next_stage) for state in states}
    for event, stages in ALONE.items():
        if place.stage in stages and (place.state, event) in lifecycle.TRANSITIONS:
            following.add(Place(lifecycle.TRANSITIONS[place.state, event], place.stage))
    return following


def places() -> list[Place]:
    """All places in which an unfinished request can be between two events, in order."""
    reached, pending = {START}, [START]
    while pending:
        new = _after(pending.pop()) - reached
        reached |= new
        pending += new
    order = [Place(state, stage) for state in State for stage in Stage]
    return [place for place in order if place in reached and place.state not in FINAL]


# ---- cells ------------------------------------------------------------------------------------

_ALL_STATES, _ALL_STAGES = frozenset(State), frozenset(Stage)
_WITH_TARGET = frozenset({Stage.SUBMITTED, Stage.PULLING, Stage.HANDING_OVER})
_READS_KV = frozenset({Stage.SUBMITTED, Stage.PULLING})


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Cells without a meaning."""

    why: str
    party: Party
    faults: frozenset[Fault] = frozenset(Fault)
    stages: frozenset[Stage] = _ALL_STAGES
    states: frozenset[State] = _ALL_STATES

    def holds(self, cell: Cell) -> bool:
        """Whether this cell is one of them."""
        return (
            cell.party is self.party
            and cell.fault in self.faults
            and cell.place.stage in self.stages
            and cell.place.state in self.states
        )


EXCLUDED = (
    Exclusion("A connection is not a process.", Party.LINK, frozenset({Fault.KILL})),
    Exclusion(
        "A request has a target only while it moves.",
        Party.TARGET,
        stages=_ALL_STAGES - _WITH_TARGET,
    ),
    Exclusion(
        "A new request has no source; the worker that it is sent to counts as its source.",
        Party.TARGET,
        stages=frozenset({Stage.SUBMITTED}),
        states=frozenset({State.QUEUED}),
    ),
    Exclusion(
        "Source and target share one KV connection; it is cut at the source.",
        Party.TARGET,
        frozenset({Fault.CUT}),
        _WITH_TARGET,
        _ALL_STATES - {State.QUEUED},
    ),
    Exclusion(
        "No KV of this request is being read.",
        Party.SOURCE,
        frozenset({Fault.CUT}),
        _ALL_STAGES - _READS_KV,
    ),
    Exclusion(
        "A new request has no KV.",
        Party.SOURCE,
        frozenset({Fault.CUT}),
        _READS_KV,
        frozenset({State.QUEUED}),
    ),
)


def combinations() -> list[Cell]:
    """All places with all parties and all faults, with or without a meaning."""
    return [Cell(place, party, fault) for place in places() for party in Party for fault in Fault]


def cells() -> list[Cell]:
    """All cells, in order."""
    return [cell for cell in combinations() if not any(e.holds(cell) for e in EXCLUDED)]


# ---- schedule ---------------------------------------------------------------------------------


def schedule(seed: int, faults: int, kills: int) -> list[Cell]:
    """So many cells in an order drawn from the seed; none comes again before all have come.

    :param kills: how many of them may be kills, at most. Kills beyond that are left out.
    """
    rng = random.Random(seed)
    chosen: list[Cell] = []
    while len(chosen) < faults:
        for cell in rng.sample(cells(), len(cells())):
            if cell.fault is Fault.KILL:
                if not kills:
                    continue
                kills -= 1
            chosen.append(cell)
    return chosen[:faults]


# One of each kind, for a run of seconds: no stop, one kill.
_QUICK = (
    ("queued/submitted", Party.LINK, Fault.CUT),
    ("reasoning/running", Party.LINK, Fault.SLOW),
    ("reasoning/handing_over", Party.SOURCE, Fault.SLOW),
    ("between_instances/waiting", Party.LINK, Fault.CUT),
    ("answering/pulling", Party.SOURCE, Fault.CUT),
    ("delivering/over", Party.LINK, Fault.CUT),
    ("answering/running", Party.SOURCE, Fault.KILL),
    ("calling/running", Party.LINK, Fault.CUT),
)


def quick_schedule(seed: int) -> list[Cell]:
    """A few quick cells, in an order drawn from the seed."""
    chosen = [cell for cell in cells() if (str(cell.place), cell.party, cell.fault) in _QUICK]
    random.Random(seed).shuffle(chosen)
    return chosen
