"""The sections of the reproduction and their cases, in full and in a reduced scope.

Pure. A section maps each label to its cases, one for each seed. Sections share cases; every case
runs once.

    evaluation        both workloads at three loads, six policies, eight instances
    ablations         pascal without migration, with it always, with headroom; slack without it
    baselines         other schedulers for streamed text, same requests, no migration
    mixes             the reasoning-heavy mix, and ServeGen's bursts at their peak
    quantum           rr and pascal with other quanta
    demotion          pascal with other thresholds
    load              policies by utilisation
    instances         more and fewer instances at the same load per instance
    characterisation  one instance with half of the memory that the oracle uses; arrivals end
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from bench.paper.cases import (
    LOADS,
    POLICIES,
    WORKLOADS,
    Case,
    blocks,
    cases_of,
    sustained,
)
from bench.simulator.defaults import INSTANCES, PROFILE
from bench.simulator.load import Extent
from bench.simulator.results import ORACLE
from bench.simulator.watermark import NAME as WATERMARK
from bench.simulator.watermark import expanded
from workers.emulation.profile import load_profile
from workers.policy.settings import BASELINES, PolicySettings

Label = tuple[str, ...]
Section = dict[Label, list[Case]]

SECTIONS = (
    "evaluation",
    "ablations",
    "baselines",
    "mixes",
    "quantum",
    "demotion",
    "load",
    "instances",
    "characterisation",
)
ABLATIONS = {
    "no_migration": ("pascal", "off"),
    "non_adaptive": ("pascal", "always"),
    "adaptive_with_headroom": ("pascal", "adaptive"),
    "slack_stays": ("slack", "off"),
}
MIXES = {"reasoning-heavy": "high", "servegen-r1": "peak"}
SWEPT = "arena-hard"  # workload of the sweeps
_CHARACTERISED = 0.9  # utilisation of all memory if the arrivals did not end
CAPPED = 0.5  # of the oracle's KV memory (paper, "Characterisation")
# Tokens. The capped memory must hold the longest request.
_LONGEST_CHARACTERISED = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much of every section is simulated."""

    name: str
    kv_share: float  # of the device's memory
    extent: Extent
    seeds: tuple[int, ...]
    least_requests: int  # in a bin of a headline
    ablated: tuple[str, ...]  # workloads
    sweep_seeds: tuple[int, ...]
    quanta: tuple[int, ...]
    thresholds: tuple[int, ...]
    utilisations: tuple[float, ...]
    instances: Mapping[int, Extent]
    characterised: Extent
    characterised_seeds: tuple[int, ...]

    def with_seeds(self, count: int) -> Scope:
        """The same scope with fewer seeds, three fifths of them for the sweeps.

        :param count: 1 to the number of ``seeds``.
        """
        return replace(
            self,
            seeds=self.seeds[:count],
            sweep_seeds=self.sweep_seeds[: max(1, count * 3 // 5)],
            characterised_seeds=self.characterised_seeds[:count],
        )


FULL = Scope(
    name="full",
    kv_share=1.0,
    extent=Extent(60.0, 180.0, 230.0),
    seeds=(1, 2, 3, 4, 5),
    least_requests=50,
    ablated=WORKLOADS,
    sweep_seeds=(1, 2, 3),
    quanta=(125, 250, 500, 1000, 2000),
    thresholds=(1000, 2500, 5000, 10_000),
    utilisations=(0.7, 0.8, 0.87, 0.92, 0.97, 1.02),
    # A similar number of requests for each: fewer instances run for longer.
    instances={
        1: Extent(60.0, 540.0, 590.0),
        2: Extent(60.0, 300.0, 350.0),
        4: Extent(60.0, 180.0, 230.0),
        8: Extent(60.0, 180.0, 230.0),
        16: Extent(60.0, 120.0, 170.0),
        32: Extent(60.0, 90.0, 120.0),
        64: Extent(60.0, 75.0, 95.0),
        128: Extent(40.0, 50.0, 65.0),
        256: Extent(30.0, 35.0, 45.0),
    },
    characterised=Extent(0.0, 150.0, 150.0),
    characterised_seeds=(1, 2, 3, 4, 5),
)
# Half of the memory halves the number of running requests, and so the work.
QUICK = Scope(
    name="quick",
    kv_share=0.5,
    extent=Extent(5.0, 20.0, 25.0),
    seeds=(1,),
    least_requests=15,
    ablated=(SWEPT,),
    sweep_seeds=(1,),
    quanta=(250, 500),
    thresholds=(2500, 5000),
    utilisations=(0.87, 1.0),
    instances={1: Extent(5.0, 65.0, 70.0), 4: Extent(5.0, 20.0, 25.0), 16: Extent(5.0, 8.0, 10.0)},
    characterised=Extent(0.0, 90.0, 90.0),
    characterised_seeds=(1, 2),
)


def sections(scope: Scope) -> dict[str, Section]:
    """All sections except the characterisation: its oracle's runs decide the memory (`capped`)."""
    return {
        "evaluation": _section(_evaluation(scope)),
        "ablations": _section(_ablations(scope)),
        "baselines": _section(_baselines(scope)),
        "mixes": _section(_mixes(scope)),
        "quantum": _section(_quantum(scope)),
        "demotion": _section(_demotion(scope)),
        "load": _section(_load(scope)),
        "instances": _section(_instances(scope)),
    }


def characterised(scope: Scope) -> Section:
    """The oracle's cases of the characterisation, on one instance that starts empty."""
    load = sustained(SWEPT, _CHARACTERISED, 1, blocks(1.0))
    cases = []
    for seed in scope.characterised_seeds:
        by_policy = cases_of(SWEPT, load, scope.characterised, seed, instances=1)
        cases.append(replace(by_policy[ORACLE], token_s=None, longest=_LONGEST_CHARACTERISED))
    return {(ORACLE,): cases}


def capped(oracle: Mapping[Case, int]) -> Section:
    """The other policies' cases of the characterisation.

    :param oracle: each case of the oracle with the largest number of KV blocks that it used.
    """
    size = load_profile(PROFILE).kv.block_size
    least = _LONGEST_CHARACTERISED // size + 2  # with vLLM's null block
    pairs = [
        (
            (policy,),
            # One instance: requests cannot move.
            replace(case, policy=policy, boundary="off", kv_blocks=max(least, int(peak * CAPPED))),
        )
        for case, peak in oracle.items()
        for policy in POLICIES
        if policy != ORACLE
    ]
    return _section(iter(pairs))


def in_order(wanted: Mapping[str, Section]) -> list[Case]:
    """Every case once, in the order of seeds: a part of the runs then covers all sections."""
    cases = {
        case: None
        for section in wanted.values()
        for of_label in section.values()
        for case in of_label
    }
    return sorted(cases, key=lambda case: case.seed)


def _section(pairs: Iterator[tuple[Label, Case]]) -> Section:
    section: Section = {}
    for label, case in pairs:
        section.setdefault(label, []).append(case)
    return section


def _at(scope: Scope, workload: str, utilisation: float, seed: int) -> dict[str, Case]:
    load = sustained(workload, utilisation, INSTANCES, blocks(scope.kv_share))
    return cases_of(workload, load, scope.extent, seed, kv_share=scope.kv_share)


def _evaluation(scope: Scope) -> Iterator[tuple[Label, Case]]:
    for seed in scope.seeds:
        for workload in WORKLOADS:
            for load, utilisation in LOADS.items():
                for policy, case in _at(scope, workload, utilisation, seed).items():
                    yield (workload, load, policy), case


def _ablations(scope: Scope) -> Iterator[tuple[Label, Case]]:
    for seed in scope.seeds:
        for workload in scope.ablated:
            high = _at(scope, workload, LOADS["high"], seed)
            for name, (policy, boundary) in ABLATIONS.items():
                yield (workload, name), replace(high[policy], boundary=boundary)


def _baselines(scope: Scope) -> Iterator[tuple[Label, Case]]:
    for seed in scope.seeds:
        for workload in scope.ablated:
            high = _at(scope, workload, LOADS["high"], seed)
            for policy in (ORACLE, "fcfs", *expanded((WATERMARK,)), "rr"):
                yield (workload, policy), high[policy]
            # The baselines move no request, so `slack` must not either.
            for policy in ("slack", *BASELINES):
                yield (workload, policy), replace(high["slack"], policy=policy, boundary="off")


def _mixes(scope: Scope) -> Iterator[tuple[Label, Case]]:
    for seed in scope.seeds:
        for workload, load in MIXES.items():
            for policy, case in _at(scope, workload, LOADS["high"], seed).items():
                yield (workload, load, policy), case


def _quantum(scope: Scope) -> Iterator[tuple[Label, Case]]:
    return _numbers(scope, "quantum_tokens", scope.quanta, ("rr", "pascal"))


def _demotion(scope: Scope) -> Iterator[tuple[Label, Case]]:
    return _numbers(scope, "demotion_tokens", scope.thresholds, ("pascal",))


def _numbers(
    scope: Scope, name: str, values: tuple[int, ...], policies: tuple[str, ...]
) -> Iterator[tuple[Label, Case]]:
    default = getattr(PolicySettings(), name)
    for seed in scope.sweep_seeds:
        high = _at(scope, SWEPT, LOADS["high"], seed)
        for policy in policies:
            for value in values:
                numbers = () if value == default else ((name, float(value)),)
                yield (policy, str(value)), replace(high[policy], numbers=numbers)


def _load(scope: Scope) -> Iterator[tuple[Label, Case]]:
    for seed in scope.sweep_seeds:
        for utilisation in scope.utilisations:
            for policy, case in _at(scope, SWEPT, utilisation, seed).items():
                yield (policy, f"{utilisation:g}"), case


def _instances(scope: Scope) -> Iterator[tuple[Label, Case]]:
    for seed in scope.sweep_seeds:
        for count, extent in scope.instances.items():
            load = sustained(SWEPT, LOADS["high"], count, blocks(scope.kv_share))
            cases = cases_of(SWEPT, load, extent, seed, kv_share=scope.kv_share, instances=count)
            for policy in ("fcfs", *expanded((WATERMARK,)), "pascal", "slack"):
                yield (policy, str(count)), cases[policy]
