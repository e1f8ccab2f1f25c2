"""Cases in child processes: their results, and that none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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
