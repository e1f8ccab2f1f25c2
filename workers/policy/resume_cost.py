"""The cost of giving a preempted request its KV back: reload it from host memory, or compute it.

Decides which of the two is cheaper on this machine. Both costs are lines over the number of tokens,
learned from what transfers and prefill steps really took: first from those with which the engine
is warmed up, then from all that follow.

Pure: knows no engine and no clock. The callers that run transfers and steps report their durations.
"""

from __future__ import annotations

from collections import deque
from itertools import combinations
from statistics import median

RESUMES = ("auto", "reload", "recompute")  # what is cheaper; or one of them whatever it costs

# Samples that a line is drawn through. On a busy machine some take many times too long: up to a
# quarter of this number may. Few enough to follow a change within seconds.
_WINDOW = 15
# Samples of each kind before decisions begin: of two, one bad sample would win.
ENOUGH_SAMPLES = 3
# Least prefill tokens of a step that counts as a sample: with fewer, noise hides their cost.
_LEAST_PREFILL = 24
# One in N decisions against reloading is reversed. Reloads are measured only when they are made, so
# without this one bad spell would settle the matter.
_TRY_AGAIN = 16
_FORGET = 0.02  # weight of the newest request in the share that host memory gave back


class CostLine:
    """``seconds = fixed + per_token * tokens``, both at least 0, through the latest samples.

    The median of the slopes between all pairs (Theil and Sen): samples far off do not move it.
    """

    def __init__(self) -> None:
        """No sample yet."""
        self.samples = 0
        self.fixed_s = 0.0
        self.per_token_s = 0.0
        self._latest: deque[tuple[int, float]] = deque(maxlen=_WINDOW)

    def seconds(self, tokens: int) -> float:
        """Expected cost; 0 as long as there is no sample."""
        return self.fixed_s + self.per_token_s * tokens

    def observe(self, tokens: int, seconds: float) -> None:
        """Add a sample: N tokens, at least 1, took this many seconds."""
        self.samples += 1
        self._latest.append((tokens, seconds))
        through_zero = median(s / t for t, s in self._latest)
        slopes = [(s - r) / (t - u) for (t, s), (u, r) in combinations(self._latest, 2) if t != u]
        slope = median(slopes) if slopes else through_zero
        self.per_token_s = min(max(slope, 0.0), through_zero)
        self.fixed_s = max(0.0, median(s - self.per_token_s * t for t, s in self._latest))


class ResumeCosts:
    """The cost model of one engine, and the decision."""

    def __init__(self, resume: str = "auto") -> None:
        """:raises ValueError: for an unknown way to resume."""
        if resume not in RESUMES:
            raise ValueError(f"unknown way to resume {resume!r}; known: {', '.join(RESUMES)}")
        self.resume = resume
        self.reload = CostLine()
        self.recompute = CostLine()
        self._decode_s: float | None = None  # a step without prefill
        self._found = 1.0  # share of lost tokens that host memory gave back lately
        self._refusals = 0

    # ---- what is learned

    def transferred(self, tokens: int, seconds: float) -> None:
        """KV of N tokens was loaded."""
        if tokens > 0:
            self.reload.observe(tokens, seconds)

    def stepped(self, prefill_tokens: int, seconds: float) -> None:
        """An engine step without loads ended.

        :param prefill_tokens: computed beyond one token per request.
        """
        if not prefill_tokens:
            before = self._decode_s
            self._decode_s = seconds if before is None else before + 0.1 * (seconds - before)
        elif self._decode_s is not None and prefill_tokens >= _LEAST_PREFILL:
            self.recompute.observe(prefill_tokens, max(0.0, seconds - self._decode_s))

    def resumed(self, lost_tokens: int, recomputed_tokens: int) -> None:
        """A preempted request runs again and computes part of its lost tokens again."""
        if lost_tokens > 0:
            reused_share = 1.0 - recomputed_tokens / lost_tokens
            self._found += _FORGET * (reused_share - self._found)

    # ---- what is decided

    def reloads(self, tokens: int) -> bool:
        """Whether to reload N tokens, all of which host memory holds."""
        if self.resume != "auto":
            return self.resume == "reload"
        if min(self.reload.samples, self.recompute.samples) < ENOUGH_SAMPLES:
            return True  # host memory is configured because reloading is expected to pay
        if self.reload.seconds(tokens) <= self.recompute.seconds(tokens):
            return True
        self._refusals += 1
        return self._refusals % _TRY_AGAIN == 0

    def resume_s(self, tokens: int, s_per_token: float) -> float:
        """Expected seconds until a request of N tokens can go on after a preemption.

        :param s_per_token: cost of recomputing, used until it has been measured.
        """
        recompute_s = self.recompute.seconds(tokens)
        if not self.recompute.samples:
            recompute_s = s_per_token * tokens
        if self.resume == "recompute" or not self.reload.samples:
            return recompute_s
        reload_s = self.reload.seconds(tokens)
        if self.resume == "auto":
            reload_s = min(reload_s, recompute_s)
        return self._found * reload_s + (1.0 - self._found) * recompute_s
