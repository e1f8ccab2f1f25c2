"""One engine behind a link, as the gateway sees it.

Holds what the worker reported. The requests of an instance are the router's business. An instance
lives as long as its link: a worker that comes back is a new instance with the same name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import structlog

from gateway.policy.capacity import StepTimer
from gateway.policy.cluster_view import Occupancy, PlacedRequest, blocks_of
from gateway.policy.prefixes import HeldPrefixes
from gateway.routing.worker_link import WorkerLink
from workers.messages import Load, StepStats, Welcome

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Totals:
    """What engines counted since they started."""

    preemptions: int = 0
    reloaded_tokens: int = 0
    recomputed_tokens: int = 0

    def plus(self, stats: StepStats) -> Totals:
        """The totals with one more engine."""
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
        self.log = log.bind(instance_id=self.instance_id)
        self.stats: StepStats | None = None
        self.steps = StepTimer()
        self.since_step_s = 0.0  # age of its last step, by the last heartbeat
        self.answered_s = 0.0  # when it last accepted or refused a request
        self.readable: set[str] = set()  # engines whose KV it can read
        self.prefixes = HeldPrefixes()
        self.others: Load | None = None  # what other gateways have there; None: there is none
        self.policy = self.welcome.policy  # by which it schedules
        self.policy_asked: str | None = None  # that it was asked for, and has not answered
        self.policy_error: str | None = None  # why it did not change

    def report(self, stats: StepStats, now: float) -> None:
        """The worker reported its state."""
        self.stats = stats
        phases = (stats.reasoning, stats.answering, stats.calling)
        running = sum(counts.running for counts in phases)
        busy = running + sum(counts.waiting for counts in phases) > 0
        self.steps.note(stats.steps_total, running, busy, now)

    @property
    def instance_id(self) -> str:
        """The name of the worker."""
        return self.welcome.instance_id

    @property
    def hands_over(self) -> bool:
        """Whether its KV can move to other instances."""
        return self.welcome.endpoint is not None

    def can_read(self, source: Instance) -> bool:
        """Whether KV of a request on ``source`` can come here."""
        endpoint = source.welcome.endpoint
        return endpoint is not None and endpoint.engine_id in self.readable

    def blocks(self, request: PlacedRequest) -> int:
        """KV blocks that a request needs here."""
        return blocks_of(request.kv_tokens, self.welcome.block_size)

    def occupancy(self, requests: Collection[PlacedRequest]) -> Occupancy:
        """The instance with these requests, for placement."""
        return Occupancy(
            instance_id=self.instance_id,
            block_size=self.welcome.block_size,
            kv_blocks_total=self.welcome.kv_blocks_total,
            kv_blocks_free=self._free_blocks(),
            requests=requests,
            others=self.others,
        )

    def _free_blocks(self) -> int:
        if self.stats is None:
            return self.welcome.kv_blocks_total
        return self.stats.kv_blocks_total - self.stats.kv_blocks_used
