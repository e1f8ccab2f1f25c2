"""Runs parts one after another: needs first, a log for each, a limit on its time, a line of result.

Knows nothing of the checks themselves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Literal, TypeAlias

from tests.acceptance.parts import Part
from tests.support.processes import end
from tests.support.programs import VARIABLE, Program

ROOT: Final = Path(__file__).resolve().parents[2]
LINE_LENGTH: Final = 160  # of a quotation from a log

Outcome: TypeAlias = Literal["ok", "FAIL", "skip"]


@dataclass(frozen=True, slots=True)
class Result:
    """How a part ended."""

    part: Part
    outcome: Outcome
    text: str
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.outcome:4}  {self.part.name:12} {self.seconds / 60:5.1f} min  {self.text}"


@dataclass(slots=True)
class Runner:
    """Settings of a run, and its results."""

    logs: Path
    install: bool = False  # Debian packages that are missing
    out: IO[str] = field(default_factory=lambda: sys.stdout)
    grace_s: float = 60.0  # from the end of its time to SIGKILL; a part stops servers meanwhile
    report_s: float = 60.0  # between two lines about a part that runs
    results: list[Result] = field(default_factory=list)

    def run(self, parts: Sequence[Part]) -> int:
        """Run them all. 0: none failed, 1: one failed, 130: interrupted."""
        self.logs.mkdir(exist_ok=True)
        for number, part in enumerate(parts):
            try:
                result = self._run_part(part)
            except KeyboardInterrupt:
                rest = ", ".join(other.name for other in parts[number + 1 :])
                self._say(f"interrupted in {part.name}; not run: {rest or 'none'}")
                return 130
            self.results.append(result)
            self._say(str(result))
        counts = {kind: self._count(kind) for kind in ("ok", "FAIL", "skip")}
        self._say(f"{counts['ok']} ok, {counts['FAIL']} failed, {counts['skip']} skipped")
        return 1 if counts["FAIL"] else 0

    def _count(self, outcome: str) -> int:
        return sum(result.outcome == outcome for result in self.results)

    def _say(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def _run_part(self, part: Part) -> Result:
        if part.absent:
            return Result(part, "skip", part.absent)
        for program in part.programs:
            if not program.is_there() and not self._installed(program):
                return Result(part, "FAIL", program.missing)
        log = self.logs / f"{part.name}.log"
        self._say(f"...   {part.name}: {part.shows}")
        self._say(f"...   {part.name}: about {part.minutes:g} min, log: {_short(log)}")
        began_s = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env={**os.environ, VARIABLE: "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches it through `_end`
            )
        try:
            in_time = self._wait(process, part, log)
        finally:
            end(process, self.grace_s)
        seconds = time.monotonic() - began_s
        last = last_line(log)
        if in_time and process.returncode == 0:
            return Result(part, "ok", last, seconds)
        why = last if in_time else f"not done after {part.limit_minutes:g} min: {last}"
        return Result(part, "FAIL", f"see {_short(log)}: {why}", seconds)

    def _wait(self, process: subprocess.Popen[bytes], part: Part, log: Path) -> bool:
        """Wait until it ends, or its time does; whether it ended itself."""
        began_s = time.monotonic()
        end_s = began_s + part.limit_minutes * 60
        while (now_s := time.monotonic()) < end_s:
            with suppress(subprocess.TimeoutExpired):
                process.wait(min(self.report_s, end_s - now_s))
                return True
            passed = (time.monotonic() - began_s) / 60
            self._say(
                f"...   {part.name}: {passed:.0f} of about {part.minutes:g} min: {last_line(log)}"
            )
        return False

    def _installed(self, program: Program) -> bool:
        """Install the Debian package, if that was asked for and is possible."""
        apt = shutil.which("apt-get")
        if not (self.install and program.package and apt and os.geteuid() == 0):
            return False
        log = self.logs / f"install-{program.package}.log"
        self._say(f"...   installing the Debian package {program.package}, log: {_short(log)}")
        with log.open("wb") as output:
            subprocess.run(
                [apt, "install", "--yes", "--no-install-recommends", program.package],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        return program.is_there()


def last_line(log: Path) -> str:
    """The last line with text in it, cut to a readable length."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    line = next((text.strip() for text in reversed(lines) if text.strip()), "(nothing was printed)")
    return line if len(line) <= LINE_LENGTH else line[: LINE_LENGTH - 3] + "..."


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
