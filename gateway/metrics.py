"""Prometheus metrics. Meanings, units and what to do about each: ``docs/metrics.md``.

Gauges are read from the cluster at the moment of a scrape; counters and histograms grow as
responses end. Each gateway has a registry of its own, so that several can live in one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.cluster import Cluster
from gateway.lifecycle import State
from gateway.migration import Outcome
from gateway.session import Session

# A second series per counter and histogram that nobody asked for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
_TPOT_SECONDS = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.08,
    0.095,
    0.105,
    0.12,
    0.15,
    0.25,
    0.5,
    1,
)
_QOE = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0)


# Of emulated devices only; see `DeviceStats`.
_DEVICE_COUNTERS = {
    "seconds": "Time since an emulated device started, to which the other figures belong",
    "steps": "Steps of an emulated device",
    "busy_seconds": "Modelled time that an emulated device computed",
    "starved_seconds": "Time that an emulated device stood idle although it had work",
    "stalled_seconds": "Time that an emulated device waited for KV to be stored",
    "late_seconds": "From the end of a step until the engine took its tokens, all steps",
}


class Metrics:
    """All metrics of one gateway."""

    def __init__(self, cluster: Cluster) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_ClusterCollector(cluster))
        registry = self.registry
        self.responses = Counter(
            "pascal_responses", "Finished responses", ["status"], registry=registry
        )
        self.refused = Counter("pascal_refused", "Requests refused", ["code"], registry=registry)
        self.tokens = Counter(
            "pascal_tokens", "Tokens of finished responses", ["kind"], registry=registry
        )
        self.underruns = Counter(
            "pascal_pacer_underruns", "Releases a reader had to wait for", registry=registry
        )
        self.slo_violations = Counter(
            "pascal_slo_violations", "Responses with QoE below the SLO", registry=registry
        )
        self.release_lateness = Histogram(
            "pascal_release_lateness_seconds",
            "How late the gateway's timer was for a token release",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
            registry=registry,
        )
        self.sessions = Gauge(
            "pascal_sessions", "Responses kept, finished ones included", registry=registry
        )
        self.worker_restarts = Gauge(
            "pascal_worker_restarts", "Worker processes started again", registry=registry
        )
        self.boundary_blocking = Histogram(
            "pascal_boundary_blocking_seconds",
            "Phase boundary to the next token from an engine",
            ["how"],
            buckets=(0.01, 0.025, *_SECONDS),
            registry=registry,
        )
        self._ttft = self._histogram("pascal_ttft_seconds", "Submission to first answering token")
        self._ttfat = self._histogram(
            "pascal_ttfat_seconds", "Phase boundary to first answer token"
        )
        self._e2e = self._histogram("pascal_e2e_seconds", "Submission to the end")
        self._qoe = Histogram(
            "pascal_qoe", "Quality of experience", buckets=_QOE, registry=registry
        )
        self._tpot = Histogram(
            "pascal_tpot_seconds",
            "Time per answering token",
            ["kind"],
            buckets=_TPOT_SECONDS,
            registry=registry,
        )

    def response_ended(self, session: Session, slo_qoe: float) -> None:
        """Count a finished response; what a reader felt is measured on streams only."""
        status = "cancelled" if session.state is State.CANCELLED else session.status
        self.responses.labels(status).inc()
        self.tokens.labels("prompt").inc(session.prompt_tokens)
        self.tokens.labels("reasoning").inc(session.reasoning_tokens)
        self.tokens.labels("answering").inc(len(session.token_ids) - session.reasoning_tokens)
        if not session.generation.read_along:
            return  # nobody read along: there is no pace to speak of
        self.underruns.inc(session.reader.underruns)
        figures = session.reader.figures()
        qoe = 0.0 if session.state is State.FAILED else figures.qoe
        for histogram, value in (
            (self._ttft, figures.paced.ttft_s),
            (self._ttfat, figures.paced.ttfat_s),
            (self._e2e, figures.paced.e2e_s),
            (self._tpot.labels("raw"), figures.raw.tpot_s),
            (self._tpot.labels("paced"), figures.paced.tpot_s),
            (self._qoe, qoe),
        ):
            if value is not None:
                histogram.observe(value)
        if qoe is not None and qoe < slo_qoe:
            self.slo_violations.inc()

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_SECONDS, registry=self.registry)


class _ClusterCollector:
    """Reads the instances' last statistics."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def collect(self) -> Iterator[Metric]:
        labels = ["instance", "phase"]
        running = GaugeMetricFamily(
            "pascal_requests_running", "Requests in the batch", labels=labels
        )
        waiting = GaugeMetricFamily(
            "pascal_requests_waiting", "Requests not in the batch", labels=labels
        )
        blocks = GaugeMetricFamily("pascal_kv_blocks_used", "KV blocks held", labels=labels)
        total = GaugeMetricFamily(
            "pascal_kv_blocks_total", "KV blocks there are", labels=["instance"]
        )
        held = GaugeMetricFamily(
            "pascal_kv_blocks_held",
            "KV blocks of requests that have left and were not read yet",
            labels=["instance"],
        )
        steps = CounterMetricFamily("pascal_engine_steps", "Engine steps", labels=["instance"])
        device = [
            CounterMetricFamily(f"pascal_emulated_{name}", text, labels=["instance"])
            for name, text in _DEVICE_COUNTERS.items()
        ]
        for instance_id, instance in sorted(self._cluster.instances.items()):
            stats = instance.stats
            if stats is None:
                continue
            for phase, counts in (("reasoning", stats.reasoning), ("answering", stats.answering)):
                running.add_metric([instance_id, phase], counts.running)
                waiting.add_metric([instance_id, phase], counts.waiting)
                blocks.add_metric([instance_id, phase], counts.kv_blocks)
            total.add_metric([instance_id], stats.kv_blocks_total)
            if stats.migration is not None:
                held.add_metric([instance_id], stats.migration.held_blocks)
            steps.add_metric([instance_id], stats.steps_total)
            if (own := stats.device) is not None:
                values = (
                    own.passed_s,
                    own.steps,
                    own.busy_s,
                    own.starved_s,
                    own.stalled_s,
                    own.late_s,
                )
                for family, value in zip(device, values, strict=True):
                    family.add_metric([instance_id], value)
        yield from (running, waiting, blocks, total, held, steps)
        yield from (family for family in device if family.samples)
        totals = self._cluster.totals()
        yield CounterMetricFamily(
            "pascal_preemptions", "Requests that lost their KV memory", value=totals.preemptions
        )
        lost = CounterMetricFamily(
            "pascal_preempted_tokens", "KV tokens that came back to requests", labels=["how"]
        )
        lost.add_metric(["reloaded"], totals.reloaded_tokens)
        lost.add_metric(["recomputed"], totals.recomputed_tokens)
        yield lost
        router = self._cluster.router
        for name, text, ended, outcomes in (
            ("pascal_migrations", "Changes of instance", router.migrations, get_args(Outcome)),
            ("pascal_failovers", "Losses of an instance", router.failovers, ("resumed", "failed")),
        ):
            family = CounterMetricFamily(name, text, labels=["outcome"])
            for outcome in outcomes:
                family.add_metric([outcome], ended[outcome])
            yield family
        yield GaugeMetricFamily(
            "pascal_migrations_in_flight",
            "Requests on their way between instances",
            value=len(router.migrating),
        )
        yield GaugeMetricFamily(
            "pascal_instances", "Instances that can serve", value=len(self._cluster.instances)
        )
