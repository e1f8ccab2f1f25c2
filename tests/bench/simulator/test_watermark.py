"""``fcfs+watermark``: vLLM keeps blocks free, and comparisons keep the best share."""

from __future__ import annotations

import re

import pytest

from bench.policies.command import by_policy
from bench.simulator.case import CaseSpec, run_case
from bench.simulator.load import Extent, SteadyLoad
from bench.simulator.results import PolicyRun
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.watermark import NAME, SHARES, expanded, share_of, with_share, without_share
from tests.bench.support.paper_runs import outcome

LOAD = SteadyLoad(rate=1.2, extent=Extent(5.0, 25.0, 30.0), token_s=0.03)


def served(policy: str) -> PolicyRun:
    instance = InstanceSettings(kv_blocks=1200)
    spec = CaseSpec(policy=policy, seed=1, extent=LOAD.extent, instances=1, instance=instance)
    return run_case(spec, LOAD.arrivals(1)).run


def preemptions(run: PolicyRun) -> int:
    return sum(request.preemptions for request in run.requests)


def test_more_free_blocks_mean_fewer_preemptions() -> None:
    plain, some, more = (served(policy) for policy in ("fcfs", with_share(0.02), with_share(0.1)))
    assert preemptions(plain) > preemptions(some) > preemptions(more)
    assert len(plain.requests) == len(more.requests) > 10


def test_names_and_shares() -> None:
    assert expanded(("rr", NAME)) == ("rr", *map(with_share, SHARES))
    assert [share_of(policy) for policy in ("fcfs", NAME, with_share(0.02))] == [None, None, 0.02]
    assert [without_share(policy) for policy in ("rr", with_share(0.3))] == ["rr", NAME]
    for text in ("0", "1", "x", ""):
        with pytest.raises(ValueError, match=re.escape(f"{NAME}:{text}: ")):
            share_of(f"{NAME}:{text}")


def test_the_best_share_has_the_shortest_mean_ttft_over_the_runs() -> None:
    ttfts_s = {"fcfs": 9.0, with_share(0.01): 7.0, with_share(0.02): 5.0, with_share(0.1): 6.0}
    runs = [
        outcome(policy, [ttft_s + worse, ttft_s], seed=seed).run
        for policy, ttft_s in ttfts_s.items()
        # In the second run alone, 0.02 would be best.
        for seed, worse in ((1, 6.0 if policy == with_share(0.02) else 0.0), (2, 0.0))
    ]
    found = by_policy(runs)
    assert list(found) == ["fcfs", NAME]
    assert found[NAME]["watermark"] == 0.1
    assert found[NAME]["completed"] == 4
