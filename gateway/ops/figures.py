"""The numbers of one second, for the history and for the figures of the operations page."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from gateway.metrics import Metrics
from gateway.ops.watch import Watch
from gateway.response.tally import LIVE_STATES, LogBuckets, Tally
from gateway.routing.cluster import Cluster

WINDOW = 60  # seconds over which percentiles of TTFT and TTFAT are taken


class _Sliding:
    """Counts of the last `WINDOW` seconds, as differences of counts that only grow."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._last = list(counts)
        self._news: deque[list[tuple[int, int]]] = deque()
        self.counts = [0] * len(counts)

    def take(self, counts: Sequence[int]) -> None:
        """Take in what was counted in this second, and forget the oldest one."""
        news = []
        for place, (now, before) in enumerate(zip(counts, self._last, strict=True)):
            if now != before:
                news.append((place, now - before))
                self.counts[place] += now - before
        self._last = list(counts)
        self._news.append(news)
        if len(self._news) > WINDOW:
            for place, count in self._news.popleft():
                self.counts[place] -= count


class Figures:
    """Turns counts that only grow into numbers of one second."""

    def __init__(self, tally: Tally, metrics: Metrics, cluster: Cluster) -> None:
        self._tally, self._metrics, self._cluster = tally, metrics, cluster
        self._ttft = _Sliding(tally.ttft.counts)
        self._ttfat = _Sliding(tally.ttfat.counts)
        self._lateness = list(metrics.release_lateness.counts)
        self._totals = self._counted()

    def take(self, watch: Watch) -> tuple[dict[str, float | None], dict[str, Any]]:
        """The columns of this second, and what was counted since the gateway started.

        :param watch: after a thorough pass.
        """
        tally, sums = self._tally, watch.sums
        self._ttft.take(tally.ttft.counts)
        self._ttfat.take(tally.ttfat.counts)
        before, after = self._totals, self._counted()
        self._totals = after
        tokens = {
            "reasoning": sums.tokens.reasoning,
            "answering": sums.tokens.answering,
            "calling": sums.tokens.calling,
            "released": sums.tokens.released,
        }
        after |= {f"{kind}_tokens": count for kind, count in tokens.items()}
        row: dict[str, float | None] = dict(zip(LIVE_STATES, sums.states, strict=True))
        row |= {"dry_readers": sums.dry, "buffered_tokens": sums.buffered}
        for name in ("preempted", "moved", "recomputed"):
            row[name] = after[name] - before[name]
        for kind in ("reasoning_tokens", "answering_tokens", "released_tokens"):
            row[kind] = max(0, after[kind] - before[kind]) if kind in before else None
        for name, sliding, shares in (
            ("ttft", self._ttft, (0.5, 0.9, 0.99)),
            ("ttfat", self._ttfat, (0.5, 0.99)),
        ):
            values = LogBuckets.quantiles(sliding.counts, shares)
            for share, value in zip(shares, values, strict=True):
                row[f"{name}_p{share * 100:.0f}_s"] = value
        qoes = watch.qoes()
        for percent in (1, 5, 50):
            row[f"qoe_p{percent}"] = qoes[len(qoes) * percent // 100] if qoes else None
        row |= self._memory()
        row["late_p99_s"] = self._late()
        drained = self._cluster.drained
        names = self._cluster.instances.keys()
        row |= {"serving": len(names - drained), "instances": len(names | drained)}
        return row, after

    def _counted(self) -> dict[str, Any]:
        """What was counted since the gateway started, but for tokens."""
        moves = self._cluster.routing_totals()
        totals = self._cluster.totals().values()
        return {
            "preempted": sum(one.preemptions for one in totals),
            "moved": moves.migrations["moved"],
            "recomputed": moves.migrations["recomputed"],
            "lost": moves.failovers["resumed"] + moves.failovers["failed"],
            "responses": self._metrics.counted(self._metrics.responses),
            "refused": sum(self._metrics.counted(self._metrics.refused).values()),
            "slo_violations": sum(self._metrics.counted(self._metrics.slo_violations).values()),
        }

    def _memory(self) -> dict[str, float | None]:
        """Shares of all KV blocks by who holds them."""
        reasoning = answering = held = total = 0
        for instance in self._cluster.instances.values():
            if (stats := instance.stats) is not None:
                reasoning += stats.reasoning.kv_blocks
                answering += stats.answering.kv_blocks + stats.calling.kv_blocks
                held += stats.migration.held_blocks if stats.migration is not None else 0
                total += stats.kv_blocks_total
        shares = (("reasoning", reasoning), ("answering", answering), ("held", held))
        return {f"kv_{name}": blocks / total if total else None for name, blocks in shares}

    def _late(self) -> float | None:
        """The 99th percentile of how late tokens were released in this second, in seconds."""
        counts = self._metrics.release_lateness.counts
        news = [now - before for now, before in zip(counts, self._lateness, strict=True)]
        self._lateness = list(counts)
        wanted = sum(news) * 0.99
        if not wanted:
            return None
        below = 0
        for ms, count in enumerate(news):
            below += count
            if below >= wanted:
                return ms / 1000
        return None
