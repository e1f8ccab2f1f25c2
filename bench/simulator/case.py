"""One simulated case: a cluster under one policy and the arrivals of one seed.

Every command that simulates makes a `CaseSpec` and calls `run_case`. The oracle is defined here:
vLLM's own order with memory for every request.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from bench.simulator.cluster import Cluster, ClusterRun, Watch, Window
from bench.simulator.defaults import INSTANCES, ORACLE_KV, RULES
from bench.simulator.load import Extent
from bench.simulator.parallel import report
from bench.simulator.results import ORACLE, PolicyRun
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.timeline import TaskMetrics, Timeline, following, metrics_of, tasks_of
from bench.simulator.watermark import share_of
from bench.workloads.arrivals import Arrival
from gateway.policy.placement import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSpec:
    """The cluster of a case, and the part of the run that is measured."""

    policy: str  # inside the engines, `ORACLE`, or `fcfs+watermark` with its share
    seed: int  # of the arrivals
    extent: Extent
    instances: int = INSTANCES
    rules: Rules = RULES["off"]  # of placement
    # Of each instance, except for what `policy` and `rules` decide; see `settings`.
    instance: InstanceSettings = field(default_factory=InstanceSettings)
    # Seconds per token of a gateway that paces calls like prose; None: it delivers them at once.
    calls_tau_s: float | None = None

    def settings(self) -> InstanceSettings:
        """Settings of each instance."""
        migration = self.rules.boundary != "off"
        if (share := share_of(self.policy)) is not None:
            return replace(self.instance, policy="fcfs", watermark=share, migration=migration)
        if self.policy != ORACLE:
            return replace(self.instance, policy=self.policy, migration=migration)
        blocks = self.instance.profile.kv.blocks * ORACLE_KV
        return replace(self.instance, policy="fcfs", kv_blocks=blocks, migration=migration)

    def cluster(self, watch: Watch | None = None) -> Cluster:
        """The cluster at time 0, without requests."""
        window = Window(self.extent.from_s, self.extent.to_s)
        follow = partial(following, tau_s=self.calls_tau_s)
        watching = watch or Watch()
        return Cluster(self.settings(), self.instances, window, self.rules, watching, follow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out of a case."""

    run: PolicyRun
    timelines: Sequence[Timeline]  # of the measured requests
    tasks: Sequence[TaskMetrics]  # of agents, of which all turns are measured
    migrations: int
    transfers_s: Sequence[float]  # of KV that changed instances, with the wait for the links
    busy_share: float  # of the instances' time, in which they computed
    kv_peak_share: float  # of the fullest instance's blocks
    ended_s: float  # virtual time


def run_case(
    spec: CaseSpec, arrivals: Iterable[Arrival], watch: Watch | None = None, index: int = 0
) -> Outcome:
    """Simulate a case.

    :param arrivals: in order of time.
    :param watch: is called with every event.
    :param index: of the case among those of `bench.simulator.parallel.in_parallel`.
    """
    cluster = spec.cluster(watch)
    stop_s = spec.extent.stop_s
    run = cluster.run(iter(arrivals), lambda now: report(index, min(0.99, now / stop_s)))
    outcome = _outcome(spec, cluster, run)
    del cluster, run
    gc.collect()  # the processes of `bench.simulator.parallel` collect only here
    report(index, 1.0)
    return outcome


def _outcome(spec: CaseSpec, cluster: Cluster, run: ClusterRun) -> Outcome:
    totals = run.totals
    peak_blocks = max(total.kv_peak_blocks for total in totals)
    settings = spec.settings()
    blocks = settings.kv_blocks or settings.profile.kv.blocks
    return Outcome(
        run=PolicyRun(
            policy=spec.policy,
            seed=spec.seed,
            requests=[metrics_of(one) for one in run.timelines if one.read],
            throughput_tok_s=run.generated_tokens / (spec.extent.to_s - spec.extent.from_s),
            generated_tokens=sum(total.generated_tokens for total in totals),
            recomputed_tokens=sum(total.recomputed_tokens for total in totals),
            reloaded_tokens=sum(total.reloaded_tokens for total in totals),
            kv_peak_blocks=peak_blocks,
        ),
        timelines=run.timelines,
        tasks=tasks_of(run.timelines, spec.calls_tau_s),
        migrations=run.migrations,
        transfers_s=cluster.network.taken_s,
        busy_share=sum(total.busy_s for total in totals) / (len(totals) * run.ended_s),
        kv_peak_share=peak_blocks / (blocks - 1),  # without vLLM's null block
        ended_s=run.ended_s,
    )
