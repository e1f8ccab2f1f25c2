"""One engine behind a link, as the gateway sees it.

Keeps what the worker said of itself and which requests it has; decides nothing. An instance lives
as long as its link: a worker that comes back is another one, with the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.policy.placement import InstanceView
from gateway.response.session import Session
from gateway.routing.route import Route, Stage
from gateway.routing.worker_link import WorkerLink
from workers.messages import StepStats, Welcome


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


@dataclass(frozen=True, slots=True)
class ViewRules:
    """What a view needs to know of the settings."""

    slo_qoe: float = 0.95  # an answering request below this QoE violates its SLO
    quantum_tokens: int = 500
    demotion_tokens: int | None = None  # longer reasoning is in the low queue; None: never
    reserve_memory: bool = True  # who is on the way counts as arrived


class Instance:
    """One engine behind a link."""

    def __init__(self, link: WorkerLink) -> None:
        self.link = link
        self.welcome: Welcome = link.welcome
        self.stats: StepStats | None = None
        self.since_step_s = 0.0
        self.answered_s = 0.0  # when it last accepted or refused a request
        self.routes: dict[str, Route] = {}  # that it has or is to answer, by their `wire_id`
        self.readable: set[str] = set()  # engines whose KV it can read

    @property
    def instance_id(self) -> str:
        """Its name."""
        return self.welcome.instance_id

    @property
    def sessions(self) -> list[Session]:
        """Those of its requests that are not at their end."""
        return [route.session for route in self.routes.values() if route.session.in_engine]

    @property
    def hands_over(self) -> bool:
        """Whether its KV can move at all."""
        return self.welcome.endpoint is not None

    def can_read(self, source: Instance) -> bool:
        """Whether KV of a request on ``source`` can come here."""
        endpoint = source.welcome.endpoint
        return endpoint is not None and endpoint.engine_id in self.readable

    def blocks(self, session: Session) -> int:
        """KV blocks that a request needs here."""
        return -(-session.kv_tokens // self.welcome.block_size)

    def view(
        self,
        now: float,
        rules: ViewRules,
        migrating: Sequence[Route] = (),
        at_boundary: Session | None = None,
    ) -> InstanceView:
        """What placement sees of it.

        :param migrating: all migrations under way.
        :param at_boundary: the request to decide on, if it is here.
        """
        name, sessions = self.instance_id, self.sessions
        coming = [r for r in migrating if r.migration and r.migration.target_id == name]
        leaving = [r for r in migrating if r.migration and r.migration.source_id == name]
        counted, free, reserved = sessions, self._free_blocks(), 0
        arriving: list[Session] = []
        if rules.reserve_memory:
            away = {route.session for route in leaving}
            counted = [session for session in sessions if session not in away]
            arriving = [r.session for r in coming if r.stage is Stage.HANDING_OVER]
            reserved = sum(self.blocks(session) for session in arriving)
            # Others that come count as ours; the engine has not taken their memory yet.
            pulling = [r.session for r in coming if r.stage is not Stage.HANDING_OVER]
            free -= sum(self.blocks(session) for session in pulling)
        if at_boundary in sessions:
            free += self.blocks(at_boundary)
        queued = [session for session in (*counted, *arriving) if session is not at_boundary]
        return InstanceView(
            instance_id=name,
            within_slo=all(session.delivery.qoe_now(now) >= rules.slo_qoe for session in sessions),
            kv_footprint_blocks=sum(self.blocks(session) for session in counted),
            requests=len(counted) + len(arriving),
            reasoning=sum(self._is_high(session, rules) for session in queued),
            fresh_answering=sum(self._is_fresh(session, rules) for session in queued),
            kv_blocks_free=free,
            kv_blocks_total=self.welcome.kv_blocks_total,
            kv_blocks_reserved=reserved,
            migrations=len(coming) + len(leaving),
        )

    def _free_blocks(self) -> int:
        if self.stats is None:
            return self.welcome.kv_blocks_total
        return self.stats.kv_blocks_total - self.stats.kv_blocks_used

    def _is_high(self, session: Session, rules: ViewRules) -> bool:
        demotion = rules.demotion_tokens
        return session.thinking and (demotion is None or session.reasoning_tokens < demotion)

    def _is_fresh(self, session: Session, rules: ViewRules) -> bool:
        answered = len(session.token_ids) - session.reasoning_tokens
        return not session.thinking and answered < rules.quantum_tokens
