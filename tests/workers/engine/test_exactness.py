"""Preemption is invisible in the output: float32 greedy decoding on a real engine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.workers.support.harness import ROOT
from workers.policy.settings import POLICIES


@pytest.mark.engine
@pytest.mark.slow
def test_output_is_that_of_the_unpressured_run_under_every_policy() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers.support.exactness"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["unpressured"]["preemptions"] == 0
    for resume in ("recompute", "reload"):
        runs = found[resume]
        assert {policy: runs[policy]["different"] for policy in POLICIES} == dict.fromkeys(
            POLICIES, 0
        )
        assert all(runs[policy]["preemptions"] >= 5 for policy in POLICIES)
        assert sum(runs[policy]["preemptions"] for policy in POLICIES) >= 50
        # The plugin counts the tokens that the run without pressure did not compute.
        assert all(runs[policy]["recomputed"] == runs[policy]["extra"] for policy in POLICIES)
        assert all((runs[policy]["reloaded"] > 0) == (resume == "reload") for policy in POLICIES)
        # A policy may also change between any two steps.
        switching = runs["switching"]
        assert (switching["different"], switching["recomputed"]) == (0, switching["extra"])
        assert switching["preemptions"] >= 50
    assert found["switches"] >= 200
    extra = {
        resume: sum(found[resume][policy]["extra"] for policy in POLICIES)
        for resume in ("recompute", "reload")
    }
    # Requests of 140 tokens in blocks of 32 lose a ninth of them even if the rest is reloaded.
    assert extra["reload"] <= 0.25 * extra["recompute"]
    # The comparison notices KV of another request and wrong reloaded KV.
    assert found["broken_device"]["different"] > 0
    assert found["broken_host"]["different"] > 0
    assert found["tokens"] > 1000
