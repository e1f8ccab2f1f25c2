"""Counts of one scheduler: requests and KV blocks by phase, preemptions and recomputed tokens.

The plugin reports every change, because each step needs the sums. Pure; knows neither vLLM nor a
policy.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.policy.phase import Phase
from workers.scheduler.request_state import PhaseState


@dataclass(slots=True)
class Totals:
    """Sums over the requests of one phase."""

    requests: int = 0
    running: int = 0
    kv_blocks: int = 0  # of the running requests

    def count(self, state: PhaseState, sign: int) -> None:
        """Add a request in its present state (1), or subtract it (-1)."""
        self.requests += sign
        if state.kv_blocks:
            self.running += sign
            self.kv_blocks += sign * state.kv_blocks


class Accounting:
    """Counts the requests of a scheduler by phase, and what preemptions cost them."""

    def __init__(self) -> None:
        self.preemptions = 0
        self.recomputed_tokens = 0
        self.lost_kv: set[str] = set()  # preempted requests that have not run again
        self._counted_early = 0  # recomputed tokens counted too soon: a total must not decrease
        self._reasoning, self._answering, self._calling = Totals(), Totals(), Totals()

    def totals(self, phase: Phase) -> Totals:
        """The sums of a phase."""
        if phase is Phase.REASONING:
            return self._reasoning
        return self._answering if phase is Phase.ANSWERING else self._calling

    def arrived(self, state: PhaseState) -> None:
        """Begin to count a request."""
        self.totals(state.tracker.phase).count(state, 1)

    def left(self, request_id: str, state: PhaseState) -> None:
        """Stop counting a request."""
        self.totals(state.tracker.phase).count(state, -1)
        self.lost_kv.discard(request_id)

    def turned(self, state: PhaseState, before: Phase) -> None:
        """A request came from this phase to another."""
        self.totals(before).count(state, -1)
        self.totals(state.tracker.phase).count(state, 1)

    def got_blocks(self, state: PhaseState, kv_blocks: int) -> None:
        """A running request got blocks: all of them at its admission, later more."""
        totals = self.totals(state.tracker.phase)
        if not state.kv_blocks:
            totals.running += 1
        totals.kv_blocks += kv_blocks
        state.kv_blocks += kv_blocks

    def stopped_running(self, state: PhaseState) -> None:
        """A request left the batch; its blocks do not count any more."""
        totals = self.totals(state.tracker.phase)
        totals.count(state, -1)
        state.kv_blocks = 0
        totals.count(state, 1)

    def preempted(self, request_id: str, state: PhaseState, computed_tokens: int) -> None:
        """A request loses its KV.

        :param computed_tokens: tokens whose KV it had.
        """
        self.preemptions += 1
        if request_id not in self.lost_kv and computed_tokens < state.lost_tokens:
            # It had not recovered all lost tokens, so some of them were counted too early.
            self._counted_early += state.lost_tokens - computed_tokens
        state.lost_tokens = max(state.lost_tokens, computed_tokens)
        self.lost_kv.add(request_id)
        self.stopped_running(state)

    def runs_again(self, request_id: str, state: PhaseState, begin: int) -> int:
        """A preempted request runs again.

        :param begin: the first token that it computes.
        :return: lost tokens that it computes again.
        """
        missing = max(0, state.lost_tokens - begin)
        early = min(missing, self._counted_early)
        self._counted_early -= early
        self.recomputed_tokens += missing - early
        self.lost_kv.remove(request_id)
        return missing
