"""Metrics that are read at each scrape: instances, workers, the store, lateness and pauses.

`gateway.metrics` does not count these: other modules keep the numbers anyway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from itertools import accumulate
from typing import Protocol, get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.collector import GENERATIONS, PAUSE_EDGES_S, CollectionPauses
from gateway.config import Config
from gateway.lateness import ReleaseLateness
from gateway.response.tally import TOKEN_KINDS, Tally
from gateway.routing.cluster import Cluster
from gateway.routing.route import Outcome
from gateway.store import Failure, ResponseStore

# Of emulated devices only; see `DeviceStats`.
_DEVICE_COUNTERS = {
    "seconds": "Time since an emulated device started, or since its counters were reset",
    "steps": "Steps of an emulated device",
    "busy_seconds": "Modelled time in which an emulated device computed",
    "starved_seconds": "Time that an emulated device was idle while its engine had work",
    "stalled_seconds": "Time that an emulated device waited for KV to be stored",
    "late_seconds": "Time from the end of a step until the engine took its tokens, over all steps",
}
_INSTANCE = ["instance"]
_LATENESS_MS = (1, 2, 5, 10, 20, 50, 100, 500)


class Restarting(Protocol):
    """What a launcher reports about its workers; see `gateway.launchers.base`."""

    @property
    def restarts_total(self) -> int:
        """Restarts of worker processes that the launcher made or noticed."""

    @property
    def failures(self) -> Mapping[str, int]:
        """Consecutive failures of each worker; 0 for one that serves well."""


class LauncherCollector(Collector):
    """Restarts and failures of workers."""

    def __init__(self, launcher: Restarting) -> None:
        self._launcher = launcher

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        yield CounterMetricFamily(
            "pascal_worker_restarts",
            "Restarts of worker processes",
            value=self._launcher.restarts_total,
        )
        failures = GaugeMetricFamily(
            "pascal_worker_failures_in_a_row",
            "Failures of a worker since it last served well",
            labels=["worker"],
        )
        for worker, count in sorted(self._launcher.failures.items()):
            failures.add_metric([worker], count)
        yield failures


class LatenessCollector(Collector):
    """How late tokens were released."""

    def __init__(self, lateness: ReleaseLateness) -> None:
        self._lateness = lateness

    def collect(self) -> Iterator[Metric]:
        """The metric as it is now."""
        lateness = self._lateness
        buckets = [(str(ms / 1000), float(lateness.at_most(ms))) for ms in _LATENESS_MS]
        yield HistogramMetricFamily(
            "pascal_release_lateness_seconds",
            "How late the gateway released a token",
            buckets=[*buckets, ("+Inf", float(sum(lateness.counts)))],
            sum_value=lateness.sum_s,
        )


class PauseCollector(Collector):
    """Pauses of garbage collection."""

    def __init__(self, pauses: CollectionPauses) -> None:
        self._pauses = pauses

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        family = HistogramMetricFamily(
            "pascal_gc_pause_seconds",
            "How long a garbage collection stopped the gateway",
            labels=["generation"],
        )
        longest = GaugeMetricFamily(
            "pascal_gc_longest_pause_seconds",
            "Longest garbage collection since the start of the gateway",
            labels=["generation"],
        )
        edges = [*map(str, PAUSE_EDGES_S), "+Inf"]
        for generation in range(GENERATIONS):
            totals = [float(total) for total in accumulate(self._pauses.counts[generation])]
            buckets = list(zip(edges, totals, strict=True))
            family.add_metric([str(generation)], buckets, self._pauses.sums_s[generation])
            longest.add_metric([str(generation)], self._pauses.longest_s[generation])
        yield from (family, longest)


class ProgramCollector(Collector):
    """The store, and the tasks of the event loop that scrapes."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        failures = CounterMetricFamily(
            "pascal_store_failures",
            "Accesses to stored responses that failed",
            labels=["kind"],
        )
        for kind in get_args(Failure):
            failures.add_metric([kind], self._store.failures[kind])
        yield failures
        yield GaugeMetricFamily(
            "pascal_store_bytes",
            "Size of the stored responses on disk, write-ahead log included",
            value=self._store.size_bytes,
        )
        yield GaugeMetricFamily(
            "pascal_store_queued_bytes",
            "Responses and items that wait to be stored",
            value=self._store.queued_bytes,
        )
        yield GaugeMetricFamily(
            "pascal_store_away",
            "Whether the database of the store cannot be reached: 1 or 0",
            value=float(self._store.away),
        )
        try:
            tasks = asyncio.all_tasks()
        except RuntimeError:  # outside of an event loop there are none
            return
        yield GaugeMetricFamily(
            "pascal_asyncio_tasks", "Tasks of the gateway's event loop", value=len(tasks)
        )


class TallyCollector(Collector):
    """The responses that are not fully delivered, and the tokens of all of them so far."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        live = self._tally.live(time.monotonic())
        states = GaugeMetricFamily(
            "pascal_requests_live",
            "Requests that are not fully delivered, by where they are",
            labels=["state"],
        )
        for state, count in live.states.items():
            states.add_metric([state], count)
        yield states
        yield GaugeMetricFamily(
            "pascal_readers_dry",
            "Readers who wait for a token of an answer that is being generated",
            value=live.dry_readers,
        )
        yield GaugeMetricFamily(
            "pascal_buffered_tokens",
            "Tokens of answers that wait for their time",
            value=live.buffered_tokens,
        )
        generated = CounterMetricFamily(
            "pascal_tokens_generated", "Tokens that came from engines", labels=["kind"]
        )
        for kind in TOKEN_KINDS:
            generated.add_metric([kind], getattr(live.tokens, kind))
        yield generated
        yield CounterMetricFamily(
            "pascal_tokens_released",
            "Tokens of answers that were sent to their readers",
            value=live.tokens.released,
        )


class InfoCollector(Collector):
    """What runs here."""

    def __init__(self, config: Config, cluster: Cluster) -> None:
        self._config = config
        self._cluster = cluster

    def collect(self) -> Iterator[Metric]:
        """The metric as it is now."""
        instances = self._cluster.instances.values()
        yield InfoMetricFamily(
            "pascal",
            "What runs here; the value is 1",
            value={
                "version": own_version() or "",
                "model": self._config.served_model_name,
                "policy": self._cluster.policies.wanted or self._config.workers.policy,
                "boundary": self._cluster.boundary.rule,
                "engines": ",".join(sorted({one.welcome.engine for one in instances})),
            },
        )


def own_version() -> str | None:
    """The version of the installed package; None if it runs from its sources."""
    try:
        return metadata.version("pascal-serve")
    except metadata.PackageNotFoundError:
        return None


class ClusterCollector(Collector):
    """The last statistics of all instances, and the outcomes of migrations."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        yield from self._engines()
        yield from self._migrations()
        yield from self._devices()
        totals = self._cluster.totals()
        preemptions = CounterMetricFamily(
            "pascal_preemptions", "Requests that lost their KV memory", labels=_INSTANCE
        )
        for instance_id, counted in sorted(totals.items()):
            preemptions.add_metric([instance_id], counted.preemptions)
        yield preemptions
        lost = CounterMetricFamily(
            "pascal_preempted_tokens", "KV tokens that preempted requests recovered", labels=["how"]
        )
        lost.add_metric(["reloaded"], sum(one.reloaded_tokens for one in totals.values()))
        lost.add_metric(["recomputed"], sum(one.recomputed_tokens for one in totals.values()))
        yield lost
        yield GaugeMetricFamily(
            "pascal_instances", "Instances that can serve", value=len(self._cluster.instances)
        )

    def _engines(self) -> Iterator[Metric]:
        labels = ["instance", "phase"]
        running = GaugeMetricFamily(
            "pascal_requests_running", "Requests in the batch of an engine", labels=labels
        )
        waiting = GaugeMetricFamily(
            "pascal_requests_waiting", "Requests that wait outside the batch", labels=labels
        )
        used = GaugeMetricFamily(
            "pascal_kv_blocks_used", "KV blocks that requests hold", labels=labels
        )
        blocks = GaugeMetricFamily(
            "pascal_kv_blocks", "KV blocks that the engine has", labels=_INSTANCE
        )
        steps = CounterMetricFamily("pascal_engine_steps", "Engine steps", labels=_INSTANCE)
        step_s = GaugeMetricFamily(
            "pascal_step_seconds",
            "Time of one engine step of late, while the engine was busy",
            labels=_INSTANCE,
        )
        for instance_id, instance in sorted(self._cluster.instances.items()):
            if (stats := instance.stats) is None:
                continue
            if instance.steps.step_s is not None:
                step_s.add_metric([instance_id], instance.steps.step_s)
            for phase, counts in (
                ("reasoning", stats.reasoning),
                ("answering", stats.answering),
                ("calling", stats.calling),
            ):
                running.add_metric([instance_id, phase], counts.running)
                waiting.add_metric([instance_id, phase], counts.waiting)
                used.add_metric([instance_id, phase], counts.kv_blocks)
            blocks.add_metric([instance_id], stats.kv_blocks_total)
            steps.add_metric([instance_id], stats.steps_total)
        yield from (running, waiting, used, blocks, steps, step_s)

    def _migrations(self) -> Iterator[Metric]:
        held = GaugeMetricFamily(
            "pascal_kv_blocks_held",
            "KV blocks of requests that left, which were not read yet",
            labels=_INSTANCE,
        )
        tickets = CounterMetricFamily(
            "pascal_kv_tickets",
            "Tickets for the KV of requests that moved, by event",
            labels=["instance", "event"],
        )
        for instance_id, instance in sorted(self._cluster.instances.items()):
            if instance.stats is None or (moved := instance.stats.migration) is None:
                continue
            held.add_metric([instance_id], moved.held_blocks)
            tickets.add_metric([instance_id, "given"], moved.tickets_total)
            tickets.add_metric([instance_id, "expired"], moved.expired_total)
            tickets.add_metric([instance_id, "read"], moved.read_requests_total)
            tickets.add_metric([instance_id, "failed"], moved.failed_total)
        yield from (held, tickets)
        routing = self._cluster.routing_totals()
        for name, text, ended, outcomes in (
            (
                "pascal_migrations",
                "Planned moves of requests to another instance",
                routing.migrations,
                get_args(Outcome),
            ),
            (
                "pascal_failovers",
                "Requests that lost their instance",
                routing.failovers,
                ("resumed", "failed"),
            ),
        ):
            family = CounterMetricFamily(name, text, labels=["outcome"])
            for outcome in outcomes:
                family.add_metric([outcome], ended[outcome])
            yield family
        yield GaugeMetricFamily(
            "pascal_migrations_in_flight",
            "Requests that are moving between instances",
            value=routing.migrating,
        )

    def _devices(self) -> Iterator[Metric]:
        families = [
            CounterMetricFamily(f"pascal_emulated_{name}", text, labels=_INSTANCE)
            for name, text in _DEVICE_COUNTERS.items()
        ]
        for instance_id, instance in sorted(self._cluster.instances.items()):
            if instance.stats is None or (device := instance.stats.device) is None:
                continue
            values = (
                device.passed_s,
                device.steps,
                device.busy_s,
                device.starved_s,
                device.stalled_s,
                device.late_s,
            )
            for family, value in zip(families, values, strict=True):
                family.add_metric([instance_id], value)
        yield from (family for family in families if family.samples)
