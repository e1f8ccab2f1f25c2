"""``pascal bench agents``: its parts, its files and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.agents import experiment
from bench.agents.experiment import Case, SideRun
from pascal.main import main
from tests.bench.agents.test_results import run_of


def _scripted(cases: list[Case], progress: Any, done: Any) -> list[SideRun]:
    """As `bench.agents.experiment.run_cases`, without a simulation."""
    for count, case in enumerate(cases, 1):
        done(case, count, len(cases))
    return [run_of(side, seed, 100.0 + seed) for side, seed, _ in cases]


def test_parts_keep_each_other_and_share_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[Case] = []

    def run_cases(cases: list[Case], progress: Any, done: Any) -> list[SideRun]:
        ran.extend(cases)
        return _scripted(cases, progress, done)

    monkeypatch.setattr(experiment, "run_cases", run_cases)
    file = tmp_path / "agents.json"
    assert main(["bench", "agents", "--json", str(file), "--plots", str(tmp_path)]) == 0
    assert len(ran) == len(set(ran))
    assert (tmp_path / "agents.png").stat().st_size > 10_000
    both = json.loads(file.read_text())
    assert set(both) == {"sides", "ways", "urgency"}
    assert both["sides"]["config"]["seeds"] == list(experiment.FULL.seeds)
    by_seed = both["ways"]["claims"]["by_seed"]
    assert [of["seed"] for of in by_seed] == list(range(1, experiment.FULL.way_seeds + 1))
    output = capsys.readouterr().out
    assert "slack, calls" in output
    assert "of it 0.0 points are by pacing" in output
    ran.clear()
    command = ["bench", "agents", "--quick", "--only", "urgency", "--json", str(file)]
    assert main(command) == 0
    again = json.loads(file.read_text())
    assert again["sides"] == both["sides"]
    assert again["urgency"]["config"]["seeds"] == list(experiment.QUICK.seeds)
    assert {mix.calls for _, _, mix in ran} == {"short", "agent", "files"}


def test_quick_has_sides_and_ways_from_the_same_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    def run_cases(cases: list[Case], progress: Any, done: Any) -> list[SideRun]:
        ran.append(len(cases))
        return _scripted(cases, progress, done)

    monkeypatch.setattr(experiment, "run_cases", run_cases)
    file = tmp_path / "agents.json"
    assert main(["bench", "agents", "--quick", "--json", str(file)]) == 0
    assert set(json.loads(file.read_text())) == {"sides", "ways"}
    assert ran == [len(experiment.cases_of(experiment.QUICK))]


def test_the_ways_can_have_more_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "run_cases", _scripted)
    file = tmp_path / "agents.json"
    command = ["bench", "agents", "--only", "ways", "--seeds", "20", "--json", str(file)]
    assert main(command) == 0
    ways = json.loads(file.read_text())["ways"]
    assert ways["claims"]["seeds"] == list(range(1, 21))
    assert set(ways["sides"]) == set(experiment.WAYS)


def test_ctrl_c_keeps_finished_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(cases: list[Case], progress: Any, done: Any) -> list[SideRun]:
        if any(mix.calls == "files" for _, _, mix in cases):
            raise KeyboardInterrupt
        return _scripted(cases, progress, done)

    monkeypatch.setattr(experiment, "run_cases", interrupted)
    file = tmp_path / "agents.json"
    assert main(["bench", "agents", "--json", str(file)]) == 130
    assert capsys.readouterr().err == (
        "pascal: interrupted; the results of finished parts are kept\n"
    )
    assert set(json.loads(file.read_text())) == {"sides", "ways"}
    assert main(["bench", "agents", "--only", "urgency"]) == 130
    assert capsys.readouterr().err == "pascal: interrupted; nothing was written\n"
