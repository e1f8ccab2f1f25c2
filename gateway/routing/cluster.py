"""The instances of one gateway: their membership, and the messages of their links.

The cluster introduces instances to each other, takes them out of service, and hands each message of
a worker to the `Router`, which owns the requests. It reads the clock; the router gets the time from
it. It must not know processes (`gateway.launchers`), clients, or where a request is.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import assert_never

import structlog

from gateway.policy.capacity import Engine
from gateway.policy.cluster_view import Passage, ViewRules
from gateway.policy.placement import Rules
from gateway.response.session import Session
from gateway.routing.counting import PromptCounter
from gateway.routing.instance import Instance, Totals
from gateway.routing.loads import Loads
from gateway.routing.members import Members
from gateway.routing.policies import Boundary, Policies
from gateway.routing.route import Outcome, RouteTimeouts
from gateway.routing.router import Router
from gateway.routing.worker_link import WorkerLink
from gateway.schemas.generation import Generation
from workers.messages import (
    Accepted,
    Counted,
    Detokenized,
    Heartbeat,
    Load,
    MeetPeer,
    OtherLoads,
    PeerMet,
    PolicySet,
    Prefixes,
    Rejected,
    Step,
    ToGateway,
    Welcome,
)

log = structlog.get_logger()

_NO_LOAD = Load()
_MEET_AGAIN_S = 10.0  # after two instances failed to connect
_DEFAULT_RULES, _DEFAULT_VIEW, _DEFAULT_TIMEOUTS = Rules(), ViewRules(), RouteTimeouts()


@dataclass(frozen=True, slots=True)
class RoutingTotals:
    """What became of migrations and failovers since the gateway started."""

    migrations: Mapping[Outcome, int]  # ended
    failovers: Mapping[str, int]  # "resumed", "failed"
    migrating: int  # now


def _ignore(how: Passage, seconds: float) -> None:
    """Note nothing about a passed boundary."""


class Cluster:
    """All instances with an open link, and their requests.

    :param on_progress: called with every session that something happened to.
    :param on_boundary: see `Router`, as for ``retry_after_s``.
    :param on_step: called after the tokens of each step were taken in.
    :param silent_s: see `Members`.
    """

    def __init__(
        self,
        *,
        on_progress: Callable[[Session], None],
        on_boundary: Callable[[Passage, float], None] = _ignore,
        on_step: Callable[[], None] = lambda: None,
        rules: Rules = _DEFAULT_RULES,
        view_rules: ViewRules = _DEFAULT_VIEW,
        timeouts: RouteTimeouts = _DEFAULT_TIMEOUTS,
        silent_s: float = 3.5,
        retry_after_s: int = 2,
    ) -> None:
        self._on_step = on_step
        # By which workers tell gateways apart, for the life of this one.
        self.gateway = f"{socket.gethostname()[:64]}-{secrets.token_hex(4)}"
        self.ever_served = False  # whether any instance ever joined
        self._members = Members(silent_s)
        self.router = Router(
            self._members,
            on_progress=on_progress,
            on_boundary=on_boundary,
            on_placed=lambda instance: self.loads.placed(instance),
            rules=rules,
            view_rules=view_rules,
            timeouts=timeouts,
            retry_after_s=retry_after_s,
        )
        self.counter = PromptCounter(self._members, retry_after_s)
        self._ended_totals: dict[str, Totals] = {}  # counted by engines that are gone, by name
        self.policies = Policies(self._members)
        self.loads = Loads(
            self._members, lambda instance: self.router.load_of(instance, time.monotonic())
        )
        self.boundary = Boundary(self.router.chooser)
        self._changed = asyncio.Event()

    # ---- membership ---------------------------------------------------------------------------

    @property
    def instances(self) -> Mapping[str, Instance]:
        """Instances with an open link, by name."""
        return self._members.open

    async def serve(self, link: WorkerLink) -> None:
        """Take an instance in and serve its link until it ends.

        :raises LinkError: when the link ends. By then its requests are on their way elsewhere.
        """
        instance = Instance(link)
        link.on_room = self._place_waiting
        self._join(instance)
        try:
            await link.run(lambda message: self._heard(instance, message))
        finally:
            self._lose(instance)

    @property
    def can_serve(self) -> bool:
        """Whether a new request would find an instance."""
        return self._members.in_service

    async def wait_for_instances(self, count: int) -> None:
        """Return once ``count`` instances are there."""
        await self._until(lambda: len(self.instances) >= count)

    async def gone(self, instance: Instance) -> None:
        """Return once the link of this instance has ended."""
        await self._until(lambda: self.instances.get(instance.instance_id) is not instance)

    async def present(self, instance_id: str) -> None:
        """Return once an instance of this name is there."""
        await self._until(lambda: instance_id in self.instances)

    def _join(self, instance: Instance) -> None:
        self._members.open[instance.instance_id] = instance
        self.ever_served = True
        instance.log.info("instance_joined", engine=instance.welcome.engine)
        for other in list(self.instances.values()):
            if other is not instance:
                _introduce(instance, other)
                _introduce(other, instance)
        self.policies.tell(instance)
        self._place_waiting()
        self._drain_further()

    def _lose(self, instance: Instance) -> None:
        name = instance.instance_id
        if self.instances.get(name) is instance:
            del self._members.open[name]
        if instance.stats is not None:
            self._ended_totals[name] = self._ended_totals.get(name, Totals()).plus(instance.stats)
        requests = self.requests_of(name)
        # The end of a drained instance is part of its restart.
        planned = name in self.drained and not requests
        report = instance.log.info if planned else instance.log.warning
        report("instance_lost", requests=requests)
        self.counter.lost(name)
        self.loads.lost(instance)
        self.router.on_lost(name, time.monotonic())
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # ---- taking instances out of service ------------------------------------------------------

    def drain(self, instance_id: str) -> None:
        """Give an instance nothing new, and move its requests away as far as others can take them.

        The name stays drained until `undrain`, whether the instance is there or not.
        """
        self._members.drained.add(instance_id)
        log.info("instance_drain_began", instance_id=instance_id)
        self._drain_further()

    def undrain(self, instance_id: str) -> None:
        """Let an instance serve again."""
        self._members.drained.discard(instance_id)
        self._place_waiting()
        self._drain_further()

    @property
    def drained(self) -> Set[str]:
        """Names of the instances out of service, whether they are there or not."""
        return self._members.drained

    async def emptied(self, instance_id: str) -> bool:
        """Return True once a drained instance is empty or gone, False if it is undrained first.

        An instance is empty when it has no request and nothing reads KV from its memory.
        """

        def empty() -> bool:
            if instance_id not in self.instances:
                return True
            busy = self.requests_of(instance_id) or self.router.reading_from(instance_id)
            return not busy

        await self._until(lambda: empty() or instance_id not in self.drained)
        return instance_id in self.drained

    def _drain_further(self) -> None:
        now = time.monotonic()
        for name in self._members.drained & self.instances.keys():
            self.router.move_away(self.instances[name], now)
        self._changed.set()

    # ---- what the service asks ----------------------------------------------------------------

    async def submit(self, session: Session) -> None:
        """Place a request and wait until an instance has accepted it.

        :raises Unavailable: no instance is there, or none came back in time.
        :raises Overloaded: every instance has too much waiting to be sent to it.
        :raises InvalidRequest: the worker refused the request.
        """
        answered = self.router.begin(session, time.monotonic())
        try:
            await answered
        except asyncio.CancelledError:
            # The client left before it got the response's id, so it cannot ask for it later.
            self.router.withdraw(session)
            raise

    async def count(self, generation: Generation) -> int:
        """The length of the prompt in tokens; see `PromptCounter.count`."""
        return await self.counter.count(generation, time.monotonic())

    async def tokens(self, generation: Generation, *, names: bool) -> Counted:
        """The tokens of the prompt; see `PromptCounter.tokens`."""
        return await self.counter.tokens(generation, time.monotonic(), names=names)

    async def text(self, token_ids: Sequence[int]) -> str:
        """The text of tokens; see `PromptCounter.text`."""
        return await self.counter.text(token_ids, time.monotonic())

    def cancel(self, session: Session) -> None:
        """Have the session's instance stop it. The instance confirms with the last run."""
        self.router.cancel(session, time.monotonic())

    def break_off(self, session: Session) -> bool:
        """End a response after a bug, see `Router.break_off`; False if it has no route."""
        return self.router.break_off(session)

    def set_pace(self, session: Session) -> None:
        """Pass the reader's new pace on to the session's instance."""
        self.router.set_pace(session)

    def close(self) -> None:
        """Fail requests without an instance now, and requests that lose theirs from now on."""
        self.router.close(time.monotonic())
        self.loads.close()

    def requests_of(self, instance_id: str) -> int:
        """How many requests an instance has, or was sent and has not answered."""
        return len(self.router.routes_of(instance_id))

    def engines(self, places: int) -> list[Engine]:
        """What the instances in service can do, for admission.

        :param places: the requests that one batch holds.
        """
        return [
            Engine(
                kv_tokens=one.welcome.kv_blocks_total * one.welcome.block_size,
                places=places,
                longest=one.welcome.max_model_len,
                running=one.steps.running,
                step_s=one.steps.step_s,
                least_step_s=one.steps.least_step_s,
                others=others.requests,
                others_kv_tokens=(others.kv_blocks + others.kv_blocks_reserved)
                * one.welcome.block_size,
                others_thinking=others.reasoning,
            )
            for name, one in self.instances.items()
            if name not in self.drained
            for others in (one.others or _NO_LOAD,)
        ]

    def totals(self) -> dict[str, Totals]:
        """What the engines of each name counted since the gateway started."""
        totals = dict(self._ended_totals)
        for name, instance in self.instances.items():
            if instance.stats is not None:
                totals[name] = totals.get(name, Totals()).plus(instance.stats)
        return totals

    def routing_totals(self) -> RoutingTotals:
        """What the router counted."""
        router = self.router
        return RoutingTotals(router.migrations, router.failovers, len(router.migrating))

    # ---- what workers say ---------------------------------------------------------------------

    def _heard(self, instance: Instance, message: ToGateway) -> None:
        """Take a message in. An exception in here must not end the link, and all its requests."""
        try:
            self._handle(instance, message)
        except Exception:
            instance.log.exception("message_failed", kind=type(message).__name__)

    def _handle(self, instance: Instance, message: ToGateway) -> None:
        now = time.monotonic()
        match message:
            case Step():
                instance.report(message.stats, now)
                self.router.on_step(instance, message.runs, now)
                self._on_step()
            case Heartbeat():
                instance.report(message.stats, now)
                instance.since_step_s = message.since_step_s
            case Accepted():
                instance.answered_s = now
                self.router.on_accepted(instance, message, now)
            case Rejected():
                instance.answered_s = now
                if not self.counter.answered(message):
                    self.router.on_rejected(instance, message, now)
            case Counted() | Detokenized():
                self.counter.answered(message)
            case OtherLoads():
                self.loads.heard(instance, message)
            case Prefixes():
                instance.prefixes.told(message.tokens)
            case PeerMet():
                self._peer_met(instance, message)
            case PolicySet():
                self.policies.answered(instance, message)
            case Welcome():
                instance.log.warning("second_welcome_ignored")
            case _:
                assert_never(message)
        if self._members.drained:
            self._drain_further()

    def _place_waiting(self) -> None:
        self.router.place_waiting(time.monotonic())

    def _peer_met(self, instance: Instance, message: PeerMet) -> None:
        if message.error is None:
            instance.readable.add(message.engine_id)
            self._drain_further()
            return
        instance.log.warning("peer_not_met", reason=message.error)
        asyncio.get_running_loop().call_later(_MEET_AGAIN_S, self._meet_again, instance, message)

    def _meet_again(self, instance: Instance, met: PeerMet) -> None:
        for other in self.instances.values():
            endpoint = other.welcome.endpoint
            if endpoint is not None and endpoint.engine_id == met.engine_id:
                _introduce(instance, other)


def _introduce(target: Instance, source: Instance) -> None:
    """Connect one instance to the KV memory of another, before the first request moves."""
    if target.hands_over and source.welcome.endpoint is not None:
        target.link.send(MeetPeer(peer=source.welcome.endpoint))
