"""The instances together: they come and go, and say what became of their requests.

Hands workers' messages to the sessions they belong to, and to the `Router`, which knows where every
request is. It does not start processes (`gateway.launchers.local`) and does not know clients.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import assert_never

import msgspec
import structlog

from gateway.guard import broken
from gateway.policy.placement import Rules
from gateway.response.session import Session
from gateway.routing.instance import Instance, Totals, ViewRules
from gateway.routing.route import Outcome, Route, RouteTimeouts, Stage
from gateway.routing.router import Router, closing
from gateway.routing.worker_link import WorkerLink
from gateway.schemas.errors import InvalidRequest
from workers.messages import (
    Accepted,
    Cancel,
    Heartbeat,
    MeetPeer,
    PeerMet,
    Rejected,
    SetPace,
    Step,
    ToGateway,
    TokenRun,
    Welcome,
)

log = structlog.get_logger()

_MEET_AGAIN_S = 10.0  # after a meeting that failed
_DEFAULT_RULES, _DEFAULT_VIEW, _DEFAULT_TIMEOUTS = Rules(), ViewRules(), RouteTimeouts()


def _nobody(how: str, seconds: float) -> None:
    """Nobody wants to know how requests pass their boundary."""


class Cluster:
    """All instances with an open link, and the requests that they have.

    :param on_progress: called with every session that something happened to.
    :param on_boundary: see `Router`, as for ``silent_s`` and ``retry_after_s``.
    """

    def __init__(
        self,
        *,
        on_progress: Callable[[Session], None],
        on_boundary: Callable[[str, float], None] = _nobody,
        rules: Rules = _DEFAULT_RULES,
        view_rules: ViewRules = _DEFAULT_VIEW,
        timeouts: RouteTimeouts = _DEFAULT_TIMEOUTS,
        silent_s: float = 3.5,
        retry_after_s: int = 2,
    ) -> None:
        self.instances: dict[str, Instance] = {}
        self.ever_served = False  # whether any instance was ever there
        self.router = Router(
            self.instances,
            on_progress=on_progress,
            on_boundary=on_boundary,
            rules=rules,
            view_rules=view_rules,
            timeouts=timeouts,
            silent_s=silent_s,
            retry_after_s=retry_after_s,
        )
        self._on_progress = on_progress
        self._ended_totals = Totals()  # counted by engines that are gone
        self._changed = asyncio.Event()

    # ---- instances come and go ----------------------------------------------------------------

    async def serve(self, link: WorkerLink) -> None:
        """Take an instance in and serve its link until it ends.

        :raises LinkError: when it ends. Its requests are on their way to others by then.
        """
        instance = Instance(link)
        link.on_room = self.router.place_waiting
        self._join(instance)
        try:
            await link.run(lambda message: self._heard(instance, message))
        finally:
            self._lose(instance)

    @property
    def can_serve(self) -> bool:
        """Whether a new request would find an instance."""
        return bool(self.instances.keys() - self.router.drained)

    async def wait_for_instances(self, count: int) -> None:
        """Return once ``count`` instances are there."""
        await self._until(lambda: len(self.instances) >= count)

    def _join(self, instance: Instance) -> None:
        name = instance.instance_id
        self.instances[name] = instance
        self.ever_served = True
        log.info("instance_joined", instance_id=name, engine=instance.welcome.engine)
        for other in list(self.instances.values()):
            if other is not instance:
                _introduce(instance, other)
                _introduce(other, instance)
        self.router.place_waiting()
        self._drain_further()
        self._changed.set()

    def _lose(self, instance: Instance) -> None:
        name = instance.instance_id
        if self.instances.get(name) is instance:
            del self.instances[name]
        if instance.stats is not None:
            self._ended_totals = self._ended_totals.plus(instance.stats)
        held = list(instance.routes.values())
        instance.routes.clear()
        log.warning("instance_lost", instance_id=name, requests=len(held))
        why = f"Instance {name} was lost while it served this request."
        for route in [*held, *(route for route in self.router.migrating if route not in held)]:
            self.router.guarded(route, partial(self._lost_under, route, name, why))
        self._changed.set()

    def _lost_under(self, route: Route, instance_id: str, why: str) -> None:
        self.router.go_on(route, route.lost(instance_id, why))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # ---- taking instances out of service ------------------------------------------------------

    def drain(self, instance_id: str) -> None:
        """Give an instance nothing new, and move away what it has, as far as others can take it."""
        self.router.drained.add(instance_id)
        log.info("instance_draining", instance_id=instance_id)
        self._drain_further()

    def undrain(self, instance_id: str) -> None:
        """Let an instance serve again."""
        self.router.drained.discard(instance_id)
        self.router.place_waiting()
        self._drain_further()
        self._changed.set()

    async def emptied(self, instance_id: str) -> bool:
        """Return once a drained instance has no request, or is gone; False if it is undrained."""

        def empty() -> bool:
            instance = self.instances.get(instance_id)
            if instance is None:
                return True
            return not instance.routes and not self.router.reading_from(instance_id)

        await self._until(lambda: empty() or instance_id not in self.router.drained)
        return instance_id in self.router.drained

    async def gone(self, instance: Instance) -> None:
        """Return once the link of this instance has ended."""
        await self._until(lambda: self.instances.get(instance.instance_id) is not instance)

    async def present(self, instance_id: str) -> None:
        """Return once an instance is there."""
        await self._until(lambda: instance_id in self.instances)

    def _drain_further(self) -> None:
        for name in self.router.drained & self.instances.keys():
            self.router.move_away(self.instances[name])
        self._changed.set()

    # ---- what the service asks ----------------------------------------------------------------

    async def submit(self, session: Session) -> None:
        """Place a request and wait until an instance has accepted it.

        :raises Unavailable: no instance is there, or none came back in time.
        :raises Overloaded: too much waits to be sent to each.
        :raises InvalidRequest: the worker found the request wrong.
        """
        answered = self.router.begin(session)
        try:
            await answered
        except asyncio.CancelledError:
            # The client went away before it knew the response: nobody can ask for it again.
            if (route := self.router.routes.get(session.response_id)) is not None:
                self.router.tell(route, Cancel(request_id=route.wire_id))
                self.router.end(route)
            raise

    def cancel(self, session: Session) -> None:
        """Tell the session's instance to stop it. The instance confirms with the last run."""
        route = self.router.routes.get(session.response_id)
        if route is not None and not self.router.cancel(route):
            session.confirm_cancel(time.monotonic())  # there is nobody to confirm
            self.router.end(route)

    def break_off(self, session: Session) -> bool:
        """End a response after a bug, see `Router.break_off`; False if it has no route."""
        route = self.router.routes.get(session.response_id)
        if route is not None:
            self.router.break_off(route)
        return route is not None

    def set_pace(self, session: Session) -> None:
        """Tell the session's instance how its reader reads now."""
        if (route := self.router.routes.get(session.response_id)) is not None:
            self.router.tell(route, SetPace(request_id=route.wire_id, pace=session.pace))

    def close(self) -> None:
        """Requests that have no instance, or lose it from now on, fail at once."""
        self.router.closing = True
        for route in list(self.router.routes.values()):
            if route.stage is Stage.WAITING or route.session.finished:
                self.router.guarded(route, partial(self.router.fail, route, closing()))

    def totals(self) -> Totals:
        """Of all engines since the gateway started."""
        totals = self._ended_totals
        for instance in self.instances.values():
            if instance.stats is not None:
                totals = totals.plus(instance.stats)
        return totals

    # ---- what workers say ---------------------------------------------------------------------

    def _heard(self, instance: Instance, message: ToGateway) -> None:
        """Take a message in. What goes wrong with one message does not end the link of all."""
        try:
            self._handle(instance, message)
        except Exception:
            log.exception(
                "message_failed", instance_id=instance.instance_id, kind=type(message).__name__
            )

    def _handle(self, instance: Instance, message: ToGateway) -> None:
        match message:
            case Step():
                self._step(instance, message)
            case Heartbeat():
                instance.stats = message.stats
                instance.since_step_s = message.since_step_s
            case Accepted():
                instance.answered_s = time.monotonic()
                if (route := instance.routes.get(message.request_id)) is not None:
                    self.router.guarded(route, partial(self._accepted, instance, route, message))
            case Rejected():
                instance.answered_s = time.monotonic()
                if (route := instance.routes.pop(message.request_id, None)) is not None:
                    self.router.guarded(route, partial(self._rejected, route, message))
            case PeerMet():
                self._peer_met(instance, message)
            case Welcome():
                log.warning("second_welcome_ignored", instance_id=instance.instance_id)
            case _:
                assert_never(message)
        if self.router.drained:
            self._drain_further()

    def _step(self, instance: Instance, step: Step) -> None:
        instance.stats = step.stats
        decisions: list[tuple[Route, Callable[[], None]]] = []
        for run in step.runs:
            route = instance.routes.get(run.request_id)
            if route is not None:  # else of a submission that is over
                take_in = partial(self._run, instance, route, run, decisions)
                self.router.guarded(route, take_in)
        # Decided once all of the step is known, as its statistics are.
        for route, decide in decisions:
            self.router.guarded(route, decide)

    def _run(
        self,
        instance: Instance,
        route: Route,
        run: TokenRun,
        decisions: list[tuple[Route, Callable[[], None]]],
    ) -> None:
        """Take in what a step brought one request; add what is to be decided after the step."""
        session, finish = route.session, run.finish
        if run.position != len(session.token_ids) and session.in_engine:
            why = f"Tokens were lost between gateway and instance {instance.instance_id}."
            log.error("tokens_lost", request_id=session.response_id, position=run.position)
            self.router.go_on(route, route.restart(why))
            return
        if finish is not None:
            del instance.routes[run.request_id]
            if finish.reason in ("error", "cancelled") and not session.cancelling:
                run = msgspec.structs.replace(run, finish=None)  # not the end: it goes on elsewhere
        blocks = route.migration.kv_blocks if route.migration is not None else 0
        outcome = self._progressed(instance, route, run)
        session.tokens(run, time.monotonic())
        self._on_progress(session)
        if session.finished or not session.in_engine:
            # If it failed here, the engine does not know.
            self.router.tell(route, Cancel(request_id=route.wire_id))
            self.router.end(route)
        elif finish is None:
            decide = partial(self.router.passed_boundary, instance, route, run, outcome, blocks)
            decisions.append((route, decide))
        elif finish.reason == "handed_over":
            self.router.go_on(route, route.handed_over(finish.ticket))
        else:
            why = finish.message or f"Instance {instance.instance_id} gave this request up."
            self.router.go_on(route, route.restart(why))

    def _progressed(self, instance: Instance, route: Route, run: TokenRun) -> Outcome | None:
        migration = route.migration
        outcome = route.progressed(run.kv_tokens) if run.token_ids else None
        if outcome is not None and migration is not None:
            log.info(
                "migration_finished",
                request_id=route.session.response_id,
                instance_id=instance.instance_id,
                source_id=migration.source_id,
                outcome=outcome,
                kv_tokens=run.kv_tokens or 0,
                seconds=round(time.monotonic() - migration.begun_s, 3),
            )
        return outcome

    def _accepted(self, instance: Instance, route: Route, message: Accepted) -> None:
        session = route.session
        self.router.accepted(route)
        session.accepted(instance.instance_id, message.prompt_tokens, message.reasoning)
        self._on_progress(session)
        self.router.answer(session)

    def _rejected(self, route: Route, message: Rejected) -> None:
        if message.code == "engine_failed":
            self.router.go_on(route, route.restart(message.message))
        elif route.migration is not None and route.migration.with_kv:
            self.router.go_on(route, route.doubted())
        elif message.code == "internal_error":
            # A bug in the worker; the client has done nothing wrong.
            log.error("request_failed_in_worker", request_id=route.wire_id, reason=message.message)
            self.router.fail(route, broken())
        else:
            param = route.session.generation.public_param(message.param)
            error = InvalidRequest(message.message, param=param, code=message.code)
            self.router.fail(route, error)

    def _peer_met(self, instance: Instance, message: PeerMet) -> None:
        if message.error is None:
            instance.readable.add(message.engine_id)
            self._drain_further()
            return
        log.warning("peer_not_met", instance_id=instance.instance_id, reason=message.error)
        asyncio.get_running_loop().call_later(_MEET_AGAIN_S, self._meet_again, instance, message)

    def _meet_again(self, instance: Instance, met: PeerMet) -> None:
        for other in self.instances.values():
            endpoint = other.welcome.endpoint
            if endpoint is not None and endpoint.engine_id == met.engine_id:
                _introduce(instance, other)


def _introduce(reader: Instance, source: Instance) -> None:
    """Let one instance connect to the KV memory of another, before the first request moves."""
    if reader.hands_over and source.welcome.endpoint is not None:
        reader.link.send(MeetPeer(peer=source.welcome.endpoint))
