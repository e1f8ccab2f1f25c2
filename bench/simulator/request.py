"""A request in a simulated instance: its progress, and whether its reader is within the SLO.

Most readers never wait, so the QoE is computed only for a reader that has waited. The module must
not know schedulers or instances.
"""

from __future__ import annotations

from collections.abc import Sequence

from vllm.v1.request import Request

from bench.simulator.timeline import TAU_S, Timeline
from pacer import RunningQoE


class Live:
    """A request in an instance."""

    __slots__ = ("_qoe", "generated", "measured", "preemptions", "request", "timeline")

    def __init__(self, request: Request, timeline: Timeline, measured: bool) -> None:
        self.request = request  # vLLM's record, a new one on every instance
        self.timeline = timeline
        self.measured = measured
        self.generated = 0
        self.preemptions = 0  # on earlier instances
        self._qoe: RunningQoE | None = None  # of its reader, once that reader has waited

    @property
    def kv_tokens(self) -> int:
        """Tokens of its prompt and of its output so far."""
        return self.timeline.lengths.prompt + self.generated

    @property
    def reasoning_ahead(self) -> int:
        """Tokens until its boundary; 0 or less after it."""
        return self.timeline.lengths.reasoning - self.generated

    @property
    def thinking(self) -> bool:
        """Whether it is as urgent as thoughts: its boundary is ahead, or it writes a call."""
        lengths = self.timeline.lengths
        answered = self.generated - lengths.reasoning
        return answered < 0 or answered > lengths.answer

    @property
    def reasoning_tokens(self) -> int:
        """Generated up to the boundary."""
        return min(self.generated, self.timeline.lengths.reasoning)

    @property
    def answering_tokens(self) -> int:
        """Generated after the boundary, a call not among them."""
        lengths = self.timeline.lengths
        return min(max(0, self.generated - lengths.reasoning), lengths.answer)

    @property
    def tokens_ahead(self) -> int:
        """Tokens until its phase changes; the token that opens a call is the first of them."""
        left = self.reasoning_ahead
        if left > 0:
            return left
        lengths = self.timeline.lengths
        left += lengths.answer
        if not lengths.call:
            return left
        return left + 1 if left >= 0 else left + lengths.call

    def within_slo(self, slo_qoe: float, now: float) -> bool:
        """Whether the QoE of its reader, by the gateway's pacer, is at least ``slo_qoe``."""
        if self.thinking and self.timeline.answer_s:
            now = min(now, self.timeline.answer_s[-1])  # who waits for a call lacks no token
        if self._qoe is None:
            answer_s = self.timeline.answer_s
            # The QoE of a reader who never waited is 1.
            if not answer_s or now <= answer_s[0] + len(answer_s) * TAU_S:
                return True
            self._waited()
        assert self._qoe is not None
        return self._qoe.at(now) >= slo_qoe

    def produced(self, times_s: Sequence[float]) -> None:
        """Note more tokens, at least one, and when each came."""
        timeline = self.timeline
        before = len(timeline.answer_s)
        preemptions = self.preemptions + self.request.num_preemptions
        timeline.produced_all(self.generated, times_s, preemptions)
        self.generated += len(times_s)
        answer_s = timeline.answer_s
        if self._qoe is not None:
            self._qoe.deliver_all(answer_s[before:])
        elif len(answer_s) > before and answer_s[-1] > answer_s[0] + before * TAU_S:
            # The last token is late for the first one's due time, so some of them may be late.
            due_s = answer_s[0]
            places = range(before, len(answer_s))
            if any(answer_s[place] > due_s + place * TAU_S for place in places):
                self._waited()

    def _waited(self) -> None:
        """Start to compute the QoE, because the reader ran out of tokens."""
        answer_s = self.timeline.answer_s
        self._qoe = RunningQoE(tau_s=TAU_S, origin_s=answer_s[0])
        self._qoe.deliver_all(answer_s)
