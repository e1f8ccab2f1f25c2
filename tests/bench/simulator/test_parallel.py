"""Cases in child processes: their results, and that none outlives its parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from bench.reporting.errors import BenchmarkError
from bench.simulator.parallel import in_parallel

ROOT = Path(__file__).parents[3]
# Starts a case that never ends, and prints the id of its process.
_PARENT = """
from bench.simulator.parallel import in_parallel
from tests.bench.simulator.test_parallel import stay
if __name__ == "__main__":
    list(in_parallel(stay, [()]))
"""


def square(number: int) -> int:
    return number * number


def die() -> None:
    os._exit(3)


def stay() -> None:
    print(os.getpid(), flush=True)
    time.sleep(600)


def test_every_case_has_a_result() -> None:
    assert sorted(in_parallel(square, [(2,), (3,), (4,)])) == [4, 9, 16]


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="died"):
        list(in_parallel(die, [()]))


def test_a_process_that_is_starting_does_not_see_ctrl_c() -> None:
    """It would print a traceback; its parent, which sees the same Ctrl-C, ends it."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        # Background jobs of a shell ignore SIGINT, and child processes inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert parent.stdout is not None
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    starting = 0
    while not starting:
        assert parent.poll() is None
        starting = next(filter(_runs_python, map(int, children.read_text().split())), 0)
    os.kill(starting, signal.SIGINT)
    assert parent.stdout.readline().strip() == str(starting)  # it has begun its case
    parent.kill()
    parent.wait()
    parent.stdout.close()


def _runs_python(process: int) -> bool:
    """Whether a process for cases has come so far that it handles, ignores or blocks Ctrl-C."""
    try:
        if b"spawn_main" not in Path(f"/proc/{process}/cmdline").read_bytes():
            return False
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:  # it ended
        return False
    masks = [int(mask, 16) for mask in re.findall(r"^Sig(?:Cgt|Ign|Blk):\s*(\w+)", status, re.M)]
    return any(mask >> (signal.SIGINT - 1) & 1 for mask in masks)


def test_cases_end_with_the_process_that_started_them() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)  # it exists
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert parent.stdout.read() == ""  # returns when the child has closed its end, too
    parent.stdout.close()
