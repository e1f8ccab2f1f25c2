"""What the reproduction simulates: loads that mean the same everywhere, sections without gaps."""

from __future__ import annotations

import pytest

from bench.paper.cases import LOADS, POLICIES, WORKLOADS, blocks, sustained
from bench.paper.plan import (
    FULL,
    QUICK,
    SECTIONS,
    Scope,
    capped,
    characterised,
    in_order,
    sections,
)
from bench.paper.run import spec_of
from bench.simulator.results import ORACLE
from workers.emulation.profile import load_profile
from workers.policy.settings import BASELINES


@pytest.mark.parametrize("scope", [FULL, QUICK], ids=lambda scope: scope.name)
def test_the_evaluation_is_whole_and_every_section_is_there(scope: Scope) -> None:
    plan = sections(scope)
    assert (*plan, "characterisation") == SECTIONS
    labels = {(w, load, p) for w in WORKLOADS for load in LOADS for p in POLICIES}
    assert set(plan["evaluation"]) == labels
    for section in plan.values():
        for cases in section.values():
            assert cases
            assert len({case.seed for case in cases}) == len(cases)
    assert all(len(cases) == len(scope.seeds) for cases in plan["evaluation"].values())


def test_baselines_get_the_same_requests_and_nobody_moves() -> None:
    plan = sections(FULL)
    for workload in WORKLOADS:
        mine = plan["evaluation"][workload, "high", "slack"]
        for policy in ("slack", *BASELINES):
            cases = plan["baselines"][workload, policy]
            assert [case.boundary for case in cases] == ["off"] * len(FULL.seeds)
            assert [case.policy for case in cases] == [policy] * len(FULL.seeds)
            for case, its in zip(cases, mine, strict=True):
                assert (case.rate, case.seed, case.kv_blocks) == (its.rate, its.seed, its.kv_blocks)
        for policy in (ORACLE, "fcfs", "rr"):
            same = plan["evaluation"][workload, "high", policy]
            assert plan["baselines"][workload, policy] == same


def test_fewer_seeds_are_the_first_of_them() -> None:
    some = FULL.with_seeds(3)
    assert (some.seeds, some.sweep_seeds, some.characterised_seeds) == ((1, 2, 3), (1,), (1, 2, 3))
    assert FULL.with_seeds(5) == FULL
    assert QUICK.with_seeds(1).sweep_seeds == QUICK.sweep_seeds
    assert QUICK.with_seeds(1).characterised_seeds == (1,)
    few = in_order(sections(FULL.with_seeds(2)))
    assert set(few) < set(in_order(sections(some)))


def test_policies_get_the_same_requests_and_the_oracle_more_memory() -> None:
    evaluation = sections(QUICK)["evaluation"]
    for workload in WORKLOADS:
        for load in LOADS:
            cases = {policy: evaluation[workload, load, policy][0] for policy in POLICIES}
            assert (
                len({(c.rate, c.seed, c.extent, c.token_s, c.longest) for c in cases.values()}) == 1
            )
            memory = {policy: spec_of(case).settings().kv_blocks for policy, case in cases.items()}
            oracle = memory.pop(ORACLE)
            assert oracle is not None
            assert set(memory.values()) == {blocks(QUICK.kv_share)}
            assert oracle > 8 * blocks(QUICK.kv_share)


def test_a_load_is_a_share_of_the_memory() -> None:
    """By Little's law, with the profile's own step times."""
    step = load_profile("h100-qwen32b").step
    found = sustained("arena-hard", 0.87, 8, blocks(1.0))
    held = 0.87 * 90_000
    assert found.rate == pytest.approx(6.8, abs=0.1)
    running = found.rate / 8 * found.token_s * (956 + 824)
    assert found.token_s == pytest.approx(step.seconds(round(running), round(held), 0, 0), rel=0.01)
    half = sustained("arena-hard", 0.87, 4, blocks(1.0))
    assert half.rate == pytest.approx(found.rate / 2, abs=0.01)
    assert half.token_s == found.token_s
    assert sustained("alpacaeval", 0.87, 8, blocks(1.0)).rate > 2 * found.rate


def test_the_capped_get_half_of_what_the_oracle_took_and_the_same_requests() -> None:
    (oracle,) = characterised(QUICK).values()
    rest = capped({case: 3000 + case.seed for case in oracle})
    assert {policy for (policy,) in rest} == set(POLICIES) - {ORACLE}
    for cases in rest.values():
        assert [case.seed for case in cases] == list(QUICK.characterised_seeds)
        for case, its in zip(cases, oracle, strict=True):
            assert case.kv_blocks == (3000 + case.seed) // 2
            assert (case.rate, case.extent, case.longest) == (its.rate, its.extent, its.longest)
    # However little the oracle took, the longest request fits.
    (least, *_), *_ = capped({oracle[0]: 10}).values()
    assert (least.kv_blocks - 1) * 16 >= least.longest


def test_cases_of_several_sections_are_run_once_and_first_seeds_first() -> None:
    plan = sections(FULL)
    cases = in_order(plan)
    assert len(cases) == len(set(cases))
    assert {case for section in plan.values() for of in section.values() for case in of} == set(
        cases
    )
    seeds = [case.seed for case in cases]
    assert seeds == sorted(seeds)
    assert (
        plan["quantum"]["pascal", "500"] == plan["evaluation"]["arena-hard", "high", "pascal"][:3]
    )
