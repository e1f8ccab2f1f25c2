"""From what happened to requests to figures of policies."""

from __future__ import annotations

import pytest

from bench.policies.command import by_policy, policy_table
from bench.simulator.results import PolicyRun, policy_result
from bench.simulator.timeline import RequestMetrics, Timeline, metrics_of
from bench.workloads.lengths import Lengths


def timeline(answer_s: list[float], preempted_at: int | None = None) -> Timeline:
    """Arrives at 0, ends its 3 reasoning tokens at 1 s."""
    found = Timeline(0.0, Lengths(10, 3, len(answer_s)))
    for position in range(3):
        found.produced(position, (position + 1) / 3, 0)
    for index, at_s in enumerate(answer_s):
        preempted = preempted_at is not None and index >= preempted_at
        found.produced(3 + index, at_s, 2 if preempted else 0)
    found.finished_s = answer_s[-1]
    return found


def test_a_reader_who_is_fed_in_time_notices_nothing() -> None:
    request = metrics_of(timeline([1.1, 1.11, 1.12, 1.13], preempted_at=2))
    assert [request.ttft_s, request.ttfat_s] == pytest.approx([1.1, 0.1])
    assert request.tpot_s == pytest.approx(0.1)  # released at the pace
    assert request.e2e_s == pytest.approx(1.4)
    assert request.qoe == request.qoe_ttfat == pytest.approx(1.0)
    assert (request.underruns, request.underruns_by_preemption) == (0, 0)
    assert (request.preemptions, request.resumes) == (2, 1)


def test_an_underrun_counts_as_preemption_s_only_after_one() -> None:
    late = [1.1, 1.5, 1.51]
    assert metrics_of(timeline(late, preempted_at=1)).underruns_by_preemption == 1
    by_other = metrics_of(timeline(late))
    assert (by_other.underruns, by_other.underruns_by_preemption) == (1, 0)
    assert by_other.qoe < 1.0
    elsewhere = metrics_of(timeline(late, preempted_at=2))
    assert (elsewhere.underruns, elsewhere.underruns_by_preemption) == (1, 0)


def test_a_late_first_answer_costs_only_the_qoe_that_counts_from_the_boundary() -> None:
    request = metrics_of(timeline([3.0, 3.01, 3.02]))
    assert request.qoe == pytest.approx(1.0)
    assert request.qoe_ttfat < 0.95


def run(policy: str, seed: int, ttfts: list[float], violations: int = 0) -> PolicyRun:
    requests = [
        RequestMetrics(
            reasoning_tokens=600,
            ttft_s=ttft,
            ttfat_s=0.1,
            tpot_s=0.1,
            e2e_s=ttft + 1,
            qoe=0.5 if index < violations else 1.0,
            qoe_ttfat=1.0,
            underruns=0,
            underruns_by_preemption=0,
            preemptions=1,
            resumes=1,
        )
        for index, ttft in enumerate(ttfts)
    ]
    return PolicyRun(
        policy=policy,
        seed=seed,
        requests=requests,
        throughput_tok_s=100.0 * seed,
        generated_tokens=1,
        recomputed_tokens=2,
        reloaded_tokens=3,
        kv_peak_blocks=4,
    )


def test_figures_are_means_over_seeds_and_ratios_are_per_seed() -> None:
    oracle = [run("oracle", seed, [2.0 * seed] * 60) for seed in (1, 2)]
    slack = [run("slack", seed, [3.0 * seed] * 60, violations=6) for seed in (1, 2)]
    result = policy_result(slack, oracle)
    assert result["ttft_s"]["p99"] == pytest.approx(4.5)
    assert result["ttft_p99_to_oracle"] == {"512-1023": pytest.approx(1.5)}
    assert result["requests_by_bin"] == {"512-1023": 120}
    assert result["slo_violations"] == pytest.approx(0.1)
    assert result["throughput_tok_s"] == 150.0
    assert result["completed"] == 120
    low, high = result["intervals"]["ttft_s.p99"]
    assert low < 4.5 < high
    assert result["intervals"]["ttft_p99_to_oracle.512-1023"] == pytest.approx([1.5, 1.5])


def test_a_bin_of_few_requests_has_no_ratio() -> None:
    few = [run("slack", 1, [3.0] * 49)]
    assert policy_result(few, [run("oracle", 1, [2.0] * 49)])["ttft_p99_to_oracle"] == {}


def test_a_run_survives_json() -> None:
    before = run("slack", 1, [1.0, 2.0])
    assert PolicyRun.from_json(before.to_json()) == before


def test_the_table_has_a_row_for_each_policy() -> None:
    results = by_policy([run("oracle", 1, [1.0] * 60), run("fcfs", 1, [5.0] * 60)])
    assert list(results) == ["oracle", "fcfs"]
    table = policy_table("x", results)
    assert table.row_count == 2
    assert list(table.columns[3].cells) == ["1.00", "5.00"]
