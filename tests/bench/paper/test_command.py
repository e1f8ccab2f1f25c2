"""``pascal simulate paper``: flags, kept runs, and the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.paper import command as paper
from bench.paper.cases import LOADS, WORKLOADS, Case
from bench.paper.outcome import PaperRun
from bench.paper.run import run_case
from bench.paper.sections import QUICK
from bench.paper.store import Store
from bench.simulator.load import Extent
from pascal.main import main

TINY = Case(
    workload="alpacaeval",
    rate=4.0,
    policy="pascal",
    boundary="always",
    seed=1,
    instances=2,
    kv_blocks=1000,
    extent=Extent(0.0, 3.0, 3.0),
    token_s=None,
    longest=1200,
)


@pytest.fixture(scope="module")
def known() -> PaperRun:
    return run_case(TINY)


@pytest.fixture
def tiny(known: PaperRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Case]:
    """One run stands for all cases, as these tests do not look at results."""
    extent = Extent(0.0, 1.0, 1.0)
    scope = replace(
        QUICK, extent=extent, instances={1: extent}, characterised=extent, characterised_seeds=(1,)
    )
    monkeypatch.setattr(paper, "QUICK", scope)
    monkeypatch.chdir(tmp_path)
    asked: list[Case] = []

    def in_parallel(function: object, cases: list[tuple[int, Case, Path]], *_: object) -> object:
        for _index, case, folder in cases:
            asked.append(case)
            run = replace(known.run, policy=case.policy, seed=case.seed)
            Store(folder).save(case, replace(known, run=run))
            yield case

    monkeypatch.setattr(paper, "in_parallel", in_parallel)
    return asked


def test_a_case_is_simulated_the_same_twice(known: PaperRun) -> None:
    found = run_case(TINY)
    assert found == known
    assert found.migrations == len(found.transfers_s) > 0
    assert len(found.run.requests) == len(found.reasoning) == len(found.answering) > 0
    for request, reasoning, answering in zip(
        found.run.requests, found.reasoning, found.answering, strict=True
    ):
        assert reasoning.whole_s + request.ttfat_s == pytest.approx(request.ttft_s)
        assert answering.whole_s > request.ttfat_s


def test_everything_is_reported_and_finished_cases_are_not_run_again(
    tiny: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["simulate", "paper", "--quick", "--json", "all.json", "--state", "kept"]
    assert main(command) == 0
    results = json.loads((tmp_path / "all.json").read_text())
    for workload in WORKLOADS:
        for load in LOADS:
            policies = {"oracle", "fcfs", "fcfs+watermark", "rr", "pascal", "slack"}
            assert set(results[workload][load]) == policies
    assert set(results["headlines"]) >= {
        "fcfs_reduction",
        "rr_reduction",
        "slo_violations_pascal",
        "throughput_ratio",
        "no_migration_blocking_p99_s",
        "non_adaptive_slo_violations",
    }
    assert results["scope"] == "quick"
    assert len(tiny) == len(set(tiny)) > 50
    assert "quick: trends only" in capsys.readouterr().out
    (gone,) = list((tmp_path / "kept").iterdir())[:1]
    gone.unlink()
    tiny.clear()
    before = (tmp_path / "all.json").read_bytes()
    assert main(command) == 0
    assert len(tiny) == 1
    assert (tmp_path / "all.json").read_bytes() == before


def test_a_part_alone_runs_only_its_cases(tiny: list[Case], tmp_path: Path) -> None:
    assert main(["simulate", "paper", "--quick", "--only", "ablations", "--json", "a.json"]) == 0
    assert {(case.policy, case.boundary) for case in tiny} == {
        ("pascal", "off"),
        ("pascal", "always"),
        ("pascal", "adaptive"),
        ("slack", "off"),
    }
    assert set(json.loads((tmp_path / "a.json").read_text())) == {"scope", "seeds", "experiments"}


def test_ctrl_c_keeps_finished_runs_and_says_how_to_continue(
    tiny: list[Case],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_some: Callable[..., Iterator[Case]] = vars(paper)["in_parallel"]

    def interrupted(*args: object) -> Iterator[Case]:
        for count, case in enumerate(run_some(*args)):
            if count == 3:
                raise KeyboardInterrupt
            yield case

    monkeypatch.setattr(paper, "in_parallel", interrupted)
    assert main(["simulate", "paper", "--quick", "--state", "kept"]) == 130
    assert "interrupted; finished runs are in kept, the same command continues" in (
        capsys.readouterr().err
    )
    kept = len(list((tmp_path / "kept").glob("*.json")))
    assert kept >= 3
    monkeypatch.setattr(paper, "in_parallel", run_some)
    tiny.clear()
    assert main(["simulate", "paper", "--quick", "--state", "kept"]) == 0
    total = len(list((tmp_path / "kept").glob("*.json")))
    assert len(tiny) == total - kept


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--json", "no/where.json"], "--json no/where.json"),
        (["--state", "file"], "--state file"),
        (["--docs", "nowhere"], "--docs nowhere/reproduction.md"),
        (["--seeds", "0"], "--seeds: 1 to 1, not 0"),
        (["--seeds", "2"], "--seeds: 1 to 1, not 2"),
    ],
)
def test_bad_flags_are_named_before_anything_runs(
    tiny: list[Case],
    tmp_path: Path,
    flags: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    assert main(["simulate", "paper", "--quick", *flags]) == 2
    assert named in capsys.readouterr().err
    assert not tiny
