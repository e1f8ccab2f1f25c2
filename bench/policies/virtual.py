"""The policies in virtual time: eight modelled H100 instances under the same arrivals.

Runs of several policies and seeds share the cores. KV memory is half of what the device has, and
the load is what instances then just sustain: the regime in which policies differ. With less load
they are all equal; with more, no policy can feed every reader for long.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.simulator.case import CaseSpec, run_case
from bench.simulator.defaults import PROFILE
from bench.simulator.load import Extent, SteadyLoad
from bench.simulator.parallel import in_parallel
from bench.simulator.results import ORACLE, PolicyRun
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.watermark import NAME as WATERMARK
from bench.simulator.watermark import expanded
from workers.emulation.profile import load_profile

POLICIES = (ORACLE, "fcfs", WATERMARK, "rr", "pascal", "slack")
SEEDS = (1, 2, 3, 4, 5)
KV_SHARE = 0.5  # of the device's KV memory

# What instances with half of their memory just sustain, 29 requests running on each: at this rate
# memory is full after about 200 s. The window begins a little later.
FULL = SteadyLoad(rate=4.4, extent=Extent(250.0, 400.0, 450.0))
# A shorter run. Instances begin with the requests that such a load would have left there, and the
# load is above what they can sustain, so that memory is soon short.
QUICK = SteadyLoad(rate=4.8, extent=Extent(10.0, 40.0, 45.0), token_s=0.031)


def run_virtual(
    load: SteadyLoad,
    progress: Callable[[PolicyRun, int, int], None],
    policies: tuple[str, ...] = POLICIES,
) -> list[PolicyRun]:
    """Every policy under the arrivals of every seed; ``fcfs+watermark`` with each of its shares.

    :param progress: called after each run with the run, the number of finished runs, and of all.
    """
    policies = expanded(policies)
    cases = [(policy, seed, load) for seed in SEEDS for policy in policies]
    runs: list[PolicyRun] = []
    for run in in_parallel(run_policy, cases):
        runs.append(run)
        progress(run, len(runs), len(cases))
    return sorted(runs, key=lambda run: (policies.index(run.policy), run.seed))


def run_policy(policy: str, seed: int, load: SteadyLoad) -> PolicyRun:
    """One policy under the arrivals of one seed."""
    blocks = int(load_profile(PROFILE).kv.blocks * KV_SHARE)
    spec = CaseSpec(
        policy=policy, seed=seed, extent=load.extent, instance=InstanceSettings(kv_blocks=blocks)
    )
    return run_case(spec, load.arrivals(seed)).run
