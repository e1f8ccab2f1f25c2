from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.reporting.console import INTERRUPTED, CaseProgress, interrupted


def test_without_a_terminal_each_finished_case_is_a_line() -> None:
    out = io.StringIO()
    with CaseProgress(Console(file=out, width=100), "virtual time") as progress:
        progress.show(0.5)
        progress.finished("slack, seed 1", 1, 2)
        progress.finished("slack, seed 2", 2, 2)
    assert out.getvalue().splitlines()[:2] == [
        "virtual time: 1 of 2 (slack, seed 1)",
        "virtual time: 2 of 2 (slack, seed 2)",
    ]


def test_on_a_terminal_there_is_only_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    with CaseProgress(console, "virtual time") as progress:
        progress.finished("slack, seed 1", 1, 2)
    assert "1/2" in out.getvalue()
    assert "slack" not in out.getvalue()


def test_ctrl_c_has_a_line_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert interrupted("half of it is kept") == INTERRUPTED
    assert capsys.readouterr().err == "pascal: interrupted; half of it is kept\n"
