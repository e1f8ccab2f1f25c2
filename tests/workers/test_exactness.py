"""Preemption is invisible in the output: float32 greedy decoding on a real engine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.workers.harness import ROOT
from workers.policy import POLICIES


@pytest.mark.engine
@pytest.mark.slow
def test_output_is_that_of_the_unpressured_run_under_every_policy() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers.exactness"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["unpressured"]["preemptions"] == 0
    assert {policy: found[policy]["different"] for policy in POLICIES} == dict.fromkeys(POLICIES, 0)
    assert all(found[policy]["preemptions"] >= 5 for policy in POLICIES)
    assert sum(found[policy]["preemptions"] for policy in POLICIES) >= 50
    # The comparison would notice KV that is not a request's own.
    assert found["broken"]["different"] > 0
    assert found["sizes"]["tokens"] > 1000
