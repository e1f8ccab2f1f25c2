"""The state of one request in the scheduler: its phase, its place in the queues, its lost KV.

The plugin creates and forgets it. `Queues` keeps the queue state in it. Pure; knows neither
vLLM nor a policy's decisions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from workers.messages import Pace
from workers.policy.phase import Phase, PhaseTracker
from workers.policy.view import RequestView
from workers.scheduler.reader import Reader


@dataclass(slots=True)
class QueueState:
    """A request's place in the policy's queues; see `workers.policy.view.RequestView`."""

    arrival: int
    user: str | None
    waiting_since: float
    queue: int
    position: int  # in its queue; drawn anew for each quantum
    left_tokens: int  # of its quantum
    phase: Phase  # as the policy schedules it
    quanta: int = 0
    urgent_quanta: int = 0  # used up in thoughts and calls, while it answers
    run_tokens: int = 0
    preemptions: int = 0
    after_call: int = 0  # further tokens that count to the call that has just ended
    boundary_at: float | None = None  # when text began for which there is no reader yet
    reader: Reader | None = None  # from the first token of text on
    view: RequestView | None = None  # kept while it waits and nothing happens to it

    def count(self, tokens: int) -> None:
        """Account for the next output tokens."""
        self.run_tokens += tokens
        self.left_tokens -= tokens
        self.after_call = max(0, self.after_call - tokens)
        self.view = None


@dataclass(slots=True)
class PhaseState:
    """What the plugin knows about one request."""

    tracker: PhaseTracker
    own_id: str | None  # the worker's id of the request; None in a stock server
    pace: Pace | None  # None in a stock server: nothing is known about the reader
    user: str | None = None  # for fairness between users
    priority: int = 0  # vLLM's, as it came; a policy's rank takes its place
    text_since: float | None = None  # when it first came to text for a reader
    kv_blocks: int = 0  # it holds while it runs, at least one; 0: it does not run
    queue_state: QueueState | None = None  # None where vLLM's own order holds
    lost_tokens: int = 0  # how far its KV had come when it was preempted
    unseen: int = 0  # output tokens that tracker and queue_state do not count yet; see `settle`
    quiet: float = math.inf  # output tokens, unseen ones included, until the policy notes something

    def settle(self) -> None:
        """Count the unseen tokens; call before reading the counts of tracker or queue state.

        Most tokens change nothing but these counts, so the counts are updated only on demand.
        """
        tokens = self.unseen
        if tokens:
            self.unseen = 0
            self.quiet -= tokens
            self.tracker.count(tokens)
            if self.queue_state is not None:
                self.queue_state.count(tokens)
