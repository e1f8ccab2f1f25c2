"""Loads of simulations: their population at time 0, their end, and their longest request."""

from __future__ import annotations

from dataclasses import replace

from bench.simulator.load import Extent, SteadyLoad

LOAD = SteadyLoad(workload="alpacaeval", rate=4.0, extent=Extent(0.0, 3.0, 60.0), longest=10**6)


def test_longer_requests_are_left_out() -> None:
    everything = [arrival.lengths for arrival in LOAD.arrivals(1)]
    kept = [arrival.lengths for arrival in replace(LOAD, longest=1200).arrivals(1)]
    assert 0 < len(kept) < len(everything)
    assert max(a.prompt + a.reasoning + a.answer for a in kept) <= 1200


def test_a_steady_state_begins_with_running_requests_and_ends() -> None:
    times_s = [arrival.at_s for arrival in replace(LOAD, token_s=0.03).arrivals(1)]
    assert times_s.count(0.0) > 10
    assert times_s == sorted(times_s)
    assert 50.0 < times_s[-1] < 60.0
    assert 0.0 not in [arrival.at_s for arrival in LOAD.arrivals(1)]
