"""Prometheus metrics; ``docs/reference/metrics.md`` explains each of them.

Gauges are read from the cluster at each scrape (`gateway.scrape`). Counters and histograms grow as
responses end. Each gateway has its own registry, so that several can live in one process.

Label values that are known in advance start at 0. A series that appears with its first event would
hide that event from a rate or an alert.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from gateway.collector import CollectionPauses
from gateway.lateness import ReleaseLateness
from gateway.response.lifecycle import State
from gateway.response.session import Session
from gateway.routing.cluster import Cluster
from gateway.scrape import (
    ClusterCollector,
    LatenessCollector,
    LauncherCollector,
    PauseCollector,
    ProgramCollector,
    Restarting,
)
from gateway.store import ResponseStore

# Without this, every counter and histogram would have a second series.
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

_STATUSES = ("completed", "incomplete", "cancelled", "failed")
_TOKEN_KINDS = ("prompt", "reasoning", "answering")
_TPOT_KINDS = ("raw", "paced")
_BOUNDARY = ("stayed", "moved", "recomputed")
# Codes of refusals whose cause is the server. Codes whose cause is a client appear with their first
# event.
REFUSALS = (
    "draining",
    "instance_lost",
    "internal_error",
    "invalid_api_key",
    "no_instance",
    "rate_limit_exceeded",
    "server_overloaded",
    "store_unavailable",
)


class Metrics:
    """All metrics of one gateway."""

    def __init__(self, cluster: Cluster, store: ResponseStore) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(ClusterCollector(cluster))
        registry.register(ProgramCollector(store))
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self.responses = Counter(
            "pascal_responses", "Finished responses", ["status"], registry=registry
        )
        self.refused = Counter(
            "pascal_refused", "Requests that the gateway refused", ["code"], registry=registry
        )
        self.tokens = Counter(
            "pascal_tokens", "Tokens of finished responses", ["kind"], registry=registry
        )
        self.underruns = Counter(
            "pascal_pacer_underruns",
            "Tokens that came too late for their reader",
            registry=registry,
        )
        self.slo_violations = Counter(
            "pascal_slo_violations", "Responses with QoE below the SLO", registry=registry
        )
        self.release_lateness = ReleaseLateness()
        registry.register(LatenessCollector(self.release_lateness))
        self.pauses = CollectionPauses()
        registry.register(PauseCollector(self.pauses))
        self.sessions = Gauge(
            "pascal_sessions", "Responses in memory, including finished ones", registry=registry
        )
        self.unfinished = Gauge(
            "pascal_responses_unfinished",
            "Responses that are not fully delivered yet",
            registry=registry,
        )
        self.in_engines = Gauge(
            "pascal_requests_in_engines",
            "Requests in engines or on their way to one",
            registry=registry,
        )
        self.admission_load = Gauge(
            "pascal_admission_load",
            "What is booked of limits.load now, as a share; 1: a new request is refused",
            registry=registry,
        )
        self.promised = Gauge(
            "pascal_promised_places",
            "Refused requests that may come back to a place of their own",
            registry=registry,
        )
        self.event_log_bytes = Gauge(
            "pascal_event_log_bytes",
            "Bytes of the events of all responses in memory",
            registry=registry,
        )
        self.boundary_blocking = Histogram(
            "pascal_boundary_blocking_seconds",
            "Time from the phase boundary to the next token from an engine",
            ["how"],
            buckets=(0.01, 0.025, *_SECONDS),
            registry=registry,
        )
        self._ttft = self._histogram(
            "pascal_ttft_seconds", "Time from submission to the first answering token"
        )
        self._ttfat = self._histogram(
            "pascal_ttfat_seconds", "Time from the phase boundary to the first answering token"
        )
        self._e2e = self._histogram(
            "pascal_e2e_seconds", "Time from submission to the end of the response"
        )
        self._qoe = Histogram(
            "pascal_qoe",
            "Quality of experience of a reader, from 0 to 1",
            buckets=_QOE,
            registry=registry,
        )
        self.qoe_as_read = Histogram(
            "pascal_qoe_as_read",
            "Quality of experience of a reader, from 0 to 1, as its client saw it",
            buckets=_QOE,
            registry=registry,
        )
        self._tpot = Histogram(
            "pascal_tpot_seconds",
            "Time per answering token",
            ["kind"],
            buckets=_TPOT_SECONDS,
            registry=registry,
        )
        for counter, values in (
            (self.responses, _STATUSES),
            (self.refused, REFUSALS),
            (self.tokens, _TOKEN_KINDS),
            (self.boundary_blocking, _BOUNDARY),
            (self._tpot, _TPOT_KINDS),
        ):
            for value in values:
                counter.labels(value)

    def count_unfinished(self) -> int:
        """Return the number of responses that are not fully delivered."""
        (family,) = self.unfinished.collect()
        return int(family.samples[0].value)

    def watch_launcher(self, launcher: Restarting) -> None:
        """Export the restarts and failures of the launcher's workers as well."""
        self.registry.register(LauncherCollector(launcher))

    def response_ended(self, session: Session, slo_qoe: float) -> None:
        """Count a finished response; times and QoE of a reader only if it was streamed."""
        status = "cancelled" if session.state is State.CANCELLED else session.status
        self.responses.labels(status).inc()
        self.tokens.labels("prompt").inc(session.prompt_tokens)
        self.tokens.labels("reasoning").inc(session.reasoning_tokens)
        self.tokens.labels("answering").inc(session.answering_tokens)
        self.tokens.labels("calling").inc(session.calling_tokens)
        if not session.generation.read_along:
            return  # sent as a whole: it has no pace
        self.underruns.inc(session.delivery.underruns)
        measured = session.delivery.measurements()
        qoe = 0.0 if session.state is State.FAILED else measured.qoe
        for histogram, value in (
            (self._ttft, measured.paced.ttft_s),
            (self._ttfat, measured.paced.ttfat_s),
            (self._e2e, measured.paced.e2e_s),
            (self._tpot.labels("raw"), measured.raw.tpot_s),
            (self._tpot.labels("paced"), measured.paced.tpot_s),
            (self._qoe, qoe),
        ):
            if value is not None:
                histogram.observe(value)
        if qoe is not None and qoe < slo_qoe:
            self.slo_violations.inc()

    def render(self) -> bytes:
        """Render all metrics in the text exposition format."""
        return generate_latest(self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_SECONDS, registry=self.registry)
