"""Moves in virtual time: targets, duration, and that nothing is left behind."""

from __future__ import annotations

import dataclasses
import random
import statistics
from typing import Any

import pytest

from bench.simulator.cluster import NO_MIGRATION, Cluster, ClusterRun, Window
from bench.simulator.defaults import MODEL
from bench.simulator.migration import Network
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.timeline import metrics_of
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths
from gateway.policy.placement import Rules
from workers.emulation.profile import load_profile
from workers.policy.settings import POLICIES

PROFILE = load_profile("h100-qwen32b")
SETTINGS = InstanceSettings(profile=PROFILE, model=str(MODEL), migration=True)
EVERYTHING = Window(0.0, 1e9)


def ruled(boundary: str) -> Rules:
    return dataclasses.replace(NO_MIGRATION, boundary=boundary)


def pressed(boundary: str, policy: str = "pascal", **changes: Any) -> tuple[ClusterRun, Cluster]:
    """Three instances with memory for a few requests each."""
    rng = random.Random(5)
    arrivals = [
        Arrival(index * 0.25, Lengths(20 + index, rng.randint(30, 300), rng.randint(20, 200)))
        for index in range(60)
    ]
    settings = dataclasses.replace(SETTINGS, policy=policy, kv_blocks=120, **changes)
    cluster = Cluster(settings, 3, EVERYTHING, ruled(boundary))
    return cluster.run(iter(arrivals)), cluster


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("boundary", ["always", "adaptive", "balance"])
def test_moved_requests_get_every_token_once_and_leave_nothing_behind(
    boundary: str, policy: str
) -> None:
    run, cluster = pressed(boundary, policy)
    assert run.migrations > 3
    for timeline in run.timelines:
        assert len(timeline.answer_s) == timeline.lengths.answer
        assert timeline.answer_s == sorted(timeline.answer_s)
        assert timeline.boundary_s is not None
        assert timeline.answer_s[0] > timeline.boundary_s
    for instance in cluster.instances.values():
        held = instance.occupancy()
        assert (len(held.requests), held.kv_blocks_free) == (0, 119)
    assert cluster._moves == []


def test_without_a_rule_nothing_changes() -> None:
    still, _ = pressed("off")
    without, _ = pressed("off", migration=False)
    assert still == without
    assert still.migrations == 0


def test_a_move_takes_the_transfer_and_the_steps_around_it() -> None:
    arrivals = [
        Arrival(0.0, Lengths(2000, 40, 50)),  # to the first instance
        Arrival(0.3, Lengths(3000, 5, 400)),  # to the second, where it soon answers
        Arrival(0.6, Lengths(10, 300, 5)),  # to the first, which then has a reasoning request
    ]
    settings = dataclasses.replace(SETTINGS, policy="pascal")
    cluster = Cluster(settings, 2, EVERYTHING, ruled("always"))
    run = cluster.run(iter(arrivals))
    assert run.migrations == 1
    moved = run.timelines[0]
    tokens = moved.lengths.prompt + moved.lengths.reasoning - 1
    transfer_s = tokens * PROFILE.kv.bytes_per_token / PROFILE.links.network_bytes_per_s
    step_s = PROFILE.step.seconds(4, 4 * 3000, 0, 0)
    assert transfer_s < metrics_of(moved).ttfat_s < transfer_s + 3 * step_s


def test_links_are_shared() -> None:
    network = Network(100.0)
    assert network.transfer("a", "b", 50, 1.0) == 1.5
    assert network.transfer("c", "d", 50, 1.0) == 1.5
    assert network.transfer("a", "c", 50, 1.2) == 2.0  # after both
    assert network.transfer("b", "d", 100, 3.0) == 4.0


def test_leaps_end_before_a_request_arrives() -> None:
    quick, _ = pressed("always")
    exact, _ = pressed("always", leaps=False)
    means = [
        statistics.fmean(metrics_of(timeline).e2e_s for timeline in run.timelines)
        for run in (quick, exact)
    ]
    assert means[0] == pytest.approx(means[1], rel=0.05)
    waits = [
        statistics.fmean(metrics_of(timeline).ttfat_s for timeline in run.timelines)
        for run in (quick, exact)
    ]
    assert waits[0] == pytest.approx(waits[1], rel=0.25)
