"""What ``pascal bench migration`` makes of runs: which rules they are, and the figures it tells."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.migration import under_load
from bench.migration.under_load import BOUNDARIES, BoundaryRun
from bench.simulator.defaults import RULES
from bench.simulator.results import PolicyRun
from bench.simulator.timeline import RequestMetrics
from gateway.policy.placement import PAPER, Rules
from pascal.main import main

REQUEST = RequestMetrics(
    reasoning_tokens=600,
    ttft_s=10.0,
    ttfat_s=0.1,
    tpot_s=0.1,
    e2e_s=20.0,
    qoe=1.0,
    qoe_ttfat=1.0,
    underruns=0,
    underruns_by_preemption=0,
    preemptions=0,
    resumes=0,
)


def case(policy: str, boundary: str, seed: int) -> BoundaryRun:
    """A hundred requests: one waits ``seed`` seconds at the boundary, one in two misses its SLO."""
    requests = [
        dataclasses.replace(
            REQUEST, ttfat_s=float(seed) if index > 97 else 0.1, qoe=1.0 if index % 2 else 0.5
        )
        for index in range(100)
    ]
    run = PolicyRun(
        policy=policy,
        seed=seed,
        requests=requests,
        throughput_tok_s=100.0,
        generated_tokens=1000,
        recomputed_tokens=0,
        reloaded_tokens=0,
        kv_peak_blocks=10,
    )
    return BoundaryRun(boundary, run, 10 * seed)


def test_rules_differ_from_the_paper_s_in_nothing_but_the_boundary() -> None:
    assert RULES["adaptive_paper"] == PAPER
    assert {name: rule.boundary for name, rule in RULES.items()} == {
        "off": "off",
        "always": "always",
        "adaptive_paper": "adaptive",
        "adaptive": "adaptive",
        "balance": "balance",
    }
    assert RULES["adaptive"].headroom == RULES["balance"].headroom == Rules().headroom > 0
    for rule in RULES.values():
        same = dataclasses.replace(rule, boundary=PAPER.boundary, headroom=PAPER.headroom)
        assert same == PAPER


def test_figures_are_means_over_seeds_by_policy_and_rule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def in_turn(run: Callable[..., Any], cases: list[Any]) -> Iterator[BoundaryRun]:
        assert run is under_load.run_boundary
        for policy, boundary, seed, load in reversed(cases):
            assert load is under_load.QUICK
            yield case(policy, boundary, seed)

    monkeypatch.setattr(under_load, "in_parallel", in_turn)
    path = tmp_path / "moves.json"
    assert main(["bench", "migration", "--quick", "--only", "loaded", "--json", str(path)]) == 0
    loaded = json.loads(path.read_text())["loaded"]
    assert {policy: tuple(found) for policy, found in loaded.items()} == BOUNDARIES
    assert {"off", "always", "adaptive"} <= set(loaded["pascal"])
    for found in loaded.values():
        for result in found.values():
            assert result["completed"] == 200
            assert result["boundary_blocking_p99_s"] == pytest.approx(1.5)  # seeds 1 and 2
            assert result["migrations"] == 15
            assert result["slo_violations"] == 0.5
