"""Results, claims and page of the reproduction, computed from runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.paper.cases import LOADS, POLICIES, WORKLOADS
from bench.paper.claims import claims
from bench.paper.outcome import PaperRun
from bench.paper.report import PAGE, prepare_docs, renew, tables
from bench.paper.results import result_of, results_of, violations
from bench.paper.sections import QUICK, Label
from bench.reporting.errors import BenchmarkError
from bench.simulator.results import ORACLE
from tests.bench.support.paper_runs import outcome

DOCS = Path(__file__).resolve().parents[3] / "docs/results"
QOES = [1.0, 0.95, 0.949, 0.96]
TTFTS_S = {
    ORACLE: 10.0,
    "fcfs": 40.0,
    "fcfs+watermark:0.01": 39.0,
    "fcfs+watermark:0.02": 35.0,
    "fcfs+watermark:0.05": 36.0,
    "fcfs+watermark:0.1": 37.0,
    "rr": 16.0,
    "pascal": 12.0,
    "slack": 10.2,
}


def evaluation() -> dict[Label, list[PaperRun]]:
    """20 requests per run; on Arena-Hard everything takes longer."""
    found: dict[Label, list[PaperRun]] = {}
    for workload in WORKLOADS:
        slower = 2.0 if workload == "arena-hard" else 1.0
        for load in LOADS:
            for policy in POLICIES:
                ttft_s = slower * (TTFTS_S[policy] if load == "high" else TTFTS_S[ORACLE])
                found[workload, load, policy] = [
                    outcome(
                        policy,
                        [ttft_s] * 20,
                        seed=seed,
                        violations=seed if policy == "pascal" and load == "high" else 0,
                        throughput=100.0 - (policy == "pascal") * slower,
                        transfers_s=[0.1 * slower] if policy == "pascal" else [],
                    )
                    for seed in (1, 2)
                ]
    return found


def everything() -> dict[str, Any]:
    by_workload: dict[Label, list[PaperRun]] = {
        ("arena-hard", "no_migration"): [outcome("pascal", [24.0] * 20, ttfat_s=9.0)],
        ("arena-hard", "non_adaptive"): [outcome("pascal", [34.8] * 20, violations=3)],
        ("arena-hard", "adaptive_with_headroom"): [
            outcome("pascal", [30.0] * 20, violations=1, transfers_s=[0.05])
        ],
        ("arena-hard", "slack_stays"): [outcome("slack", [20.0] * 20)],
    }
    swept: dict[Label, list[PaperRun]] = {
        (policy, value): [outcome(policy, [TTFTS_S[policy]] * 20)]
        for policy in POLICIES
        for value in ("1", "2")
    }
    characterised: dict[Label, list[PaperRun]] = {
        (policy,): [
            replace(
                outcome(policy, [TTFTS_S[policy]] * 20),
                run=replace(
                    outcome(policy, []).run,
                    requests=[
                        *outcome(policy, [TTFTS_S[policy]] * 20).run.requests,
                        *outcome(
                            policy, [30.0 + TTFTS_S[policy]] * 20, reasoning_tokens=3000
                        ).run.requests,
                    ],
                ),
                reasoning=outcome(policy, [TTFTS_S[policy]] * 40).reasoning,
                answering=outcome(policy, [1.0] * 40).answering,
                generation_tpot_s=[0.03] * 30 + [0.2] * 10,
            )
        ]
        for policy in POLICIES
    }
    sections = {
        "evaluation": evaluation(),
        "ablations": by_workload,
        "quantum": swept,
        "demotion": swept,
        "load": swept,
        "instances": swept,
        "characterisation": characterised,
    }
    return results_of(QUICK, sections)


def test_the_headlines_are_the_paper_s() -> None:
    headlines = everything()["headlines"]
    assert headlines["fcfs_reduction"] == pytest.approx({"alpacaeval": 0.7, "arena-hard": 0.7})
    assert headlines["rr_reduction"] == pytest.approx({"alpacaeval": 0.25, "arena-hard": 0.25})
    assert headlines["slo_violations_pascal"] == pytest.approx(1.5 / 20)  # mean of both seeds
    assert headlines["throughput_ratio"] == pytest.approx(0.98)
    assert headlines["no_migration_blocking_p99_s"] == pytest.approx(9.0)
    assert headlines["non_adaptive_slo_violations"] == pytest.approx(0.15)
    assert headlines["transfers_p99_s"] == pytest.approx({"alpacaeval": 0.1, "arena-hard": 0.2})
    assert headlines["worst_request_s"] == pytest.approx({"fcfs": -28.0, "rr": -4.0})
    assert headlines["non_adaptive_e2e"]["median"] == pytest.approx(44.8 / 34.0 - 1)


def test_a_bin_with_few_requests_per_run_makes_no_headline() -> None:
    few: dict[Label, list[PaperRun]] = {
        label: [outcome(label[2], [1.0] * 10, seed=seed) for seed in (1, 2)]
        for label in evaluation()
    }
    found = results_of(QUICK, {"evaluation": few, "ablations": ablations_of(few)})
    assert found["headlines"]["fcfs_reduction"] == {"alpacaeval": None, "arena-hard": None}
    shown = {claim.what: claim.here for claim in claims(found)}
    assert shown["reduction of tail TTFT against FCFS, Arena-Hard"] == "-"


def ablations_of(runs: Mapping[Label, list[PaperRun]]) -> dict[Label, list[PaperRun]]:
    some = runs["arena-hard", "high", "pascal"]
    return {("arena-hard", name): some for name in ("no_migration", "non_adaptive")}


def test_an_answer_of_one_token_is_not_too_slow() -> None:
    run = replace(outcome("slack", [1.0] * 4), generation_tpot_s=[None, 0.1, 0.11, 0.2])
    attained = result_of([run])["attainment"]
    assert attained["tpot"] == 0.5
    assert attained["qoe"] == 1.0


def test_a_qoe_exactly_at_the_slo_is_no_violation() -> None:
    run = outcome("slack", [1.0] * 4)
    requests = [replace(one, qoe=qoe) for one, qoe in zip(run.run.requests, QOES, strict=True)]
    found = violations([replace(run, run=replace(run.run, requests=requests))])
    assert found == 0.25


def test_results_are_by_workload_load_and_policy() -> None:
    results = everything()
    assert results["scope"] == "quick"
    slack = results["arena-hard"]["high"]["slack"]
    assert slack["slo_violations"] == 0
    assert slack["ttft_s"]["p99"] == pytest.approx(20.4)
    assert slack["seeds"] == [1, 2]
    json.dumps(results)


def test_the_best_watermark_alone_stands_in_every_section() -> None:
    results = everything()
    experiments = results["experiments"]
    for by_policy in (
        results["arena-hard"]["high"],
        experiments["load"],
        experiments["instances"],
        experiments["characterisation"],
    ):
        names = [name for name in by_policy if name.startswith("fcfs")]
        assert names == ["fcfs", "fcfs+watermark"]
    assert results["arena-hard"]["high"]["fcfs+watermark"]["watermark"] == 0.02
    assert "watermark" not in results["arena-hard"]["high"]["fcfs"]
    # At low load all are as good as the first.
    assert results["arena-hard"]["low"]["fcfs+watermark"]["watermark"] == 0.01
    (table,) = [table for table in tables(results) if str(table.title).startswith("Eight")]
    assert "fcfs+watermark 0.02" in list(table.columns[2].cells)


def test_ratios_to_the_oracle_need_fifty_requests() -> None:
    many: dict[Label, list[PaperRun]] = {
        ("w", "high", policy): [outcome(policy, [TTFTS_S[policy]] * 60)] for policy in POLICIES
    }
    found = results_of(QUICK, {"mixes": many})["w"]["high"]["slack"]
    assert found["ttft_p99_to_oracle"] == {"0-511": pytest.approx(1.02)}


def test_inflation_attainment_and_splits() -> None:
    results = everything()
    inflation = results["experiments"]["inflation"]
    assert inflation["fcfs"] == pytest.approx({"0-511": 4.0, "2560-3071": 70 / 40})
    attainment = results["experiments"]["characterisation"]["rr"]["attainment"]
    assert attainment == pytest.approx({"ttfat": 1.0, "tpot": 0.75, "qoe": 1.0, "all": 0.75})
    splits = results["experiments"]["characterisation"]["fcfs"]["splits"]
    assert splits["0-511"]["reasoning"] == pytest.approx(
        {"executed": 39.0, "blocked": 0.75, "preempted": 0.25}
    )
    late = result_of([outcome("rr", [1.0] * 4, ttfat_s=0.3, violations=1)])["attainment"]
    assert late == pytest.approx({"ttfat": 0.0, "tpot": 1.0, "qoe": 0.75, "all": 0.0})


def test_every_claim_has_a_result() -> None:
    found = claims(everything())
    assert all(claim.here != "-" and claim.why for claim in found)
    shown = {claim.what: claim.here for claim in found}
    assert shown["SLO violations, NonAdaptive"] == "15.00%"
    assert shown["time to move the KV of 2048 tokens"] == "43 ms"
    assert shown["SLO violations, PASCAL with headroom"] == "5.00%"
    assert shown["KV migration, p99, with headroom, the worse workload"] == "0.05 s"
    below = 1 - TTFTS_S["pascal"] / TTFTS_S["fcfs"]
    assert (
        shown["reduction of tail TTFT against FCFS, Arena-Hard, any load of the sweep"]
        == f"{below:.0%}"
    )
    assert shown["wait at the boundary without migration, p99"] == "9.00 s"
    nothing = claims(results_of(QUICK, {}))
    assert {claim.here for claim in nothing} == {"-", "43 ms"}


def test_the_page_is_renewed_and_its_prose_stays(tmp_path: Path) -> None:
    before = (DOCS / PAGE).read_text(encoding="utf-8")
    (tmp_path / PAGE).write_text(before, encoding="utf-8")
    prepare_docs(tmp_path)
    results = everything()
    renew(tmp_path, results)
    renew(tmp_path, results)  # replaces the first report
    after = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert prose(after) == prose(before)
    assert "**quick**" in after
    assert after.count("| SLO violations, NonAdaptive | 7.45% | 15.00% |") == 1
    images = re.findall(r"\((images/[^)]+)\)", after)
    assert len(images) == 9
    assert all((tmp_path / image).stat().st_size < 100_000 for image in images)


def prose(page: str) -> str:
    return re.sub(r"(<!-- begin (\w+) -->).*?(<!-- end \2 -->)", r"\1\3", page, flags=re.S)


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text("# nothing\n")
    with pytest.raises(BenchmarkError, match=r"reproduction\.md: <!-- begin scope -->"):
        prepare_docs(tmp_path)
    with pytest.raises(BenchmarkError, match="No such file"):
        prepare_docs(tmp_path / "nowhere")


def test_tables_say_that_it_was_quick() -> None:
    titles = [str(table.title) for table in tables(everything())]
    assert len(titles) == 4  # no bin has the 50 requests of a ratio to the oracle
    assert all("quick" in title for title in titles)
