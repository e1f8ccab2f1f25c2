"""The oracle, the settings of the instances of a case, and the shares that come out of it."""

from __future__ import annotations

from bench.simulator.case import CaseSpec, run_case
from bench.simulator.defaults import ORACLE_KV, RULES
from bench.simulator.load import Extent
from bench.simulator.results import ORACLE
from bench.simulator.scheduler_factory import InstanceSettings
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths

EXTENT = Extent(0.0, 1.0, 1.0)
SMALL = InstanceSettings(kv_blocks=500, policy_numbers={"quantum_tokens": 250})


def test_the_oracle_is_fcfs_with_memory_for_every_request() -> None:
    spec = CaseSpec(policy=ORACLE, seed=1, extent=EXTENT, instance=SMALL)
    settings = spec.settings()
    assert settings.policy == "fcfs"
    assert settings.kv_blocks == ORACLE_KV * SMALL.profile.kv.blocks
    assert settings.policy_numbers == SMALL.policy_numbers


def test_only_rules_that_move_requests_need_migration() -> None:
    for boundary, rules in RULES.items():
        spec = CaseSpec(policy="slack", seed=1, extent=EXTENT, rules=rules, instance=SMALL)
        settings = spec.settings()
        assert (settings.policy, settings.kv_blocks) == ("slack", 500)
        assert settings.migration == (boundary != "off")


def test_shares_are_of_all_instances_and_of_the_blocks_that_requests_can_have() -> None:
    arrivals = [Arrival(0.0, Lengths(100, 400, 100)) for _ in range(40)]
    spec = CaseSpec(
        policy="fcfs", seed=1, extent=Extent(0.0, 30.0, 30.0), instances=2, instance=SMALL
    )
    outcome = run_case(spec, arrivals)
    assert 0.99 < outcome.busy_share <= 1.0
    assert outcome.kv_peak_share == outcome.run.kv_peak_blocks / (500 - 1) > 0.99
