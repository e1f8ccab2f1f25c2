"""The report of ``pascal bench agents``: figures of sides, paired gains, verdicts."""

from __future__ import annotations

import dataclasses

import pytest
from rich.console import Console

from bench.agents.experiment import CALLING, PACED, SIDES, UNPACED, Call, Side, SideRun
from bench.agents.results import claims_of, results_of, table_of, verdict_of
from bench.simulator.timeline import RequestMetrics, TaskMetrics

BY_NAME = {side.name: side for side in SIDES}
CHAT = RequestMetrics(
    reasoning_tokens=100,
    ttft_s=4.0,
    ttfat_s=0.1,
    tpot_s=0.1,
    e2e_s=20.0,
    qoe=1.0,
    qoe_ttfat=1.0,
    underruns=0,
    underruns_by_preemption=0,
    preemptions=1,
    resumes=1,
)
TASK = TaskMetrics(rounds=3, answered_s=80.0, e2e_s=100.0, tools_s=9.0, calls_s=12.0, preemptions=2)


def run_of(side: Side, seed: int, e2e_s: float, *, ttft_s: float = 4.0, late: int = 0) -> SideRun:
    """Ten tasks around a mean, ten chats and ten final answers, ``late`` of them below the SLO."""
    spread = [dataclasses.replace(TASK, e2e_s=e2e_s + place - 4.5) for place in range(10)]
    readers = [
        dataclasses.replace(CHAT, ttft_s=ttft_s, qoe=0.9 if place < late else 1.0)
        for place in range(20)
    ]
    return SideRun(
        side=side,
        seed=seed,
        tasks=spread,
        chats=readers[:10],
        finals=readers[10:],
        calls=[Call(60, 3.0), Call(90, 5.0), Call(700, 40.0)],
        throughput_tok_s=1000.0,
        busy_share=1.0,
        kv_peak_share=1.0,
        ended_s=500.0,
    )


def test_gains_are_paired_and_their_parts_add_up() -> None:
    """A seed with long tasks counts no more than one with short ones."""
    paced = [run_of(BY_NAME[PACED], 1, 200.0), run_of(BY_NAME[PACED], 2, 400.0)]
    unpaced = [run_of(BY_NAME[UNPACED], 1, 180.0), run_of(BY_NAME[UNPACED], 2, 340.0)]
    calling = [run_of(BY_NAME[CALLING], 1, 160.0), run_of(BY_NAME[CALLING], 2, 300.0, late=1)]
    found = claims_of(paced, unpaced, calling[::-1])
    assert found["gain_by_pacing"] == pytest.approx((0.1 + 0.15) / 2)
    assert found["gain_by_scheduling"] == pytest.approx((0.1 + 0.1) / 2)
    assert found["gain"] == pytest.approx(found["gain_by_pacing"] + found["gain_by_scheduling"])
    assert found["by_seed"][0] == pytest.approx(
        {"seed": 1, "gain": 0.2, "gain_by_pacing": 0.1, "gain_by_scheduling": 0.1}
    )
    low, high = found["intervals"]["gain"]
    assert low < found["gain"] < high
    assert found["gain_holds"]
    assert found["slo_violations"] == pytest.approx(1 / 40)
    assert not found["slo_holds"]
    text = " ".join(verdict_of(found))
    assert "holds: as calls, agents take 22.5% less" in text
    assert "12.5 points are by pacing, 10.0 by scheduling" in text
    assert "does not hold: 2.50% of the readers" in text
    assert not claims_of(paced, unpaced, paced)["gain_holds"]


def test_the_best_watermark_is_that_with_the_shortest_ttft_of_chats() -> None:
    runs = [
        run_of(Side(f"fcfs+watermark:{share}", f"fcfs+watermark:{share}"), 1, e2e_s, ttft_s=ttft_s)
        for share, e2e_s, ttft_s in ((0.01, 300.0, 9.0), (0.05, 320.0, 7.0), (0.1, 310.0, 8.0))
    ]
    found = results_of(runs)
    assert set(found["sides"]) == {"fcfs+watermark"}
    assert found["sides"]["fcfs+watermark"]["watermark"] == 0.05
    assert found["shares"]["0.01"] == {"task_e2e_mean_s": 300.0, "chat_ttft_mean_s": 9.0}
    assert "claims" not in found


def test_the_table_has_every_side() -> None:
    runs = [run_of(side, seed, 100.0 + seed) for side in SIDES[2:] for seed in (1, 2, 3)]
    found = results_of(runs)
    result = found["sides"][CALLING]
    assert (result["tasks"], result["chats"], result["readers"]) == (30, 30, 60)
    assert (result["call_short_wait_s"], result["call_long_wait_s"]) == (4.0, 40.0)
    assert result["calls_held"] == pytest.approx(1 / 3)  # 40 s for 700 tokens
    assert result["call_short_token_s"] == pytest.approx(8.0 / 150)
    assert result["call_long_token_s"] == pytest.approx(40.0 / 700)
    assert result["task_e2e_mean_s"] == pytest.approx(102.0)
    assert result["task_e2e_p99_s"] == pytest.approx(107.21, abs=0.05)
    console = Console(width=160, record=True)
    console.print(table_of("title", found))
    text = console.export_text()
    for side in SIDES[2:]:
        assert side.name in text
    assert "102.0 ± 2.5" in text
