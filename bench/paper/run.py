"""One case of the reproduction, simulated and kept."""

from __future__ import annotations

from pathlib import Path

from bench.paper.cases import Case
from bench.paper.outcome import PaperRun
from bench.paper.store import Store
from bench.simulator.case import CaseSpec
from bench.simulator.case import run_case as simulate
from bench.simulator.defaults import RULES
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.span_watch import SpanWatch
from bench.simulator.spans import phases
from bench.simulator.timeline import Timeline


def keep_case(index: int, case: Case, folder: Path) -> Case:
    """Simulate a case and keep its run in a store.

    :param index: of the case among those that run in parallel, for the progress bar.
    :return: the case.
    """
    Store(folder).save(case, run_case(case, index))
    return case


def run_case(case: Case, index: int = 0) -> PaperRun:
    """Simulate a case."""
    watch = SpanWatch()
    outcome = simulate(spec_of(case), case.load.arrivals(case.seed), watch, index)
    splits = [phases(spans) for spans in watch.spans(outcome.timelines)]
    return PaperRun(
        run=outcome.run,
        reasoning=[reasoning for reasoning, _ in splits],
        answering=[answering for _, answering in splits],
        generation_tpot_s=[_tpot_s(timeline) for timeline in outcome.timelines],
        transfers_s=outcome.transfers_s,
        migrations=outcome.migrations,
    )


def spec_of(case: Case) -> CaseSpec:
    """The cluster of a case."""
    return CaseSpec(
        policy=case.policy,
        seed=case.seed,
        extent=case.extent,
        instances=case.instances,
        rules=RULES[case.boundary],
        instance=InstanceSettings(
            policy_numbers={name: int(value) for name, value in case.numbers},
            kv_blocks=case.kv_blocks,
        ),
    )


def _tpot_s(timeline: Timeline) -> float | None:
    count = len(timeline.answer_s)
    return (timeline.answer_s[-1] - timeline.answer_s[0]) / (count - 1) if count > 1 else None
