"""The routes of all requests: submits them, moves them, resumes them after a loss.

`gateway.policy.cluster_view` decides where a request goes, `gateway.routing.route` what comes next
for it. The router carries that out. It owns the routes, and nothing else changes them.

The router must not know the link protocol's order or the membership's changes: the cluster calls
`on_step`, `on_accepted`, `on_rejected` and `on_lost`. Every call takes ``now``, monotonic seconds.
"""

from __future__ import annotations

from asyncio import Future
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import msgspec

from gateway.guard import broken, fail_broken
from gateway.policy.cluster_view import Passage, ViewRules
from gateway.policy.placement import Rules
from gateway.response.session import Session
from gateway.routing.acceptance import Acceptances
from gateway.routing.carrier import Carrier
from gateway.routing.chooser import Chooser
from gateway.routing.deadlines import Deadlines
from gateway.routing.instance import Instance
from gateway.routing.members import Members
from gateway.routing.route import (
    Arrival,
    GiveUp,
    NextAction,
    Outcome,
    Route,
    RouteTimeouts,
    Stage,
)
from gateway.routing.route_table import RouteTable
from gateway.routing.worker_link import FrameTooLarge
from gateway.schemas.errors import ApiError, InvalidRequest, Overloaded, Unavailable
from workers.messages import Accepted, Load, Rejected, SetPace, TokenRun

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Taken:
    """A run that was taken in, for what is decided after its step."""

    route: Route
    run: TokenRun
    arrival: Arrival | None  # of a migration that the run ended
    kv_blocks: int  # of that migration


class Router:
    """Owns the routes of all requests and carries out what comes next for each.

    :param on_progress: called with every session that something happened to.
    :param on_boundary: called with how a request passed its boundary, and the seconds until its
        first answering token.
    :param on_placed: called with the instance that a request was sent to.
    :param retry_after_s: the advice to clients that are refused because workers cannot keep up.
    """

    def __init__(
        self,
        members: Members,
        *,
        on_progress: Callable[[Session], None],
        on_boundary: Callable[[Passage, float], None],
        on_placed: Callable[[Instance], None] = lambda instance: None,
        rules: Rules,
        view_rules: ViewRules,
        timeouts: RouteTimeouts,
        retry_after_s: int = 2,
    ) -> None:
        self.migrations: Counter[Outcome] = Counter()  # ended
        self.failovers: Counter[str] = Counter()  # "resumed", "failed"
        self._closing = False  # nothing is submitted again
        self._members = members
        self._table = RouteTable()
        self.chooser = Chooser(members, self._table, rules, view_rules)
        self._on_progress = on_progress
        self._on_boundary = on_boundary
        self._on_placed = on_placed
        self._timeouts = timeouts
        self._retry_after_s = retry_after_s
        self._acceptances = Acceptances()
        self._deadlines = Deadlines(self._on_deadline)
        self._carrier = Carrier(members, self._table, self._deadlines)

    # ---- what others ask ----------------------------------------------------------------------

    @property
    def routes(self) -> Mapping[str, Route]:
        """All requests, by response."""
        return self._table.by_response

    def routes_of(self, instance_id: str) -> list[Route]:
        """The requests that an instance has, or was sent and has not answered."""
        return self._table.of(instance_id)

    def load_of(self, instance: Instance, now: float) -> Load:
        """What this gateway has on an instance, as placement counts it."""
        return self.chooser.load(instance, now)

    @property
    def migrating(self) -> list[Route]:
        """Requests on their way between two instances."""
        return self._table.migrating

    def reading_from(self, instance_id: str) -> bool:
        """Whether KV in an instance's memory is being read, or still to be read."""
        return any(
            m.source_id == instance_id and (m.with_kv or m.ticket is not None)
            for route in self.migrating
            if (m := route.migration) is not None
        )

    # ---- what clients want --------------------------------------------------------------------

    def begin(self, session: Session, now: float) -> Future[None]:
        """Submit a new request; the future is done when an instance has accepted it.

        :raises Unavailable: no instance is there.
        :raises Overloaded: every instance has too much waiting to be sent to it.
        """
        route = Route(session, self._timeouts, self.migrations)
        instance = self.chooser.for_new(route, now)
        if instance is None and self._members.in_service:
            raise Overloaded(
                "The workers cannot take further prompts as fast as they come.",
                code="server_overloaded",
                retry_after_s=self._retry_after_s,
            )
        if instance is None:
            raise Unavailable("No instance can serve now.", code="no_instance")
        accepted = self._acceptances.wait_for(session)
        self._table.add(route)
        self._submit_to(instance, route, now)
        return accepted

    def withdraw(self, session: Session) -> None:
        """Forget a request whose client left before it was accepted."""
        if (route := self.routes.get(session.response_id)) is not None:
            self._carrier.stop(route)
            self._end(route)

    def cancel(self, session: Session, now: float) -> None:
        """Have the instance stop a request; the last run confirms it.

        The router does not wait for an instance that does not confirm in time.
        """
        if (route := self.routes.get(session.response_id)) is None:
            return
        if self._carrier.stop(route):
            route.cancelled(now)
            self._deadlines.set(route, now)
        else:
            session.confirm_cancel(now)  # no instance has it
            self._end(route)

    def set_pace(self, session: Session) -> None:
        """Pass a reader's new pace on to the instance."""
        if (route := self.routes.get(session.response_id)) is not None:
            self._carrier.send(route, SetPace(request_id=route.wire_id, pace=session.pace))

    def break_off(self, session: Session) -> bool:
        """End a request after a bug, as far as it still can be ended; False without a route."""
        route = self.routes.get(session.response_id)
        if route is not None:
            self._break_off(route)
        return route is not None

    def close(self, now: float) -> None:
        """Requests without an instance fail now; requests that lose theirs fail from now on."""
        self._closing = True
        for route in list(self.routes.values()):
            if route.stage is Stage.WAITING or route.session.finished:
                self._guarded(route, self._fail, route, closing(), now)

    # ---- what happens to instances ------------------------------------------------------------

    def on_step(self, instance: Instance, runs: Sequence[TokenRun], now: float) -> None:
        """Take in what a step brought its requests, then decide on those at their boundary.

        The decisions come last because placement looks at all requests of the step.
        """
        held = self._table.held_by(instance.instance_id)
        decide = []
        for run in runs:
            route = held.get(run.request_id)
            if route is None:
                continue  # a submission that is over
            try:
                session = route.session
                if (
                    not run.turns
                    and run.finish is None
                    and run.position == session.output_tokens
                    and session.streaming
                    and route.steady
                ):
                    # As for most runs, nothing but its tokens matters.
                    if session.wheel_slot is not None and session.put_off(run, now):
                        continue
                    if session.tokens(run, now):
                        self._on_progress(session)
                        if not route.session.streaming:  # a bug ended it
                            self._stop(route)
                elif (taken := self.on_run(instance, route, run, now)) is not None:
                    decide.append(taken)
            except Exception:  # noqa: BLE001 (`_failed` logs it)
                self._failed(route)
        for taken in decide:
            self._guarded(taken.route, self._decide, instance, taken, now)

    def on_run(self, instance: Instance, route: Route, run: TokenRun, now: float) -> _Taken | None:
        """Take in the tokens of one request; None if nothing is to be decided about it."""
        session, finish = route.session, run.finish
        if run.position != session.output_tokens and session.in_engine:
            route.log.error("tokens_lost", position=run.position)
            why = f"Tokens were lost between gateway and instance {instance.instance_id}."
            self._continue(route, route.restart(why), now)
            return None
        if finish is not None:
            self._table.let_go(route)
            if finish.reason in ("error", "cancelled") and not session.cancelling:
                run = msgspec.structs.replace(run, finish=None)  # it goes on elsewhere
        kv_blocks = route.migration.kv_blocks if route.migration is not None else 0
        arrival = self._progressed(instance, route, run, now)
        session.tokens(run, now)
        self._on_progress(session)
        if session.finished or not session.in_engine:
            self.chooser.ended(route, instance, now)
            self._stop(route)
        elif finish is None:
            return _Taken(route, run, arrival, kv_blocks)
        elif finish.reason == "handed_over":
            self._continue(route, route.handed_over(finish.ticket), now)
        elif finish.param is not None:  # it would end like this everywhere
            param = session.generation.public_param(finish.param)
            self._fail(route, InvalidRequest(finish.message or "", param=param), now)
        else:
            why = finish.message or f"Instance {instance.instance_id} gave this request up."
            self._continue(route, route.restart(why), now)
        return None

    def _progressed(
        self, instance: Instance, route: Route, run: TokenRun, now: float
    ) -> Arrival | None:
        migration = route.migration
        arrival = route.progressed(run.kv_tokens) if run.token_ids else None
        if arrival is not None and migration is not None:
            route.log.info(
                "migration_finished",
                instance_id=instance.instance_id,
                source_id=migration.source_id,
                reason=migration.reason,
                outcome=arrival,
                kv_tokens=run.kv_tokens or 0,
                seconds=round(now - migration.begun_s, 3),
            )
        return arrival

    def on_accepted(self, instance: Instance, message: Accepted, now: float) -> None:
        """An instance has queued a request."""
        route = self._table.find(instance.instance_id, message.request_id)
        if route is not None:
            self._guarded(route, self._accepted, instance, route, message, now)

    def on_rejected(self, instance: Instance, message: Rejected, now: float) -> None:
        """An instance has refused a request."""
        route = self._table.find(instance.instance_id, message.request_id)
        if route is not None:
            self._table.let_go(route)
            self._guarded(route, self._rejected, route, message, now)

    def on_lost(self, instance_id: str, now: float) -> None:
        """An instance is gone; its requests go on elsewhere."""
        self.chooser.lost(instance_id)
        held = self._table.lose(instance_id)
        others = [route for route in self.migrating if route not in held]
        why = f"Instance {instance_id} was lost while it served this request."
        for route in [*held, *others]:
            self._guarded(route, self._lost, route, instance_id, why, now)

    def place_waiting(self, now: float) -> None:
        """Try again to place the requests that wait for an instance."""
        for route in list(self.routes.values()):
            if route.stage is Stage.WAITING:
                self._guarded(route, self._place_again, route, now)

    def move_away(self, source: Instance, now: float) -> None:
        """Move the requests of an instance to others, within the bounds on migrations.

        The bounds on migrations do not hold for a request that moves without its KV: it is an
        ordinary new request at its target.
        """
        held = self.routes_of(source.instance_id)
        if not held:
            return  # as for most of the time that it is drained
        others = [
            other
            for other in self._members.usable(now)
            if other is not source and self._members.speaks(other, now)
        ]
        targets = [other for other in others if other.can_read(source)]
        if not others:
            return
        open_ = self.chooser.open_targets(source, targets)
        for route in held:
            if self._guarded(route, self._move_away, route, source, targets, open_, now):
                open_ = self.chooser.open_targets(source, targets)

    # ---- inside: one request ------------------------------------------------------------------

    def _guarded(
        self, route: Route, action: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T | None:
        """Do something for one request. If that raises, this request alone ends, with an error.

        Code that handles several requests, or that runs where an exception would end more than one
        request, calls what it does for each through here.
        """
        try:
            return action(*args, **kwargs)
        except Exception:  # noqa: BLE001 (`_failed` logs it)
            self._failed(route)
            return None

    def _failed(self, route: Route) -> None:
        """End a request after the exception that is being handled."""
        route.log.exception("request_failed")
        self._break_off(route)

    def _break_off(self, route: Route) -> None:
        session = route.session
        if not self._acceptances.refuse(session, broken()):
            fail_broken(session)
        try:
            self._carrier.stop(route)
            self._end(route)
        except Exception:
            route.log.exception("route_not_ended")
        self._on_progress(session)

    def _accepted(self, instance: Instance, route: Route, message: Accepted, now: float) -> None:
        session = route.session
        if session.failovers < route.restarts:
            session.failovers = route.restarts
            self.failovers["resumed"] += 1
        route.accepted(now)
        self._deadlines.set(route, now)
        session.accepted(instance.instance_id, message.prompt_tokens, message.reasoning)
        instance.prefixes.expect(route.prefixes, message.prompt_tokens)
        self.chooser.accepted(route, instance, message.prompt_tokens)
        self._on_progress(session)
        self._acceptances.accept(session)

    def _rejected(self, route: Route, message: Rejected, now: float) -> None:
        if message.code == "engine_failed":
            self._continue(route, route.restart(message.message), now)
        elif route.migration is not None and route.migration.with_kv:
            self._continue(route, route.doubted(), now)
        elif message.code == "internal_error":
            # A bug in the worker; the client has done nothing wrong.
            route.log.error("request_failed_in_worker", reason=message.message)
            self._fail(route, broken(), now)
        else:
            param = route.session.generation.public_param(message.param)
            error = InvalidRequest(message.message, param=param, code=message.code)
            self._fail(route, error, now)

    def _lost(self, route: Route, instance_id: str, why: str, now: float) -> None:
        self._continue(route, route.lost(instance_id, why), now)

    def _place_again(self, route: Route, now: float) -> None:
        self._submit_or_wait(route, self.chooser.for_resumed(route, now), now)

    def _move_away(
        self,
        route: Route,
        source: Instance,
        targets: Sequence[Instance],
        open_: Sequence[Instance],
        now: float,
    ) -> bool:
        """Move one request away; True if it takes its KV along.

        :param targets: instances that can read the KV of the source.
        :param open_: those of them to which one more request may migrate.
        """
        fresh = route.stage is Stage.SUBMITTED and route.migration is None
        if route.session.cancelling or not (fresh or route.stage is Stage.RUNNING):
            return False
        if fresh or not targets:
            action = route.withdraw(source.blocks(route.session), now)
            self._continue(route, action, now)
            return False
        # If none is open, the next request that arrives makes room.
        target_id = self.chooser.among_open(open_, now)
        if target_id is not None:
            self._carrier.hand_over(route, source, target_id, "drain", now)
        return target_id is not None

    def _continue(self, route: Route, action: NextAction | None, now: float) -> None:
        """Carry out what the route says comes next; None: nothing."""
        if action is None:
            return
        session = route.session
        self._carrier.stop(route)
        self._table.let_go(route)
        if session.cancelling or session.finished:
            session.confirm_cancel(now)
            self._end(route)
            self._on_progress(session)
            return
        session.left()
        if isinstance(action, GiveUp):
            self._fail(route, action.error, now)
        elif self._closing:
            self._fail(route, closing(), now)
        else:
            chosen = self.chooser.for_resumed(route, now, prefer=action.prefer, avoid=action.avoid)
            self._submit_or_wait(route, chosen, now)

    def _fail(self, route: Route, error: ApiError, now: float) -> None:
        """Refuse a request that was never accepted; end the response of any other."""
        session = route.session
        if route.restarts > session.failovers:
            self.failovers["failed"] += 1
        if not self._acceptances.refuse(session, error):
            session.fail(error, now)
        self._end(route)
        self._on_progress(session)

    def _stop(self, route: Route) -> None:
        """The response has ended here; the engine may go on, because it cannot know that."""
        self._carrier.stop(route)
        self._end(route)

    def _end(self, route: Route) -> None:
        """No instance is to go on with it."""
        self._table.remove(route)
        self._deadlines.clear(route)
        self._acceptances.accept(route.session)
        route.over()

    def _on_deadline(self, route: Route, now: float) -> None:
        self._guarded(route, self._expire, route, now)

    def _expire(self, route: Route, now: float) -> None:
        if (holder := self._members.open.get(route.holder or "")) is not None:
            route.answers_come(holder.answered_s)
        action = route.expired(now)
        if action is None:
            self._deadlines.set(route, now)  # a timer of whole milliseconds may be early
            return
        route.log.warning("deadline_passed", stage=route.stage.value)
        self._continue(route, action, now)

    # ---- inside: the phase boundary -----------------------------------------------------------

    def _decide(self, instance: Instance, taken: _Taken, now: float) -> None:
        """Decide at the boundary; after it, note how long the first answering token took."""
        route, run = taken.route, taken.run
        answered = bool(run.token_ids)
        turn = run.turns[-1] if run.turns else None
        if (
            turn is not None
            and turn.phase == "answering"
            and not route.answered
            and not route.session.calling_tokens  # after a call the response is about to end
        ):
            # Only the first time: a request moves at most once for its answer.
            route.boundary_s, route.answered = now, True
            answered = turn.at < len(run.token_ids)
            target_id = self.chooser.at_boundary(route, instance, now)
            if target_id is not None:
                self._carrier.hand_over(route, instance, target_id, "boundary", now)
        if not answered or route.boundary_s is None or route.migration is not None:
            return
        passage: Passage = taken.arrival or "stayed"
        seconds = self.chooser.note_first_answer(
            passage, instance, taken.kv_blocks, route.boundary_s, now
        )
        route.boundary_s = None
        self._on_boundary(passage, seconds)

    # ---- inside: instances --------------------------------------------------------------------

    def _submit_or_wait(self, route: Route, instance: Instance | None, now: float) -> None:
        if instance is not None:
            self._submit_to(instance, route, now)
        elif route.stage is not Stage.WAITING:
            self._carrier.suspend(route, now)

    def _submit_to(self, instance: Instance, route: Route, now: float) -> None:
        try:
            self._carrier.submit(route, instance, now)
        except FrameTooLarge:
            error = InvalidRequest(
                "The conversation is longer than the model's context length.",
                param=route.session.generation.messages_param,
                code="context_length_exceeded",
            )
            self._fail(route, error, now)
        else:
            self._on_placed(instance)


def closing() -> Unavailable:
    """The error of requests that the end of the gateway ends."""
    return Unavailable("The server is shutting down.", code="draining")
