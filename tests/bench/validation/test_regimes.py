"""Traces that compare engine and simulator, and the arithmetic of the comparison."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest

from bench.policies.engine_clock import Share
from bench.validation.regimes import (
    CALIBRATION,
    JUDGED,
    MOST,
    Comparison,
    Regime,
    ShortLengths,
    burst,
    compare,
    mape,
    trace_of,
)
from bench.validation.replay_engine import Served, Trace
from workers.emulation.device import StepTimes
from workers.policy.settings import PolicySettings

TIMES = StepTimes(
    base_s=0.008,
    per_request_s=2e-4,
    per_kv_token_s=1e-12,
    prefill_base_s=1e-3,
    prefill_per_token_s=1e-6,
    prefill_per_token2_s=1e-12,
)
QUIET = Share(1.0, 1.0)
REGIMES = (*JUDGED, *(regime for regimes in CALIBRATION for regime in regimes))


def trace(regime: Regime, seed: int | str = 1, requests: int = 30, kv_blocks: int = 2000) -> Trace:
    return trace_of(
        regime,
        TIMES,
        requests=requests,
        policy="slack",
        block_size=32,
        kv_blocks=kv_blocks,
        seed=seed,
    )


def test_a_trace_is_the_same_for_a_seed_and_no_other_s() -> None:
    assert trace(JUDGED[0]) == trace(JUDGED[0])
    every = [trace(regime, seed) for regime in REGIMES for seed in (1, 2, "round 0 of 1")]
    for one, other in itertools.combinations(every, 2):
        assert one.requests[:3] != other.requests[:3]
        assert {r[1:] for r in one.requests[:5]} != {r[1:] for r in other.requests[:5]}


def test_as_many_run_as_the_regime_says() -> None:
    """Little's law, with the step at that batch."""
    found = trace(Regime("any", 10, None), requests=4000)
    rate = len(found.requests) / found.requests[-1][0]
    output = statistics.fmean(reasoning + answer for _, _, reasoning, answer in found.requests)
    assert rate * output * TIMES.seconds(10, 0, 0, 0) == pytest.approx(10, rel=0.05)


def test_calibration_is_on_both_sides_of_what_is_judged() -> None:
    for beside, judged in zip(zip(*CALIBRATION, strict=True), JUDGED, strict=True):
        running = [regime.running for regime in beside]
        assert min(running) < judged.running < max(running)
        assert all((regime.memory is None) == (judged.memory is None) for regime in beside)


@pytest.mark.parametrize("regime", REGIMES)
def test_every_request_fits_into_memory_and_pressure_is_pressure(regime: Regime) -> None:
    found = trace(regime)
    longest = MOST.prompt + ShortLengths.longest_output
    assert all(prompt + r + a <= longest for _, prompt, r, a in found.requests)
    assert found.kv_blocks * 32 > longest
    assert (found.kv_blocks == 2000) == (regime.memory is None)
    held = regime.running * 200 / 32  # roughly
    assert regime.memory is None or found.kv_blocks < held
    assert trace(Regime("tight", 2, 0.1)).kv_blocks * 32 > longest
    PolicySettings.of({"policy": found.policy} | found.numbers)  # or ValueError


def test_a_burst_comes_at_once() -> None:
    found = burst("fcfs", 500, 1)
    assert {at_s for at_s, *_ in found.requests} == {0.0}
    assert found.kv_blocks == 500


def served(arrival_s: float, first_s: float, finished_s: float, preemptions: int = 0) -> Served:
    return Served(
        arrival_s=arrival_s,
        first_s=first_s,
        finished_s=finished_s,
        answer=11,
        preemptions=preemptions,
    )


def test_a_comparison_is_of_means_over_replays() -> None:
    replays = [
        [served(1.0, 2.0, 4.0, 1), served(0.0, 2.0, 3.0)],
        [served(1.0, 4.0, 6.0), served(0.0, 4.0, 5.0)],
    ]
    # Real: e2e 4 and 4, TTFT 2 and 3, TPOT 0.2 and 0.1.
    simulated = [served(1.0, 3.0, 4.0, 2), served(0.0, 3.0, 5.0)]
    longer = [simulated[0], served(0.0, 3.0, 6.0)]
    found = compare("trace", replays, [simulated], longer, QUIET)
    assert found.e2e_errors == pytest.approx((-0.25, 0.25))
    assert found.e2e == pytest.approx(0.25)
    assert found.e2e_mean == pytest.approx(0.0)
    assert found.ttft_mean == pytest.approx(0.0)
    assert found.tpot == pytest.approx(0.0)
    assert found.ttft_each == 0.0
    assert found.noise == pytest.approx((1 + 1 + 1 + 1) / 4 / 4)
    assert found.chance == pytest.approx((abs(3 / 5 - 1) + abs(5 / 3 - 1)) / 2 / 2**0.5)
    assert found.preemptions == pytest.approx((0.5, 2))
    assert found.e2e_steady == pytest.approx((0.25 + 0.5) / 2)
    both = compare("trace", replays, [simulated, longer], simulated, QUIET)
    assert both.e2e_errors == pytest.approx((-0.25, 5.5 / 4 - 1))
    assert both.e2e_mean == pytest.approx(8.5 / 8 - 1)
    assert both.preemptions == pytest.approx((0.5, 2))


def test_more_replays_differ_less_by_chance() -> None:
    rng = random.Random(1)

    def by_chance(count: int) -> float | None:
        ends_s = [[rng.gauss(10.0, 1.0) for _ in range(40)] for _ in range(count)]
        replays = [[served(0.0, 1.0, end_s) for end_s in each] for each in ends_s]
        return compare("trace", replays, [replays[0]], replays[0], QUIET).chance

    assert by_chance(1) is None
    # Means of n differ by a normal deviate of sqrt(2 / n), the mean size of which is 0.8 of that.
    for count in (2, 3, 8):
        assert by_chance(count) == pytest.approx(0.1 * 0.8 * (2 / count) ** 0.5, rel=0.2)


def test_a_single_token_has_no_pace() -> None:
    one = Served(arrival_s=0.0, first_s=1.0, finished_s=1.0, answer=1, preemptions=0)
    assert one.tpot_s is None
    other = served(0.0, 1.0, 3.0)
    assert compare("trace", [[one, other]], [[one, other]], [one, other], QUIET).tpot == 0.0


def test_the_figures_are_over_requests_and_over_traces() -> None:
    def comparison(errors: tuple[float, ...], e2e_mean: float, ttft_mean: float) -> Comparison:
        return Comparison(
            name="trace",
            requests=len(errors),
            e2e_errors=errors,
            e2e_mean=e2e_mean,
            ttft_mean=ttft_mean,
            tpot=-e2e_mean / 2,
            ttft_each=0.0,
            e2e_steady=0.0,
            noise=0.0,
            chance=None,
            preemptions=(0.0, 0.0),
            share=QUIET,
        )

    found = mape([comparison((0.1, -0.1, 0.4), 0.2, -0.1), comparison((0.2,), -0.4, 0.3)])
    assert found == pytest.approx({"e2e": 0.2, "e2e_mean": 0.3, "ttft_mean": 0.2, "tpot": 0.15})
    assert comparison((0.1, -0.3), -0.2, 0.4).to_json()["mape"] == pytest.approx(
        {"e2e": 0.2, "e2e_mean": 0.2, "ttft_mean": 0.4, "tpot": 0.1}
    )
