"""Requests that change instances at the phase boundary, under load: eight modelled H100 instances.

In virtual time, with the gateway's own placement (see `bench.simulator.cluster`). Each policy is
run under each boundary rule and the same arrivals:

    off             requests stay
    always          Algorithm 2 (paper), wherever it leads
    adaptive_paper  Algorithm 2, and stay where only the current instance has room (paper)
    adaptive        Algorithm 2 among instances with room to spare (``headroom`` of the rules)
    balance         to the smallest KV footprint, where the gap is worth it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bench.policies.virtual import INSTANCES, Plan, arrivals, policy_run
from bench.reporting.statistics import percentile
from bench.simulator.cluster import NO_MIGRATION, Window, simulate
from bench.simulator.defaults import MODEL, PROFILE
from bench.simulator.parallel import in_parallel
from bench.simulator.results import PolicyRun, policy_result
from bench.simulator.scheduler_factory import InstanceSettings
from gateway.policy.placement import PAPER, Rules
from workers.emulation.profile import load_profile

RULES = {
    "off": NO_MIGRATION,
    "always": replace(NO_MIGRATION, boundary="always"),
    "adaptive_paper": PAPER,
    "adaptive": replace(PAPER, headroom=Rules().headroom),
    "balance": replace(PAPER, boundary="balance", headroom=Rules().headroom),
}
BOUNDARIES = {
    "pascal": ("off", "always", "adaptive_paper", "adaptive"),
    "slack": ("off", "always", "adaptive", "balance"),
}

# Memory is full on some instances at some times, not everywhere: the regime in which it matters
# where a request is. Instances begin with the population of a steady state.
FULL = Plan(6.5, Window(20.0, 60.0), 65.0, (1, 2, 3, 4, 5), token_s=0.033)
QUICK = Plan(6.5, Window(15.0, 30.0), 35.0, (1, 2), token_s=0.033)


@dataclass(frozen=True, slots=True)
class MovesRun:
    """One policy under one boundary rule and the arrivals of one seed."""

    boundary: str
    run: PolicyRun
    migrations: int


def run_moves(
    plan: Plan, progress: Callable[[MovesRun, int, int], None]
) -> dict[str, dict[str, Any]]:
    """Every policy under every boundary rule and every seed's arrivals.

    :param progress: called after each run with it, the number of runs done, and of all.
    :return: by policy and rule what `bench.simulator.results.policy_result` says, with
        ``boundary_blocking_p99_s`` (from the boundary to the first answering token) and
        ``migrations`` of a run.
    """
    cases = [
        (policy, boundary, seed, plan)
        for seed in plan.seeds
        for policy, boundaries in BOUNDARIES.items()
        for boundary in boundaries
    ]
    runs: list[MovesRun] = []
    for run in in_parallel(run_case, cases):
        runs.append(run)
        progress(run, len(runs), len(cases))
    return {
        policy: {boundary: _result(runs, policy, boundary) for boundary in boundaries}
        for policy, boundaries in BOUNDARIES.items()
    }


def run_case(policy: str, boundary: str, seed: int, plan: Plan) -> MovesRun:
    """One policy under one rule and one seed's arrivals."""
    profile = load_profile(PROFILE)
    settings = InstanceSettings(
        profile=profile,
        model=str(MODEL),
        policy=policy,
        migration=True,
    )
    found = simulate(settings, INSTANCES, arrivals(plan, seed), plan.window, rules=RULES[boundary])
    return MovesRun(boundary, policy_run(policy, seed, plan, found), found.migrations)


def _result(runs: list[MovesRun], policy: str, boundary: str) -> dict[str, Any]:
    mine = sorted(
        (run for run in runs if run.run.policy == policy and run.boundary == boundary),
        key=lambda run: run.run.seed,
    )
    result = policy_result([run.run for run in mine], [])
    waits = [sorted(request.ttfat_s for request in run.run.requests) for run in mine]
    result["boundary_blocking_p99_s"] = sum(percentile(w, 99) for w in waits) / len(waits)
    result["migrations"] = sum(run.migrations for run in mine) / len(mine)
    return result
