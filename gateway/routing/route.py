"""One request's way through the instances: its holder, its target, and its deadlines.

A synchronous state machine without I/O: the router reports what happened, and carries out the
`NextAction` that the route returns.

A *migration* is the way from RUNNING on one instance to RUNNING on another. Each of its stages has
a deadline. After any doubt (a deadline passed, a refusal, an instance lost) the request goes on
without its ticket, and the next instance computes its KV again. The token log goes with the
request, so neither way loses or doubles a token.

`TRANSITIONS` is drawn in ``docs/explanation/lifecycle.md``. A move that it does not have raises
`IllegalTransition` and leaves the route as it was.

Each submission has its own id on the link, so messages about earlier submissions are ignored.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

import msgspec
import structlog

from gateway.admission import user_of
from gateway.policy.affinity import key_of
from gateway.policy.prefixes import prefixes_of
from gateway.response.lifecycle import State, advance
from gateway.response.session import Session
from gateway.schemas.errors import ApiError, Unavailable
from workers.messages import Submit, Ticket

log = structlog.get_logger()


class Stage(Enum):
    """Where a request is on its way."""

    WAITING = "waiting"  # no instance can take it
    SUBMITTED = "submitted"  # sent to an instance, which has not answered
    PULLING = "pulling"  # accepted with a ticket; its KV is being read, no token yet
    RUNNING = "running"
    HANDING_OVER = "handing_over"  # a hand-over was requested, and the instance still generates
    OVER = "over"


class Move(Enum):
    """The events of a route."""

    SUBMIT = "submit"
    WAIT = "wait"
    ACCEPT = "accept"
    ACCEPT_TICKET = "accept_ticket"
    PROGRESS = "progress"  # the first tokens after a change of instances
    HAND_OVER = "hand_over"
    END = "end"


HELD = frozenset({Stage.SUBMITTED, Stage.PULLING, Stage.RUNNING, Stage.HANDING_OVER})

TRANSITIONS: dict[tuple[Stage, Move], Stage] = {
    (Stage.WAITING, Move.SUBMIT): Stage.SUBMITTED,
    (Stage.SUBMITTED, Move.ACCEPT): Stage.RUNNING,
    (Stage.SUBMITTED, Move.ACCEPT_TICKET): Stage.PULLING,
    (Stage.PULLING, Move.PROGRESS): Stage.RUNNING,
    (Stage.RUNNING, Move.PROGRESS): Stage.RUNNING,  # came without KV
    (Stage.RUNNING, Move.HAND_OVER): Stage.HANDING_OVER,
    # Its holder is lost, has handed it over, or is in doubt.
    **{(stage, Move.SUBMIT): Stage.SUBMITTED for stage in HELD},
    **{(stage, Move.WAIT): Stage.WAITING for stage in HELD},
    # A bug may end a route twice.
    **{(stage, Move.END): Stage.OVER for stage in Stage},
}

# moved: with its KV · recomputed: without · finished: before it could leave · cancelled · failed
Outcome: TypeAlias = Literal["moved", "recomputed", "finished", "cancelled", "failed"]
Arrival: TypeAlias = Literal["moved", "recomputed"]  # the outcomes of a migration that arrives

# Why a migration begins: the rule at the phase boundary, or a drain of the source.
MoveReason: TypeAlias = Literal["boundary", "drain"]


@dataclass(frozen=True, slots=True)
class RouteTimeouts:
    """How long a request waits, and how often it is submitted again."""

    migration_timeout_s: float = 10.0  # for each stage of a migration
    failover_timeout_s: float = 120.0  # until any instance can take it
    max_restarts: int = 3  # instances that it may lose
    accept_timeout_s: float = 60.0  # for the answer to a submission
    cancel_timeout_s: float = 10.0  # for the answer to a cancel


@dataclass(slots=True)
class Migration:
    """A change of instances that is under way."""

    source_id: str
    target_id: str | None  # None: any
    kv_blocks: int  # in blocks of the source
    reason: MoveReason
    begun_s: float
    ticket: Ticket | None = None  # not used yet: it can be used once
    with_kv: bool = False  # submitted with the ticket, and there was no doubt since


@dataclass(frozen=True, slots=True)
class Moving:
    """What placement sees of a migration; see `gateway.policy.cluster_view.MovingRequest`."""

    request: Session
    source_id: str
    target_id: str | None
    leaving: bool


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Stop the request where it is, and submit it again from the token log."""

    prefer: str | None = None  # this instance, if it can take it
    avoid: str | None = None  # not this one, if there is another


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the request with this error."""

    error: ApiError


NextAction: TypeAlias = Resubmit | GiveUp


class _RouteHot:
    """What is read for each token, next to each other in memory."""

    __slots__ = ("session", "steady")


class Route(_RouteHot):
    """The way of one request through the instances.

    :param outcomes: counts each migration that ends, by its `Outcome`.
    """

    __slots__ = (
        "_attempt",
        "_boundary_s",
        "_cancelled_by_s",
        "_migration",
        "_outcomes",
        "_stage",
        "_stage_ends_s",
        "_timeouts",
        "affinity_key",
        "answered",
        "holder",
        "log",
        "prefixes",
        "restarts",
    )

    def __init__(
        self, session: Session, timeouts: RouteTimeouts, outcomes: Counter[Outcome]
    ) -> None:
        self.session = session
        wanted = session.generation
        self.prefixes = prefixes_of(wanted.messages, wanted.tools, wanted.template, wanted.prompt)
        self.affinity_key = key_of(session.owner, wanted.affinity_key)
        self.steady = False  # it runs, and its next tokens change nothing here
        self._stage = Stage.WAITING
        self.holder: str | None = None  # the instance that has it or is to answer
        self._stage_ends_s: float | None = None
        self._cancelled_by_s: float | None = None
        self._migration: Migration | None = None
        self._boundary_s: float | None = None
        self.restarts = 0
        self.answered = False  # it passed the boundary at which it could move
        self._timeouts = timeouts
        self._outcomes = outcomes
        self._attempt = 0
        self.log = log.bind(request_id=session.response_id)
        if session.x_request_id is not None:
            self.log = self.log.bind(x_request_id=session.x_request_id)

    @property
    def stage(self) -> Stage:
        """Where it is on its way."""
        return self._stage

    @stage.setter
    def stage(self, stage: Stage) -> None:
        self._stage = stage
        self._look()

    @property
    def migration(self) -> Migration | None:
        """The migration under way."""
        return self._migration

    @migration.setter
    def migration(self, migration: Migration | None) -> None:
        self._migration = migration
        self._look()

    @property
    def boundary_s(self) -> float | None:
        """When it passed the boundary, until the first answering token after it."""
        return self._boundary_s

    @boundary_s.setter
    def boundary_s(self, boundary_s: float | None) -> None:
        self._boundary_s = boundary_s
        self._look()

    def _look(self) -> None:
        waits = self._migration is not None or self._boundary_s is not None
        self.steady = self._stage is Stage.RUNNING and not waits

    @property
    def wire_id(self) -> str:
        """Its id in messages to and from its holder."""
        name = self.session.response_id
        return name if self._attempt <= 1 else f"{name}.{self._attempt}"

    @property
    def deadline_s(self) -> float | None:
        """When `expired` is due: the end of the stage's time or of a cancel's, or None."""
        ends = [at for at in (self._stage_ends_s, self._cancelled_by_s) if at is not None]
        return None if self.stage is Stage.OVER else min(ends, default=None)

    @property
    def moving(self) -> Moving | None:
        """The migration under way, for placement."""
        if (migration := self.migration) is None:
            return None
        leaving = self.stage is Stage.HANDING_OVER
        return Moving(self.session, migration.source_id, migration.target_id, leaving)

    def __repr__(self) -> str:
        return f"<Route {self.wire_id} {self.stage.value} at {self.holder}>"

    # ---- what the router did ------------------------------------------------------------------

    def submitted(self, instance_id: str, now: float, *, with_ticket: bool) -> None:
        """The request was sent to an instance."""
        soon_s = self._soon(now) if with_ticket else now + self._timeouts.accept_timeout_s
        self._enter(Move.SUBMIT, soon_s)
        self._attempt += 1
        self.holder = instance_id
        if self.migration is not None:
            self.migration.target_id = instance_id
            self.migration.ticket = None
            self.migration.with_kv = with_ticket

    def waits(self, now: float) -> None:
        """No instance can take the request."""
        self._enter(Move.WAIT, now + self._timeouts.failover_timeout_s)
        self.holder = None

    def hand_over(self, target_id: str, kv_blocks: int, reason: MoveReason, now: float) -> None:
        """The holder was asked to hand the request over to a target."""
        assert self.holder is not None
        self._enter(Move.HAND_OVER, self._soon(now))
        if self.migration is not None:
            self._end_migration("recomputed")  # it leaves again before its first token
        self.migration = Migration(self.holder, target_id, kv_blocks, reason, now)

    def withdraw(self, kv_blocks: int, now: float) -> Resubmit:
        """The request is to leave its holder without its KV."""
        assert self.holder is not None
        if self.stage is not Stage.SUBMITTED:
            if self.migration is not None:
                self._end_migration("recomputed")
            self.migration = Migration(self.holder, None, kv_blocks, "drain", now)
        return Resubmit(avoid=self.holder)

    def cancelled(self, now: float) -> None:
        """The holder was asked to stop the request."""
        self._cancelled_by_s = now + self._timeouts.cancel_timeout_s

    def over(self) -> None:
        """Nothing more comes from an instance, or is wanted from one."""
        self._enter(Move.END, None)
        if self.migration is not None:
            state = self.session.state
            if state is State.CANCELLED or self.session.cancelling:
                self._end_migration("cancelled")
            else:
                self._end_migration("failed" if state is State.FAILED else "finished")
        self.holder = None

    # ---- what the holder reports ---------------------------------------------------------------

    def accepted(self, now: float) -> None:
        """The holder has queued the request."""
        if self.migration is not None and self.migration.with_kv:
            self._enter(Move.ACCEPT_TICKET, self._soon(now))
        else:
            self._enter(Move.ACCEPT, None)

    def progressed(self, kv_tokens: int | None) -> Arrival | None:
        """Tokens came; return the outcome of the migration that they end, if any.

        :param kv_tokens: KV tokens that the ticket saved, see `workers.messages.TokenRun`.
        """
        if self.migration is None or self.stage is Stage.HANDING_OVER:
            return None
        self._enter(Move.PROGRESS, None)
        outcome: Arrival = "moved" if self.migration.with_kv and kv_tokens else "recomputed"
        self.session.migrations += 1
        self._end_migration(outcome)
        return outcome

    def handed_over(self, ticket: Ticket | None) -> Resubmit:
        """The holder has handed the request over, and sends nothing more about it."""
        if self.migration is None or self.stage is not Stage.HANDING_OVER:
            return Resubmit()  # requested before a doubt, or not at all
        self.migration.ticket = ticket
        return Resubmit(prefer=self.migration.target_id, avoid=self.migration.source_id)

    def submission(self, ticket: Ticket | None) -> Submit:
        """The message that submits it, with what is known of its output."""
        session, generation = self.session, self.session.generation
        return Submit(
            request_id=self.wire_id,
            messages=generation.messages,
            sampling=generation.sampling,
            pace=session.pace,
            thinking=generation.thinking,
            known_token_ids=tuple(session.token_ids),
            forced_lengths=generation.forced_lengths,
            user=user_of(session.owner, generation.user) or None,
            ticket=ticket,
            tools=generation.tools,
            tool_choice=generation.tool_choice,
            template=dict(generation.template),
            effort=generation.effort,
            structure=generation.structure,
            prefixes=self.prefixes,
            prompt=generation.prompt,
            x_request_id=session.x_request_id,
        )

    def ticket(self, now: float) -> Ticket | None:
        """The ticket with the validity left by the gateway's clock; None if there is none.

        The worker made the ticket after the gateway had asked for it. So the ticket cannot expire
        before ``begun_s + valid_s``, however long the messages took.
        """
        migration = self.migration
        if migration is None or migration.ticket is None:
            return None
        left_s = migration.begun_s + migration.ticket.valid_s - now
        if left_s <= 0:
            return None
        return msgspec.structs.replace(migration.ticket, valid_s=left_s)

    # ---- what goes wrong ----------------------------------------------------------------------

    def doubted(self) -> Resubmit:
        """Something about this submission is in doubt: submit it again, without its ticket."""
        if self.migration is None:
            return Resubmit()
        self.migration.with_kv = False
        self.migration.ticket = None
        return Resubmit(prefer=self.migration.target_id)

    def lost(self, instance_id: str, why: str) -> NextAction | None:
        """An instance is gone; None if that changes nothing for this request."""
        migration = self.migration
        if self.stage in HELD and instance_id == self.holder:
            if migration is not None:
                migration.with_kv = False
                migration.ticket = None
            return self.restart(why)
        if migration is None:
            return None
        if migration.with_kv and instance_id == migration.source_id:
            return self.doubted()  # the KV may not have been read completely
        if self.stage is Stage.HANDING_OVER and instance_id == migration.target_id:
            migration.target_id = None
        return None

    def restart(self, why: str) -> NextAction:
        """The holder failed this request.

        The request itself may be what crashes instances, so the number of restarts is bounded.
        """
        self.restarts += 1
        self.boundary_s = None  # from now on the boundary is not what it waits for
        if self.restarts > self._timeouts.max_restarts:
            return GiveUp(
                Unavailable(
                    f"{why.rstrip('.')}. This request was restarted "
                    f"{self._timeouts.max_restarts} times, the limit (cluster.max_restarts).",
                    code="instance_lost",
                )
            )
        target_id = None if self.migration is None else self.migration.target_id
        prefer = None if target_id == self.holder else target_id
        return Resubmit(prefer=prefer, avoid=self.holder)

    def expired(self, now: float) -> NextAction | None:
        """Time has passed; None before ``deadline_s``."""
        if self.deadline_s is None or now < self.deadline_s:
            return None
        if self.stage is Stage.WAITING:
            waited_s = self._timeouts.failover_timeout_s
            return GiveUp(
                Unavailable(f"No instance came back within {waited_s:g} s.", code="no_instance")
            )
        if self._awaits_answer():
            return self.restart(f"Instance {self.holder} did not answer in time.")
        return self.doubted()

    def answers_come(self, answered_s: float) -> None:
        """The holder answered a request at ``answered_s``, so it is alive: wait on from there."""
        if self._awaits_answer():
            self._stage_ends_s = answered_s + self._timeouts.accept_timeout_s

    # ---- inside -------------------------------------------------------------------------------

    def _awaits_answer(self) -> bool:
        """Whether it waits in the holder's queue, without a ticket that could expire."""
        with_kv = self.migration is not None and self.migration.with_kv
        return self.stage is Stage.SUBMITTED and not with_kv

    def _soon(self, now: float) -> float:
        return now + self._timeouts.migration_timeout_s

    def _enter(self, move: Move, deadline_s: float | None) -> None:
        """Move on. :raises IllegalTransition: no such row in the table; nothing has changed."""
        self.stage = advance(TRANSITIONS, self.stage, move)
        self._stage_ends_s = deadline_s

    def _end_migration(self, outcome: Outcome) -> None:
        self._outcomes[outcome] += 1
        self.migration = None
