"""What a program prints is what the runner reads, for any name and any reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.runner import SUPPORT, Case, read_line
from tests.support.programs import NODE, needs

PROGRAM = """
from compat_cases import Cases, Skip, equal, shell

cases = Cases()

@cases("holds")
def holds():
    equal(cases.url, "http://127.0.0.1:1")

@cases("holds, elsewhere not", "a/b#1", "c/d#2")
async def elsewhere():
    equal(1, 1)

@cases("does not hold", "a/b#1")
def fails():
    equal("x: [y]", "z\\nz")

@cases("exits")
def exits():
    raise SystemExit(0)

@cases("a command fails")
def command():
    shell("sh", "-c", "echo it broke >&2; exit 3")

@cases("is not possible")
def impossible():
    raise Skip("the client has no such thing")

cases.main()
"""


def run(tmp_path: Path, text: str, **variables: str) -> tuple[int, list[Case]]:
    program = tmp_path / "program.py"
    program.write_text(text)
    answer = subprocess.run(
        [sys.executable, program, "http://127.0.0.1:1"],
        env={"PYTHONPATH": str(SUPPORT), "PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [read_line(line) for line in answer.stdout.splitlines()]
    assert None not in lines, answer.stdout
    return answer.returncode, [line for line in lines if line is not None]


def test_each_case_is_one_line_and_one_failure_is_the_status(tmp_path: Path) -> None:
    status, cases = run(tmp_path, PROGRAM)
    assert status == 1
    assert cases == [
        Case("ok", "holds", "", ""),
        Case("ok", "holds, elsewhere not", "a/b#1, c/d#2", ""),
        Case("FAIL", "does not hold", "a/b#1", "AssertionError: 'x: [y]' instead of 'z\\nz'"),
        Case("FAIL", "exits", "", "SystemExit: 0"),
        Case("FAIL", "a command fails", "", "AssertionError: sh ended with 3: it broke"),
        Case("skip", "is not possible", "", "the client has no such thing"),
    ]


def test_cases_can_be_chosen_and_none_is_a_failure(tmp_path: Path) -> None:
    status, cases = run(tmp_path, PROGRAM, COMPAT_CASES="^holds")
    assert (status, [case.outcome for case in cases]) == (0, ["ok", "ok"])
    assert run(tmp_path, PROGRAM, COMPAT_CASES="nothing") == (1, [])


@needs(NODE)
def test_programs_of_node_print_the_same_lines(tmp_path: Path) -> None:
    shutil.copy(SUPPORT / "compat_cases.mjs", tmp_path)
    program = tmp_path / "program.mjs"
    program.write_text(
        "import { Skip, tryCase, URLS } from './compat_cases.mjs';\n"
        "await tryCase('holds', () => URLS[0].length, 'a/b#1');\n"
        "await tryCase('does not hold', () => { throw new Error('x: [y]\\nz') });\n"
        "await tryCase('is not possible', () => { throw new Skip('no such thing') });\n"
    )
    answer = subprocess.run(
        ["node", program, "http://127.0.0.1:1"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert [read_line(line) for line in answer.stdout.splitlines()] == [
        Case("ok", "holds", "a/b#1", ""),
        Case("FAIL", "does not hold", "", "Error: x: [y] z"),
        Case("skip", "is not possible", "", "no such thing"),
    ]


@pytest.mark.parametrize("name", ["a: b", "a [b]", "a\nb"])
def test_a_name_that_could_not_be_read_is_refused(tmp_path: Path, name: str) -> None:
    text = f"from compat_cases import Cases\nCases()({name!r})\n"
    assert run(tmp_path, text) == (1, [])


@pytest.mark.parametrize("line", ["", "okay", "ok", "FAILED x", "  ok x", "it is ok x"])
def test_other_lines_are_no_cases(line: str) -> None:
    assert read_line(line) is None
