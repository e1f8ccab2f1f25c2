"""Requests that change instances at the phase boundary, under load: eight modelled H100 instances.

In virtual time, with the gateway's own placement (see `bench.simulator.cluster`). Each policy runs
under several rules of placement (`bench.simulator.defaults.RULES`) and the same arrivals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.simulator.case import CaseSpec, run_case
from bench.simulator.defaults import RULES
from bench.simulator.load import Extent, SteadyLoad
from bench.simulator.parallel import in_parallel
from bench.simulator.results import PolicyRun, cluster_result

BOUNDARIES = {
    "pascal": ("off", "always", "adaptive_paper", "adaptive"),
    "slack": ("off", "always", "adaptive", "balance"),
}

# Memory is full on some instances at some times, not everywhere: the regime in which it matters
# where a request is. Instances begin with the population of a steady state.
FULL = SteadyLoad(rate=6.5, extent=Extent(20.0, 60.0, 65.0), token_s=0.033)
FULL_SEEDS = (1, 2, 3, 4, 5)
QUICK = SteadyLoad(rate=6.5, extent=Extent(15.0, 30.0, 35.0), token_s=0.033)
QUICK_SEEDS = (1, 2)


@dataclass(frozen=True, slots=True)
class BoundaryRun:
    """One policy under one boundary rule and the arrivals of one seed."""

    boundary: str
    run: PolicyRun
    migrations: int


def run_boundaries(
    quick: bool, progress: Callable[[BoundaryRun, int, int], None]
) -> dict[str, dict[str, Any]]:
    """Every policy under every boundary rule and the arrivals of every seed.

    :param progress: called after each run with the run, the number of finished runs, and of all.
    :return: by policy and rule, the result as `bench.simulator.results.cluster_result` returns it.
    """
    load, seeds = (QUICK, QUICK_SEEDS) if quick else (FULL, FULL_SEEDS)
    cases = [
        (policy, boundary, seed, load)
        for seed in seeds
        for policy, boundaries in BOUNDARIES.items()
        for boundary in boundaries
    ]
    runs: list[BoundaryRun] = []
    for run in in_parallel(run_boundary, cases):
        runs.append(run)
        progress(run, len(runs), len(cases))
    return {
        policy: {boundary: _result(runs, policy, boundary) for boundary in boundaries}
        for policy, boundaries in BOUNDARIES.items()
    }


def run_boundary(policy: str, boundary: str, seed: int, load: SteadyLoad) -> BoundaryRun:
    """One policy under one rule and the arrivals of one seed."""
    spec = CaseSpec(policy=policy, seed=seed, extent=load.extent, rules=RULES[boundary])
    outcome = run_case(spec, load.arrivals(seed))
    return BoundaryRun(boundary, outcome.run, outcome.migrations)


def _result(runs: list[BoundaryRun], policy: str, boundary: str) -> dict[str, Any]:
    of_case = [run for run in runs if run.run.policy == policy and run.boundary == boundary]
    return cluster_result(sorted(of_case, key=lambda run: run.run.seed), [])
