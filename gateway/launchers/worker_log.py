"""Finds out why a worker ended from its log: its own reason, or the best line of a traceback.

A worker that can still log ends with the JSON event ``worker_failed`` and its ``reason``. Libraries
print tracebacks, some from other processes with a prefix on each line. A signal leaves no line.
"""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

_TAIL_BYTES = 256 * 1024  # of the log: more than any traceback
_REASON_CHARACTERS = 500
# vLLM's processes: "(EngineCore pid=1) ERROR 11-28 15:00:00 [core.py:1] ", or a part of that.
_PREFIX = re.compile(
    r"^(?:\([^()]*\bpid=\d+\)\s?)?"
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:.]+ (?:\[[^\]]*\] ?)?)?"
)
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Failure)\b.*"
)
_FATAL = re.compile(r"^(?:Fatal Python error: |terminate called |.*\bKilled\b|.*CUDA error: )")
_OF_A_TRACEBACK = re.compile(
    r"^(?:\s|Traceback \(most recent call last\)|During handling of the above|The above exception|"
    r"Exception ignored in|Stack \(most recent|Current thread|Thread 0x|Extension modules|\+|\|)"
)
# An exception that only points at an earlier one.
_POINTS_BACK = re.compile(r"root cause above|EngineDeadError|EngineCore encountered an issue", re.I)


@dataclass(frozen=True, slots=True)
class WorkerLog:
    """The output of one process: the end of a file that earlier processes wrote to as well."""

    path: Path
    begin: int  # size of the file when the process was started

    @classmethod
    def begun(cls, path: Path) -> WorkerLog:
        """Make the log of a process that is about to start."""
        return cls(path, path.stat().st_size if path.exists() else 0)

    def why_ended(self, returncode: int, when: str) -> str:
        """Describe how and why the process ended, in one line.

        :param returncode: of the process; negative: the signal that ended it.
        :param when: what it was doing, such as "while starting".
        """
        printed = _read(self.path, self.begin)
        # A signal is the reason; the last line before it is unrelated.
        reason = reason_in(printed, any_line=returncode >= 0)
        return f"{_how(returncode)} {when}{reason and f': {reason}'} (log: {self.path})"


def reason_in(text: str, *, any_line: bool = True) -> str:
    """Find the reason in the output of a worker, in one line.

    :param any_line: return the last line if no line names a cause; else return an empty text.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        if reason := _own_words(line):
            return _one_line(reason)
    plain = [_PREFIX.sub("", line, count=1) for line in lines if not line.startswith("{")]
    said = [line for line in plain if line and not _OF_A_TRACEBACK.match(line)]
    causes = [line for line in said if _EXCEPTION.match(line) or _FATAL.match(line)]
    first_hand = [line for line in causes if not _POINTS_BACK.search(line)]
    for candidates in (first_hand, causes, *((said, lines) if any_line else ())):
        if candidates:
            return _one_line(candidates[-1])
    return "it printed nothing" if any_line else ""


def _own_words(line: str) -> str | None:
    if '"worker_failed"' not in line:
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or event.get("event") != "worker_failed":
        return None
    return str(event.get("reason") or "") or None


def _how(returncode: int) -> str:
    if returncode >= 0:
        return f"exited with {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


def _read(path: Path, begin: int) -> str:
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(begin if begin <= end else 0, end - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_REASON_CHARACTERS]
