"""The runner of `make acceptance`, with parts that last a moment."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance import __main__ as command_line
from tests.acceptance import parts as table
from tests.acceptance.parts import Part, all_parts
from tests.acceptance.runner import Runner
from tests.support.programs import Program

ABSENT = Program("no-such-program", package="no-such-package")


def part(name: str, code: str, limit_s: float = 60.0, *programs: Program, absent: str = "") -> Part:
    """A part that runs a piece of Python."""
    return Part(
        name,
        f"shows {name}",
        (sys.executable, "-c", code),
        minutes=1,
        limit_minutes=limit_s / 60,
        programs=programs,
        absent=absent,
    )


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "logs", out=io.StringIO(), grace_s=0.5)


def said(runner: Runner) -> list[str]:
    assert isinstance(runner.out, io.StringIO)
    return runner.out.getvalue().splitlines()


def results(runner: Runner) -> list[str]:
    return [line for line in said(runner) if not line.startswith("...")]


def test_one_line_for_each_part_and_a_failed_one_gives_status_1(runner: Runner) -> None:
    parts = [
        part("good", "print('seen: 3')"),
        part("bad", "print('first'); print('it broke'); raise SystemExit(2)"),
        part("last", "import os; print(os.environ['PASCAL_ACCEPTANCE'])"),
    ]
    assert runner.run(parts) == 1
    good, bad, last, summary = results(runner)
    assert good.split()[:2] == ["ok", "good"]
    assert good.endswith("seen: 3")
    assert bad.split()[:2] == ["FAIL", "bad"]
    assert bad.endswith("bad.log: it broke")
    assert last.split()[:2] == ["ok", "last"]
    assert last.endswith(" 1")
    assert summary == "2 ok, 1 failed, 0 skipped"
    assert (runner.logs / "bad.log").read_text() == "first\nit broke\n"


def test_nothing_failed_gives_status_0(runner: Runner) -> None:
    assert runner.run([part("good", ""), part("other", "", absent="no Python 3.99")]) == 0
    good, other, summary = results(runner)
    assert good.endswith("(nothing was printed)")
    assert other.split()[:2] == ["skip", "other"]
    assert other.endswith("no Python 3.99")
    assert summary == "1 ok, 0 failed, 1 skipped"


def test_a_missing_program_fails_and_names_its_package(runner: Runner) -> None:
    assert runner.run([part("proxy", "raise SystemExit('ran')", 60.0, ABSENT)]) == 1
    line = results(runner)[0]
    assert line.startswith("FAIL  proxy")
    assert line.endswith("no-such-program is missing: install the Debian package `no-such-package`")
    assert not (runner.logs / "proxy.log").exists()


@pytest.mark.parametrize("installs", [True, False])
def test_a_package_is_installed_if_that_was_asked_for(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installs: bool
) -> None:
    program = tmp_path / "no-such-program"
    apt = tmp_path / "apt-get"
    body = f'echo "$*"; echo > {program}; chmod +x {program}' if installs else "exit 100"
    apt.write_text(f"#!/bin/sh\n{body}\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    runner.install = True
    assert runner.run([part("proxy", "print('ran')", 60.0, ABSENT)]) == (0 if installs else 1)
    log = (runner.logs / "install-no-such-package.log").read_text()
    assert log == ("install --yes --no-install-recommends no-such-package\n" if installs else "")
    assert results(runner)[0].endswith("ran" if installs else "package `no-such-package`")


# A part that starts a process in a session of its own and ignores the interrupt.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
)
print(child.pid, flush=True)
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_part_that_takes_too_long_is_ended_with_all_that_it_started(runner: Runner) -> None:
    assert runner.run([part("slow", STUBBORN, 1.5), part("next", "")]) == 1
    slow, following, _ = results(runner)
    assert slow.startswith("FAIL  slow")
    assert "not done after 0.025 min" in slow
    assert following.startswith("ok")
    child = int((runner.logs / "slow.log").read_text())
    end_s = time.monotonic() + 10
    while is_running(child) and time.monotonic() < end_s:
        time.sleep(0.01)
    assert not is_running(child)


def test_a_part_may_clean_up_when_its_time_is_over(runner: Runner) -> None:
    runner.grace_s = 30.0
    code = """
import time
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("cleaned up")
"""
    assert runner.run([part("slow", code, 1.0)]) == 1
    assert results(runner)[0].endswith("cleaned up")


def test_long_work_shows_progress(runner: Runner) -> None:
    runner.report_s = 0.3
    code = "import time; print('round 7', flush=True); time.sleep(0.9)"
    assert runner.run([part("long", code)]) == 0
    assert "...   long: 0 of about 1 min: round 7" in said(runner)


def test_an_interrupt_ends_the_part_and_names_what_was_not_run(
    runner: Runner, until: Callable[[Callable[[], bool]], None]
) -> None:
    runner.grace_s = 30.0
    log = runner.logs / "first.log"

    def interrupt() -> None:
        until(lambda: log.exists() and "started" in log.read_text())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code = "import time; print('started', flush=True); time.sleep(600)"
    assert runner.run([part("first", code), part("second", ""), part("third", "")]) == 130
    thread.join()
    assert said(runner)[-1] == "interrupted in first; not run: second, third"
    assert "KeyboardInterrupt" in log.read_text()  # it was interrupted, not killed


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end_s
            time.sleep(0.01)

    return wait


def test_the_table_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        table, "find_interpreter", lambda version: "/python" if version[1] == 12 else None
    )
    parts = all_parts()
    names = [one.name for one in parts]
    assert len(set(names)) == len(names)
    assert {"python-3.11", "python-3.12", "python-3.13", "chaos", "soak"} <= set(names)
    for one in parts:
        assert one.minutes < one.limit_minutes
        assert one.command[:2] == (sys.executable, "-m")
    absent = {one.name: one.absent for one in parts if one.absent}
    assert absent == {
        "python-3.11": "no Python 3.11 was found",
        "python-3.13": "no Python 3.13 was found",
    }


def test_the_list_runs_nothing_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [part("one", "", 60.0, ABSENT), part("two", ""), part("three", "", absent="not here")]
    monkeypatch.setattr(command_line, "all_parts", lambda: parts)
    assert command_line.main(["--list", "--only", "one", "three"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["one            1 min  shows one", ABSENT.missing,
                     "three          1 min  shows three", "not here"]  # fmt: skip


def test_an_unknown_part_is_refused_with_the_names_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "all_parts", lambda: [part("one", "")])
    with pytest.raises(SystemExit):
        command_line.main(["--only", "tow"])
    assert "invalid choice: 'tow' (choose from" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def same_signals() -> Iterator[None]:
    """`main` sets a handler."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
