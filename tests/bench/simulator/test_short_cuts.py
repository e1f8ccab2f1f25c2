"""Random loads: the simulator's short cuts do not change the results.

Where nothing is stored to the host, leaps are part of that. With KV offload, and so with requests
that move, they store a little later, which may lead elsewhere: there the rest is compared.
"""

from __future__ import annotations

import dataclasses
import math
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from vllm.v1.request import Request

from bench.reporting.statistics import SLO_QOE
from bench.simulator.cluster import NO_MIGRATION, Cluster, ClusterRun, Window, simulate
from bench.simulator.defaults import MODEL
from bench.simulator.instance import Live
from bench.simulator.scheduler import Clock, SimulatedScheduler
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.timeline import TAU_S, Timeline
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths
from gateway.policy.cluster_view import ViewRules, view_of
from gateway.policy.placement import InstanceView
from pacer import RunningQoE
from workers.emulation.profile import load_profile
from workers.policy.settings import BASELINES, POLICIES

_LENGTHS = Lengths(prompt=1, reasoning=0, answer=1000)
SETTINGS = InstanceSettings(profile=load_profile("h100-qwen32b"), model=str(MODEL))


def arrivals(rng: random.Random) -> list[Arrival]:
    """Some at once, some alone; short ones among long ones."""
    gap_s = rng.choice([0.02, 0.1, 0.3, 1.0])
    found: list[Arrival] = []
    at_s = 0.0
    for _ in range(rng.randint(12, 30)):
        if rng.random() < 0.8:
            at_s += rng.expovariate(1 / gap_s)
        lengths = Lengths(
            prompt=rng.randint(1, rng.choice([60, 900])),
            reasoning=rng.randint(1, rng.choice([40, 300])),
            answer=rng.randint(1, rng.choice([30, 250])),
        )
        found.append(Arrival(at_s, lengths))
    return found


def settings(rng: random.Random) -> InstanceSettings:
    """Memory for anything between one of the longest requests and all of them."""
    return dataclasses.replace(
        SETTINGS,
        policy=rng.choice(POLICIES),
        policy_numbers={
            "quantum_tokens": rng.choice([1, 7, 60, 500]),
            "demotion_tokens": rng.choice([50, 200, 5000]),
            "review_s": rng.choice([0.05, 0.25]),
        },
        kv_blocks=rng.choice([110, 120, 150, 300, 2000]),
        max_num_batched_tokens=rng.choice([1024, 2048, 8192]),
        max_num_seqs=rng.choice([12, 1024]),
        resume=rng.choice(["auto", "reload", "recompute"]),
    )


Seen = tuple[ClusterRun, list[InstanceView]]


def pair(seed: int, boundary: str = "off", **changes: Any) -> tuple[Seen, Seen]:
    """The same case with short cuts and without: the results, and the views of placement.

    Views are taken of all instances after each arrival.
    """
    rng = random.Random(seed)
    load, chosen = arrivals(rng), dataclasses.replace(settings(rng), **changes)
    instances = rng.choice([2, 3] if chosen.migration else [1, 2, 3])
    everything = Window(0.0, 1e9)
    some = Window(load[len(load) // 4].at_s, load[3 * len(load) // 4].at_s)
    window = rng.choice([everything, some])
    rules = dataclasses.replace(NO_MIGRATION, boundary=boundary)

    def run(case: InstanceSettings) -> Seen:
        cluster = Cluster(case, instances, window, rules)
        views: list[InstanceView] = []

        def look(now: float) -> None:
            views.extend(
                view_of(instance.occupancy(), (), ViewRules(), now)
                for instance in cluster.instances.values()
            )

        return cluster.run(iter(load), look), views

    return run(chosen), run(dataclasses.replace(chosen, exact=True))


@pytest.mark.parametrize("seed", range(8))
def test_leaps_change_nothing_without_offload(seed: int) -> None:
    quick, exact = pair(seed, offload=False)
    assert quick == exact


@pytest.mark.parametrize("policy", BASELINES)
@pytest.mark.parametrize("seed", [1, 2, 5])
def test_nor_under_the_baselines(seed: int, policy: str) -> None:
    quick, exact = pair(seed, offload=False, policy=policy)
    assert quick == exact


@pytest.mark.parametrize(
    ("load_s", "look_s", "steps"), [(None, math.inf, 50), (0.1, math.inf, 0), (None, 0.1, 0)]
)
def test_a_leap_ends_when_a_load_does_or_somebody_looks(
    load_s: float | None, look_s: float, steps: int
) -> None:
    instance: Any = SimpleNamespace(
        clock=Clock(),
        running=[object()],
        next_load_s=lambda: load_s,
        look_at_s=lambda: look_s,
        step_times=SETTINGS.profile.step,
    )
    ends = SimulatedScheduler._ends(instance, 50, 1000, math.inf)
    if steps:
        assert len(ends) == steps
    else:
        assert ends[-2] < 0.1 <= ends[-1], "with the step in which it happens"


@pytest.mark.parametrize("seed", [2, 3, 4, 6, 14])
def test_leaps_lose_and_reload_as_much_with_it(seed: int) -> None:
    (quick, _), (exact, _) = pair(seed)

    def kv(run: ClusterRun) -> tuple[int, int]:
        totals = run.totals
        return sum(t.recomputed_tokens for t in totals), sum(t.reloaded_tokens for t in totals)

    assert kv(quick) == kv(exact) > (0, 0)
    assert quick.generated_tokens == exact.generated_tokens
    assert quick.ended_s == pytest.approx(exact.ended_s, rel=0.001)


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_the_other_short_cuts_change_nothing_with_it(seed: int) -> None:
    quick, exact = pair(seed, leaps=False)
    assert quick == exact


@pytest.mark.parametrize(
    ("seed", "boundary"), [(1, "always"), (2, "adaptive"), (3, "balance"), (4, "always")]
)
def test_nor_where_requests_move(seed: int, boundary: str) -> None:
    quick, exact = pair(seed, boundary, leaps=False, migration=True)
    assert quick == exact


@pytest.mark.parametrize("more", [[], [Arrival(4.0, Lengths(10, 10, 10))]])
def test_it_stops_in_the_midst_of_leaps_where_single_steps_would(more: list[Arrival]) -> None:
    """The measured request ends before the window does, and others go on."""
    load = [Arrival(0.0, Lengths(40, 500, 500)), Arrival(1.0, Lengths(40, 20, 20)), *more]
    quick, exact = (
        simulate(case, 2, load, Window(0.5, 3.0))
        for case in (SETTINGS, dataclasses.replace(SETTINGS, exact=True))
    )
    assert quick == exact
    assert 2.9 < exact.ended_s < 4.0


@pytest.mark.parametrize("seed", range(40))
def test_a_reader_is_within_the_slo_when_the_pacer_says_so(seed: int) -> None:
    rng = random.Random(seed)
    step_s = rng.choice([0.03, 0.08, 0.1, 0.11, 0.15])
    live = Live(cast(Request, SimpleNamespace(num_preemptions=0)), Timeline(0.0, _LENGTHS), True)
    now, qoe = 1.0, RunningQoE(tau_s=TAU_S, origin_s=1.0)
    for _ in range(rng.randint(1, 30)):
        times_s = [now + step_s * index for index in range(rng.randint(1, 20))]
        live.produced(times_s)
        for token_s in times_s:
            qoe.deliver(token_s)
        asked_s = times_s[-1] + rng.choice([0.0, 0.01, 1.0, 5.0])
        if rng.random() < 0.5:
            assert live.within_slo(SLO_QOE, asked_s) == (qoe.at(asked_s) >= SLO_QOE)
        now = asked_s + step_s * rng.random()
