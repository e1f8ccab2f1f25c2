"""What a run says about itself when its results are in doubt."""

from __future__ import annotations

import os
from typing import Any

import pytest

from bench.pacing.held import warnings
from bench.pacing.stage.machine import Cores

QUIET: dict[str, Any] = {
    "client_cpu_share": 0.4,
    "worker_cpu_share": 0.1,
    "client_timer_late_p99_ms": 1.0,
    "worker_late_max_ms": 10.0,
    "waited_share": 0.01,
    "incomplete": 0,
}


def test_a_quiet_run_has_no_warning() -> None:
    assert warnings(QUIET) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"client_cpu_share": 0.75}, "readers and workers used 85% of their core"),
        ({"client_timer_late_p99_ms": 30.0}, "own timer was 30 ms late"),
        ({"worker_late_max_ms": 1500.0}, "a worker's frame was 1500 ms late"),
        ({"waited_share": 0.5}, "waited for its core in 50% of the time"),
        ({"incomplete": 3}, "3 answers were not complete"),
    ],
)
def test_each_doubt_is_named(values: dict[str, Any], words: str) -> None:
    (warning,) = warnings({**QUIET, **values})
    assert words in warning


def test_only_a_machine_with_two_cores_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert Cores.of_machine() == Cores(None, None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 5, 7})
    assert Cores.of_machine() == Cores(2, 7)
