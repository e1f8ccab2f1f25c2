"""Ends a process together with everything that it started."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path


def end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Interrupt a process that still runs, as Ctrl-C does; then kill what is left."""
    if process.poll() is not None:
        return
    started = _descendants(process.pid)  # some have process groups of their own
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: at once
        process.wait(grace_s)
    started |= _descendants(process.pid)
    for pid, began in started | {(process.pid, _start_time(process.pid))}:
        if began and _start_time(pid) == began:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _descendants(pid: int) -> set[tuple[int, str]]:
    """Processes that it started, and that those started: the pid and when each began."""
    found: set[tuple[int, str]] = set()
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it ended meanwhile
            for child in map(int, listing.read_text(encoding="ascii").split()):
                found |= {(child, _start_time(child)), *_descendants(child)}
    return found


def _start_time(pid: int) -> str:
    """When the process began, in clock ticks since the machine did; empty: there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
