"""Tests that need a program: skipped without it by `make test`, failed by `make acceptance`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.runner import ROOT
from tests.support.programs import VARIABLE, Program, check, needs

MISSING = "no-such-program is missing: install the Debian package `no-such-package`"
TESTS = """
from tests.support.programs import needs
import pytest

@needs("no-such-program", package="no-such-package")
def test_without(broken):
    pass

@needs("sh", package="dash")
def test_with():
    pass

@pytest.fixture
def broken():
    raise AssertionError("a fixture ran before the program was looked for")
"""


def test_acceptance_fails_the_tests_of_a_missing_program_before_their_fixtures_run(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text(
        "from tests.conftest import pytest_runtest_setup\n"
        "def pytest_configure(config):\n"
        "    config.addinivalue_line('markers', 'needs_program: ...')\n"
    )
    chosen = ["-m", "needs_program(program='no-such-program')"]  # as a part of acceptance does
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", *chosen, "."],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            VARIABLE: "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1, answer.stdout
    assert "1 deselected, 1 error" in answer.stdout
    assert MISSING in answer.stdout


class Item:
    """As much of a test as `check` looks at."""

    def __init__(self, *marks: pytest.MarkDecorator) -> None:
        self.marks = [mark.mark for mark in marks]

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [mark for mark in self.marks if mark.name == name]


def outcome(*marks: pytest.MarkDecorator) -> str:
    """What `check` does with a test that has these marks."""
    try:
        check(Item(*marks))  # type: ignore[arg-type]
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        return f"{type(error).__name__}: {error}"
    return "runs"


def test_without_the_program_a_test_is_skipped_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    here, absent = needs("sh", package="dash"), needs("no-such-program", package="no-such-package")
    for value, word in (("", "Skipped"), ("0", "Skipped"), ("1", "Failed")):
        monkeypatch.setenv(VARIABLE, value)
        assert outcome(here) == outcome() == outcome(pytest.mark.slow) == "runs"
        assert outcome(absent) == outcome(here, absent) == f"{word}: {MISSING}"


def test_a_long_test_runs_in_acceptance_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert outcome(pytest.mark.long).startswith("Skipped: takes a minute: `make acceptance")
    monkeypatch.setenv(VARIABLE, "1")
    assert outcome(pytest.mark.long) == "runs"


def test_every_way_to_get_a_program_is_said() -> None:
    assert Program("promtool", package="prometheus").missing == (
        "promtool is missing: install the Debian package `prometheus`"
    )
    other = Program("node", install="install Node.js 20", find=lambda: None)
    assert other.missing == "node is missing: install Node.js 20"
    assert not other.is_there()
    assert Program("sh", package="dash").is_there()


@pytest.mark.parametrize("find", [lambda: None, lambda: ""])
def test_what_is_not_found_is_not_there(find: object) -> None:
    assert not Program("x", find=find).is_there()  # type: ignore[arg-type]
