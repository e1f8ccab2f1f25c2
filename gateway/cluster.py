"""The instances as the gateway sees them, and which of their requests belong to whom.

Places new requests (`gateway.placement` decides), hands workers' messages to the sessions they
belong to, and ends the requests of an instance that is lost. It does not start processes
(`gateway.supervisor`) and does not know clients.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import structlog

from gateway.errors import ApiError, InvalidRequest, Unavailable
from gateway.limits import user_of
from gateway.link import WorkerLink
from gateway.placement import InstanceView, place_new_request
from gateway.session import Session
from workers.messages import (
    Accepted,
    Cancel,
    Heartbeat,
    Rejected,
    SetPace,
    Step,
    StepStats,
    Submit,
    ToGateway,
    TokenRun,
    Welcome,
)

log = structlog.get_logger()


_SILENT_S = 3.5  # three heartbeats missed


class _NotAccepted(Exception):
    """The instance was lost before it took the request in."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What engines counted since they started."""

    preemptions: int = 0
    reloaded_tokens: int = 0
    recomputed_tokens: int = 0

    def plus(self, stats: StepStats) -> Totals:
        """With one engine more."""
        return Totals(
            self.preemptions + stats.preemptions_total,
            self.reloaded_tokens + stats.reloaded_tokens_total,
            self.recomputed_tokens + stats.recomputed_tokens_total,
        )


class Instance:
    """One engine behind a link."""

    def __init__(self, link: WorkerLink) -> None:
        self.link = link
        self.welcome: Welcome = link.welcome
        self.stats: StepStats | None = None
        self.since_step_s = 0.0
        self.sessions: dict[str, Session] = {}
        # Requests that the worker has not answered yet.
        self.submitted: dict[str, asyncio.Future[None]] = {}

    @property
    def instance_id(self) -> str:
        """Its name."""
        return self.welcome.instance_id

    def view(self, now: float, slo_qoe: float) -> InstanceView:
        """What placement sees of it."""
        block = self.welcome.block_size
        unfinished = [session for session in self.sessions.values() if session.in_engine]
        return InstanceView(
            instance_id=self.instance_id,
            within_slo=all(session.reader.qoe_now(now) >= slo_qoe for session in unfinished),
            kv_footprint_blocks=sum(-(-session.kv_tokens // block) for session in unfinished),
            requests=len(unfinished),
        )


class Cluster:
    """All instances with an open link.

    :param slo_qoe: an answering request below this QoE violates its SLO.
    :param on_progress: called with every session that something happened to.
    """

    def __init__(self, *, slo_qoe: float, on_progress: Callable[[Session], None]) -> None:
        self.instances: dict[str, Instance] = {}
        self.ever_served = False  # whether any instance was ever there
        self._ended_totals = Totals()  # counted by engines that are gone
        self._slo_qoe = slo_qoe
        self._on_progress = on_progress
        self._changed = asyncio.Event()

    async def serve(self, link: WorkerLink) -> None:
        """Take an instance in and serve its link until it ends.

        :raises LinkError: when it ends. Its requests have failed by then.
        """
        instance = Instance(link)
        self.instances[instance.instance_id] = instance
        self.ever_served = True
        self._changed.set()
        log.info("instance_joined", instance_id=instance.instance_id, engine=link.welcome.engine)
        try:
            await link.run(lambda message: self._handle(instance, message))
        finally:
            self._lose(instance)

    async def wait_for_instances(self, count: int) -> None:
        """Return once ``count`` instances are there."""
        while len(self.instances) < count:
            self._changed.clear()
            await self._changed.wait()

    async def submit(self, session: Session) -> None:
        """Place a request and wait until an instance has accepted it.

        :raises Unavailable: no instance is there (any more).
        :raises InvalidRequest: the worker found the request wrong.
        """
        while True:
            try:
                await self._submit_to(self._place(), session)
                return
            except _NotAccepted:
                log.info("request_placed_again", request_id=session.response_id)

    def _place(self) -> Instance:
        """The instance for a new request. Raises `Unavailable` if there is none."""
        now = time.monotonic()
        candidates = list(self.instances.values())
        # One that has fallen silent is probably about to be restarted.
        heard = [i for i in candidates if now - i.link.last_heard_s < _SILENT_S]
        chosen = place_new_request([i.view(now, self._slo_qoe) for i in heard or candidates])
        if chosen is None:
            raise Unavailable("No instance can serve now.", code="no_instance")
        return self.instances[chosen]

    async def _submit_to(self, instance: Instance, session: Session) -> None:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        instance.submitted[session.response_id] = answered
        instance.sessions[session.response_id] = session
        generation = session.generation
        instance.link.send(
            Submit(
                request_id=session.response_id,
                messages=generation.messages,
                sampling=generation.sampling,
                pace=session.pace,
                thinking=generation.thinking,
                forced_lengths=generation.forced_lengths,
                user=user_of(session.owner, generation.user) or None,
            )
        )
        log.info(
            "request_placed",
            request_id=session.response_id,
            instance_id=instance.instance_id,
        )
        try:
            await answered
        except asyncio.CancelledError:
            # The client went away before it knew the response: nobody can ask for it again.
            instance.link.send(Cancel(request_id=session.response_id))
            raise
        finally:
            instance.submitted.pop(session.response_id, None)

    def cancel(self, session: Session) -> None:
        """Tell the session's instance to stop it. The instance confirms with the last run."""
        if (instance := self._instance_of(session)) is not None:
            instance.link.send(Cancel(request_id=session.response_id))

    def set_pace(self, session: Session) -> None:
        """Tell the session's instance how its reader reads now."""
        if (instance := self._instance_of(session)) is not None:
            instance.link.send(SetPace(request_id=session.response_id, pace=session.pace))

    def totals(self) -> Totals:
        """Of all engines since the gateway started."""
        totals = self._ended_totals
        for instance in self.instances.values():
            if instance.stats is not None:
                totals = totals.plus(instance.stats)
        return totals

    def _instance_of(self, session: Session) -> Instance | None:
        instance = self.instances.get(session.instance_id or "")
        if instance is None or session.response_id not in instance.sessions:
            return None
        return instance

    def _handle(self, instance: Instance, message: ToGateway) -> None:
        match message:
            case Step():
                instance.stats = message.stats
                for run in message.runs:
                    self._run(instance, run)
            case Heartbeat():
                instance.stats = message.stats
                instance.since_step_s = message.since_step_s
            case Accepted():
                self._accepted(instance, message)
            case Rejected():
                self._rejected(instance, message)
            case Welcome():
                log.warning("second_welcome_ignored", instance_id=instance.instance_id)
            case _:
                assert_never(message)

    def _run(self, instance: Instance, run: TokenRun) -> None:
        session = instance.sessions.get(run.request_id)
        if session is None:
            return
        if run.finish is not None:
            del instance.sessions[run.request_id]
        self._guarded(session, lambda: session.tokens(run, time.monotonic()))
        if session.finished and run.finish is None:  # it failed here: the engine does not know
            del instance.sessions[run.request_id]
            instance.link.send(Cancel(request_id=run.request_id))

    def _accepted(self, instance: Instance, message: Accepted) -> None:
        session = instance.sessions.get(message.request_id)
        if session is None:
            return
        self._guarded(
            session,
            lambda: session.accepted(
                instance.instance_id, message.prompt_tokens, message.reasoning
            ),
        )
        # From now on losing the instance fails the response; see `_lose`.
        answered = instance.submitted.pop(message.request_id, None)
        if answered is not None and not answered.done():
            answered.set_result(None)

    def _rejected(self, instance: Instance, message: Rejected) -> None:
        session = instance.sessions.pop(message.request_id, None)
        answered = instance.submitted.get(message.request_id)
        if answered is not None and not answered.done():
            param = session.generation.public_param(message.param) if session else None
            answered.set_exception(InvalidRequest(message.message, param=param, code=message.code))

    def _guarded(self, session: Session, action: Callable[[], None]) -> None:
        """A bug that one request meets must not take the others of the instance with it."""
        try:
            action()
        except Exception:
            log.exception("session_failed", request_id=session.response_id)
            session.fail(ApiError("Internal error.", code="internal_error"), time.monotonic())
        self._on_progress(session)

    def _lose(self, instance: Instance) -> None:
        del self.instances[instance.instance_id]
        if instance.stats is not None:
            self._ended_totals = self._ended_totals.plus(instance.stats)
        lost = Unavailable(
            f"Instance {instance.instance_id} was lost while it served this request.",
            code="instance_lost",
        )
        for answered in instance.submitted.values():
            if not answered.done():
                answered.set_exception(_NotAccepted())  # it has nothing to lose elsewhere
        sessions = list(instance.sessions.values())
        instance.sessions.clear()
        for session in sessions:
            if session.response_id not in instance.submitted:
                session.fail(lost, time.monotonic())
                self._on_progress(session)
        log.warning(
            "instance_lost", instance_id=instance.instance_id, requests_failed=len(sessions)
        )
