"""One case of the reproduction, simulated: `bench.simulator.cluster`'s cluster, watched."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

from bench.migration.under_load import RULES
from bench.paper.cases import Case
from bench.paper.outcome import PaperRun
from bench.paper.store import Store
from bench.policies.virtual import Plan, policy_run
from bench.simulator.cluster import Cluster, ClusterRun, Window
from bench.simulator.defaults import MODEL, PROFILE
from bench.simulator.parallel import report
from bench.simulator.results import ORACLE
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.span_watch import SpanWatch
from bench.simulator.spans import phases
from bench.simulator.timeline import Timeline
from bench.workloads.arrivals import Arrival, under_way
from bench.workloads.named import named
from workers.emulation.profile import load_profile


def keep_case(index: int, case: Case, folder: Path) -> Case:
    """Simulate a case and keep its run in a store.

    :param index: of the case, for telling how far it is.
    :return: the case.
    """
    Store(folder).save(case, run_case(case, index))
    return case


def run_case(case: Case, index: int = 0) -> PaperRun:
    """Simulate a case."""
    settings = InstanceSettings(
        profile=load_profile(PROFILE),
        model=str(MODEL),
        policy="fcfs" if case.policy == ORACLE else case.policy,
        policy_numbers={name: int(value) for name, value in case.numbers},
        kv_blocks=case.kv_blocks,
        migration=case.boundary != "off",
    )
    extent = case.extent
    window = Window(extent.from_s, extent.to_s)
    watch = SpanWatch()
    cluster = Cluster(settings, case.instances, window, RULES[case.boundary], watch)
    found = cluster.run(arrivals(case), lambda now: report(index, min(0.99, now / extent.stop_s)))
    kept = _kept(case, cluster, watch, found)
    del cluster, watch, found
    gc.collect()
    report(index, 1.0)
    return kept


def arrivals(case: Case) -> Iterator[Arrival]:
    """What comes: a steady state's requests, if there is one, and then new ones.

    Without those that no instance could hold, under any policy.
    """
    for arrival in _coming(case):
        if arrival.at_s >= case.extent.stop_s:
            return
        lengths = arrival.lengths
        if lengths.prompt + lengths.reasoning + lengths.answer <= case.longest:
            yield arrival


def _coming(case: Case) -> Iterator[Arrival]:
    workload = named(case.workload)
    if case.token_s is not None:
        yield from under_way(case.rate, workload.lengths, case.token_s, case.seed)
    yield from workload.arrivals(case.rate, case.seed)


def _kept(case: Case, cluster: Cluster, watch: SpanWatch, found: ClusterRun) -> PaperRun:
    window = Window(case.extent.from_s, case.extent.to_s)
    plan = Plan(case.rate, window, case.extent.stop_s, (case.seed,), case.token_s)
    splits = [phases(spans) for spans in watch.spans(found.timelines)]
    return PaperRun(
        run=policy_run(case.policy, case.seed, plan, found),
        reasoning=[reasoning for reasoning, _ in splits],
        answering=[answering for _, answering in splits],
        generation_tpot_s=[_tpot_s(timeline) for timeline in found.timelines],
        transfers_s=cluster.network.taken_s,
        migrations=found.migrations,
    )


def _tpot_s(timeline: Timeline) -> float | None:
    count = len(timeline.answer_s)
    return (timeline.answer_s[-1] - timeline.answer_s[0]) / (count - 1) if count > 1 else None
