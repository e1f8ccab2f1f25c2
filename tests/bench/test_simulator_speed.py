"""The benchmark of the simulator: its cases and its errors for wrong flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import simulator_speed
from bench.simulator_speed import CASES, measure


@pytest.mark.parametrize("case", CASES)
def test_every_case_runs_both_ways(case: simulator_speed.Case) -> None:
    runs: list[None] = []
    speed = measure(case, 0.2, 1, lambda: runs.append(None))
    assert len(runs) == 2
    assert speed.factors == [speed.exact_cpu_s[0] / speed.quick_cpu_s[0]]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--repeats", "0"], "--repeats: '0' is not a whole number above 0"),
        (["--repeats", "many"], "--repeats: 'many' is not a whole number above 0"),
        (["--json", "/nowhere/figures.json"], "--json /nowhere/figures.json: No such file"),
        (["--json", "."], "--json .: Is a directory"),
    ],
)
def test_wrong_flags_are_refused_at_once(
    flags: list[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        simulator_speed.main(flags)
    assert refused.value.code == 2
    assert complaint in capsys.readouterr().err
