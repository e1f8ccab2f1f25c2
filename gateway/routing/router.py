"""The requests on their way through the instances: submits them, moves them, goes on after a loss.

`gateway.policy.placement` decides where, `gateway.routing.route` what comes next; this carries it
out and keeps the deadlines. It does not read the link: `gateway.routing.cluster` tells it what
workers said.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from gateway.admission import user_of
from gateway.guard import broken, fail_broken
from gateway.policy.boundary_costs import BoundaryTimes
from gateway.policy.placement import (
    InstanceView,
    MoveCost,
    Rules,
    place_at_boundary,
    place_new_request,
)
from gateway.response.session import Session
from gateway.routing.instance import Instance, ViewRules
from gateway.routing.route import GiveUp, NextAction, Outcome, Route, RouteTimeouts, Stage
from gateway.routing.worker_link import FrameTooLarge
from gateway.schemas.errors import ApiError, InvalidRequest, Overloaded, Unavailable
from workers.messages import Cancel, HandOver, Sampling, Submit, Ticket, TokenRun, ToWorker

log = structlog.get_logger()


class Router:
    """All requests that instances have, or are to have.

    :param instances: those with an open link; the cluster's own, kept by it.
    :param on_progress: called with every session that something happened to.
    :param on_boundary: called with how a request passed its boundary ("stayed", "moved",
        "recomputed") and the seconds until its first answering token.
    :param retry_after_s: what a client is told that is refused because workers cannot keep up.
    :param silent_s: an instance that was not heard for so long gets nothing while others are there.
    """

    def __init__(
        self,
        instances: dict[str, Instance],
        *,
        on_progress: Callable[[Session], None],
        on_boundary: Callable[[str, float], None],
        rules: Rules,
        view_rules: ViewRules,
        timeouts: RouteTimeouts,
        silent_s: float = 3.5,
        retry_after_s: int = 2,
    ) -> None:
        self.routes: dict[str, Route] = {}  # by response
        self.drained: set[str] = set()  # names of instances that take nothing new
        self.migrations: Counter[str] = Counter()  # ended, by `Outcome`
        self.failovers: Counter[str] = Counter()  # "resumed", "failed"
        self.closing = False  # nothing is submitted again
        self._instances = instances
        self._on_progress = on_progress
        self._on_boundary = on_boundary
        self._rules = rules
        self._view_rules = view_rules
        self._timeouts = timeouts
        self._silent_s = silent_s
        self._retry_after_s = retry_after_s
        self._boundary_times = BoundaryTimes()
        self._answers: dict[str, asyncio.Future[None]] = {}  # of those that none has accepted yet
        self._timers: dict[str, asyncio.TimerHandle] = {}  # for their deadlines
        self._placed = 0  # for taking turns

    @property
    def migrating(self) -> list[Route]:
        """Requests on their way between two instances."""
        return [route for route in self.routes.values() if route.migration is not None]

    def reading_from(self, instance_id: str) -> bool:
        """Whether KV in an instance's memory is still to be read, or being read."""
        return any(
            m.source_id == instance_id and (m.with_kv or m.ticket is not None)
            for route in self.migrating
            if (m := route.migration) is not None
        )

    # ---- a request's beginning and end --------------------------------------------------------

    def begin(self, session: Session) -> asyncio.Future[None]:
        """Submit a new request; the result comes when an instance has accepted it.

        :raises Unavailable: no instance is there.
        :raises Overloaded: too much waits to be sent to each.
        """
        instance = self._choose(session)
        if instance is None and self._instances.keys() - self.drained:
            raise Overloaded(
                "The workers cannot take further prompts as fast as they come.",
                code="server_overloaded",
                retry_after_s=self._retry_after_s,
            )
        if instance is None:
            raise Unavailable("No instance can serve now.", code="no_instance")
        route = Route(session, self._timeouts, self.migrations)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.routes[session.response_id] = route
        self._answers[session.response_id] = answered
        self._submit_to(instance, route)
        return answered

    def accepted(self, route: Route) -> None:
        """Its holder has taken it in."""
        session = route.session
        if session.failovers < route.restarts:
            session.failovers = route.restarts
            self.failovers["resumed"] += 1
        route.accepted(time.monotonic())
        self._arm(route)

    def answer(self, session: Session) -> None:
        """Whoever waits for the acceptance of a new request may go on."""
        answered = self._answers.pop(session.response_id, None)
        if answered is not None and not answered.done():
            answered.set_result(None)

    def fail(self, route: Route, error: ApiError) -> None:
        """Refuse a request that was never accepted, else end its response."""
        session = route.session
        if route.restarts > session.failovers:
            self.failovers["failed"] += 1
        answered = self._answers.pop(session.response_id, None)
        if answered is None:
            session.fail(error, time.monotonic())
        elif not answered.done():
            answered.set_exception(error)
        self.end(route)
        self._on_progress(session)

    def end(self, route: Route) -> None:
        """No instance is to go on with it."""
        self._detach(route)
        self.routes.pop(route.session.response_id, None)
        self._disarm(route)
        self.answer(route.session)
        route.over()

    def cancel(self, route: Route) -> bool:
        """Tell the instance that has a request to stop it; False if none has it.

        An instance that does not confirm in time is not waited for.
        """
        told = self.tell(route, Cancel(request_id=route.wire_id))
        if told:
            route.cancelled(time.monotonic())
            self._arm(route)
        return told

    def guarded(self, route: Route, action: Callable[[], None]) -> None:
        """Do something for one request. If that raises, this request alone ends, with an error.

        Whatever handles several requests, or runs where an exception would end more than one
        request, does it through here.
        """
        try:
            action()
        except Exception:
            log.exception("request_failed", request_id=route.session.response_id)
            self.break_off(route)

    def break_off(self, route: Route) -> None:
        """End a request after a bug, as far as it still can be ended."""
        session = route.session
        answered = self._answers.pop(session.response_id, None)
        if answered is None:
            fail_broken(session)
        elif not answered.done():
            answered.set_exception(broken())
        try:
            self.tell(route, Cancel(request_id=route.wire_id))
            self.end(route)
        except Exception:
            log.exception("route_not_ended", request_id=session.response_id)
        self._on_progress(session)

    def tell(self, route: Route, message: ToWorker) -> bool:
        """Send something to the instance that has the request; False if none has it."""
        holder = self._instances.get(route.holder or "")
        if holder is None or holder.routes.get(route.wire_id) is not route:
            return False
        holder.link.send(message)
        return True

    # ---- from one instance to another ---------------------------------------------------------

    def go_on(self, route: Route, step: NextAction | None) -> None:
        """Carry out what the route says comes next."""
        if step is None:
            return
        session, now = route.session, time.monotonic()
        self.tell(route, Cancel(request_id=route.wire_id))
        self._detach(route)
        if session.cancelling or session.finished:
            session.confirm_cancel(now)
            self.end(route)
            self._on_progress(session)
            return
        session.left()
        if isinstance(step, GiveUp):
            self.fail(route, step.error)
        elif self.closing:
            self.fail(route, closing())
        else:
            named = next((i for i in self._usable() if i.instance_id == step.prefer), None)
            self._submit_or_wait(route, named or self._choose(session, step.avoid, begun=True))

    def place_waiting(self) -> None:
        """Instances may be there again for requests that wait for one."""
        for route in list(self.routes.values()):
            if route.stage is Stage.WAITING:
                self.guarded(route, partial(self._place_waiting, route))

    def _place_waiting(self, route: Route) -> None:
        self._submit_or_wait(route, self._choose(route.session, begun=True))

    def move_away(self, instance: Instance) -> None:
        """Let the requests of an instance leave it, as many at once as may migrate.

        What is on its way without KV is bound by nothing: it is an ordinary new request there.
        """
        if not instance.routes:
            return  # as for most of the time that it is drained
        now = time.monotonic()
        others = [
            other
            for other in self._usable()
            if other is not instance and now - other.link.last_heard_s < self._silent_s
        ]
        if not others:
            return
        readers = [other for other in others if other.can_read(instance)]
        open_ = self._open_to(instance, readers)

        def move(route: Route) -> None:
            nonlocal open_
            fresh = route.stage is Stage.SUBMITTED and route.migration is None
            if route.session.cancelling or not (fresh or route.stage is Stage.RUNNING):
                return
            if fresh or not readers:
                self.go_on(route, route.withdraw(instance.blocks(route.session), now))
            elif open_:  # else each that arrives makes room
                target_id = place_new_request(
                    self._views(open_), self._rules, placed_before=self._placed
                )
                assert target_id is not None
                self._placed += 1
                self._hand_over(instance, route, target_id)
                open_ = self._open_to(instance, readers)

        for route in list(instance.routes.values()):
            self.guarded(route, partial(move, route))

    def passed_boundary(
        self, instance: Instance, route: Route, run: TokenRun, how: Outcome | None, blocks: int
    ) -> None:
        """Decide at the boundary; after it, note how long the first answering token took.

        :param how: the outcome of a migration that this run ended, with its ``blocks`` of KV.
        """
        now = time.monotonic()
        answered = bool(run.token_ids)
        if run.boundary is not None:
            route.boundary_s = now
            answered = run.boundary + 1 < len(run.token_ids)
            self._decide_at_boundary(instance, route, now)
        if not answered or route.boundary_s is None or route.migration is not None:
            return
        seconds = now - route.boundary_s
        route.boundary_s = None
        self._on_boundary(how or "stayed", seconds)
        if how == "moved":
            self._boundary_times.moved(blocks, seconds, now)
        elif how is None:
            self._boundary_times.stayed(instance.instance_id, seconds, now)

    # ---- inside -------------------------------------------------------------------------------

    def _decide_at_boundary(self, instance: Instance, route: Route, now: float) -> None:
        session = route.session
        if self._rules.boundary == "off" or route.stage is not Stage.RUNNING or session.cancelling:
            return
        if _counts_its_output(session.generation.sampling):
            return
        readers = [other for other in self._usable() if other.can_read(instance)]
        if not readers or instance.instance_id in self.drained:
            return
        blocks = instance.blocks(session)

        def cost() -> MoveCost | None:
            unnoticed_s = session.delivery.targets.ttfat_s
            return self._boundary_times.cost(instance.instance_id, blocks, unnoticed_s, now)

        chosen = place_at_boundary(
            self._views([instance, *readers], at_boundary=session),
            instance.instance_id,
            blocks,
            self._rules,
            under_way=len(self.migrating),
            cost=cost,
        )
        if chosen != instance.instance_id:
            self._hand_over(instance, route, chosen)

    def _hand_over(self, source: Instance, route: Route, target_id: str) -> None:
        route.hand_over(target_id, source.blocks(route.session), time.monotonic())
        source.link.send(HandOver(request_id=route.wire_id))
        self._arm(route)
        log.info(
            "request_moving",
            request_id=route.session.response_id,
            instance_id=source.instance_id,
            target_id=target_id,
        )

    def _open_to(self, source: Instance, readers: Sequence[Instance]) -> list[Instance]:
        """Those to which one more may go: neither side, nor all together, has as many as it may."""
        in_all, each = self._rules.max_migrations, self._rules.max_migrations_per_instance
        under_way = [route.migration for route in self.migrating if route.migration is not None]
        if in_all and len(under_way) >= in_all:
            return []
        if not each:
            return list(readers)
        own: Counter[str | None] = Counter()
        for migration in under_way:
            own.update({migration.source_id, migration.target_id})
        if own[source.instance_id] >= each:
            return []
        return [reader for reader in readers if own[reader.instance_id] < each]

    def _submit_or_wait(self, route: Route, instance: Instance | None) -> None:
        if instance is not None:
            self._submit_to(instance, route)
        elif route.stage is not Stage.WAITING:
            log.info("request_waits", request_id=route.session.response_id)
            route.waits(time.monotonic())
            self._arm(route)

    def _submit_to(self, instance: Instance, route: Route) -> None:
        now = time.monotonic()
        session = route.session
        generation = session.generation
        ticket = self._usable_ticket(route, instance, now)
        route.submitted(instance.instance_id, now, with_ticket=ticket is not None)
        instance.routes[route.wire_id] = route
        self._arm(route)
        submit = Submit(
            request_id=route.wire_id,
            messages=generation.messages,
            sampling=generation.sampling,
            pace=session.pace,
            thinking=generation.thinking,
            known_token_ids=tuple(session.token_ids),
            forced_lengths=generation.forced_lengths,
            user=user_of(session.owner, generation.user) or None,
            ticket=ticket,
        )
        try:
            instance.link.send(submit)
        except FrameTooLarge:
            error = InvalidRequest(
                "The conversation is longer than any model reads.",
                param=generation.messages_param,
                code="context_length_exceeded",
            )
            self.fail(route, error)
            return
        log.info(
            "request_placed",
            request_id=session.response_id,
            instance_id=instance.instance_id,
            known_tokens=len(session.token_ids),
            with_kv=ticket is not None,
        )

    def _usable_ticket(self, route: Route, reader: Instance, now: float) -> Ticket | None:
        """The route's ticket, if the memory that it is for is there and this instance knows it."""
        ticket = route.ticket(now)
        if ticket is None or ticket.engine_id not in reader.readable:
            return None
        known = (instance.welcome.endpoint for instance in self._instances.values())
        there = any(endpoint and endpoint.engine_id == ticket.engine_id for endpoint in known)
        return ticket if there else None

    def _choose(
        self, session: Session, avoid: str | None = None, *, begun: bool = False
    ) -> Instance | None:
        """The instance for a request that begins, or begins again. None if there is none."""
        # One that is being drained is better than none for a request that has begun.
        others = [i for i in self._instances.values() if begun and not i.link.full]
        usable = self._usable() or others
        candidates = [i for i in usable if i.instance_id != avoid] or usable
        if not candidates:
            return None
        chosen = place_new_request(
            self._views(candidates),
            self._rules,
            placed_before=self._placed,
            kv_blocks=candidates[0].blocks(session),
            near=session.generation.near,
        )
        self._placed += 1
        return self._instances[chosen or ""]

    def _usable(self) -> list[Instance]:
        """Instances that may get requests."""
        now = time.monotonic()
        there = [
            instance
            for name, instance in self._instances.items()
            if name not in self.drained and not instance.link.full
        ]
        # One that has fallen silent is probably about to be restarted.
        return [i for i in there if now - i.link.last_heard_s < self._silent_s] or there

    def _views(
        self, instances: Sequence[Instance], at_boundary: Session | None = None
    ) -> list[InstanceView]:
        now, migrating = time.monotonic(), self.migrating
        return [i.view(now, self._view_rules, migrating, at_boundary) for i in instances]

    def _detach(self, route: Route) -> None:
        holder = self._instances.get(route.holder or "")
        if holder is not None and holder.routes.get(route.wire_id) is route:
            del holder.routes[route.wire_id]

    def _arm(self, route: Route) -> None:
        """Set the timer for the route's deadline."""
        self._disarm(route)
        if route.deadline_s is not None:
            delay_s = max(0.0, route.deadline_s - time.monotonic())
            self._timers[route.session.response_id] = asyncio.get_running_loop().call_later(
                delay_s, self.guarded, route, partial(self._expire, route)
            )

    def _disarm(self, route: Route) -> None:
        if (timer := self._timers.pop(route.session.response_id, None)) is not None:
            timer.cancel()

    def _expire(self, route: Route) -> None:
        if (holder := self._instances.get(route.holder or "")) is not None:
            route.answers_come(holder.answered_s)
        step = route.expired(time.monotonic())
        if step is None:
            self._arm(route)  # a timer of whole milliseconds may be early
            return
        log.warning(
            "deadline_passed", request_id=route.session.response_id, stage=route.stage.value
        )
        self.go_on(route, step)


def closing() -> Unavailable:
    """The error of requests that the end of the gateway ends."""
    return Unavailable("The server is shutting down.", code="draining")


def _counts_its_output(sampling: Sampling) -> bool:
    """Whether vLLM would sample otherwise on another engine: what is known there is a prompt."""
    return bool(
        sampling.seed is not None or sampling.presence_penalty or sampling.frequency_penalty
    )
