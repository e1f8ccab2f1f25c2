"""The policies in virtual time: eight modelled H100 instances under the same arrivals.

Runs of several policies and seeds share the cores. KV memory is half of what the device has, and
the load is what instances then just sustain: the regime in which policies differ. Below it all are
equal, above it nobody can keep every reader fed for long.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bench.simulator.cluster import ClusterRun, Window, simulate
from bench.simulator.defaults import MODEL, PROFILE
from bench.simulator.parallel import in_parallel
from bench.simulator.results import ORACLE, PolicyRun
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.timeline import figures
from bench.workloads.arrivals import Arrival, poisson, under_way
from bench.workloads.lengths import ARENA_HARD
from workers.emulation.profile import load_profile

POLICIES = (ORACLE, "fcfs", "rr", "pascal", "slack")
INSTANCES = 8
KV_SHARE = 0.5  # of the device's KV memory
_ORACLE_KV = 8  # times the device's memory: never full


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is simulated."""

    rate: float  # requests per second, all instances together
    window: Window
    stop_s: float  # no arrivals after it: what is left is finished without further load
    seeds: tuple[int, ...]
    token_s: float | None = (
        None  # of the requests that are there at the beginning; None: there are none
    )


# What instances with half of their memory just sustain, 29 requests running on each: at this rate
# memory is full after some 200 s; some later the window begins.
FULL = Plan(4.4, Window(250.0, 400.0), 450.0, (1, 2, 3, 4, 5))
# The same in little: the instances begin with the requests that such a load would have left there,
# and the load is above what they can sustain, so that memory is soon short.
QUICK = Plan(4.8, Window(10.0, 40.0), 45.0, (1, 2, 3, 4, 5), token_s=0.031)


def run_virtual(
    plan: Plan,
    progress: Callable[[PolicyRun, int, int], None],
    policies: tuple[str, ...] = POLICIES,
) -> list[PolicyRun]:
    """Every policy under every seed's arrivals.

    :param progress: called after each run with it, the number of runs done, and of all.
    """
    cases = [(policy, seed, plan) for seed in plan.seeds for policy in policies]
    runs: list[PolicyRun] = []
    for run in in_parallel(run_case, cases):
        runs.append(run)
        progress(run, len(runs), len(cases))
    return sorted(runs, key=lambda run: (policies.index(run.policy), run.seed))


def run_case(policy: str, seed: int, plan: Plan) -> PolicyRun:
    """One policy under one seed's arrivals."""
    profile = load_profile(PROFILE)
    settings = InstanceSettings(
        profile=profile,
        model=str(MODEL),
        policy=policy,
        kv_blocks=int(profile.kv.blocks * KV_SHARE),
    )
    if policy == ORACLE:
        settings = replace(settings, policy="fcfs", kv_blocks=profile.kv.blocks * _ORACLE_KV)
    run = simulate(settings, INSTANCES, arrivals(plan, seed), plan.window)
    found = policy_run(policy, seed, plan, run)
    del run
    gc.collect()
    return found


def arrivals(plan: Plan, seed: int) -> Iterator[Arrival]:
    """What comes under a plan."""
    if plan.token_s is not None:
        yield from under_way(plan.rate, ARENA_HARD, plan.token_s, seed)
    for arrival in poisson(plan.rate, ARENA_HARD, seed):
        if arrival.at_s >= plan.stop_s:
            return
        yield arrival


def policy_run(policy: str, seed: int, plan: Plan, run: ClusterRun) -> PolicyRun:
    """The figures of a simulation."""
    return PolicyRun(
        policy=policy,
        seed=seed,
        requests=[figures(timeline) for timeline in run.timelines],
        throughput_tok_s=run.generated_tokens / (plan.window.to_s - plan.window.from_s),
        generated_tokens=sum(total.generated_tokens for total in run.totals),
        recomputed_tokens=sum(total.recomputed_tokens for total in run.totals),
        reloaded_tokens=sum(total.reloaded_tokens for total in run.totals),
        kv_peak_blocks=max(total.kv_peak_blocks for total in run.totals),
    )
