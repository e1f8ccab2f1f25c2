"""The Chrome trace of a simulation: it loads, it is balanced, and it tells each request's times."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from bench.simulator.cluster import NO_MIGRATION, ClusterRun, Window, simulate
from bench.simulator.defaults import MODEL
from bench.simulator.run.chrome_trace import ChromeTrace
from bench.simulator.scheduler_factory import InstanceSettings
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths
from workers.emulation.profile import load_profile

STATES = {"queued", "prefill", "reasoning", "preempted", "answering", "migrating"}

Event = dict[str, Any]


def run_traced(path: Path, boundary: str, *, until_s: float = 1e9, **changes: Any) -> ClusterRun:
    """Three instances whose memory holds a handful of requests."""
    chance = random.Random(5)
    arrivals = [
        Arrival(index * 0.25, Lengths(20 + index, chance.randint(30, 300), chance.randint(20, 200)))
        for index in range(40)
    ]
    settings = InstanceSettings(
        profile=load_profile("h100-qwen32b"),
        model=str(MODEL),
        policy="pascal",
        kv_blocks=90,
        migration=True,
    )
    settings = dataclasses.replace(settings, **changes)
    rules = dataclasses.replace(NO_MIGRATION, boundary=boundary)
    with ChromeTrace(path) as trace:
        return simulate(settings, 3, arrivals, Window(0.0, until_s), rules=rules, watch=trace)


def spans_of(events: list[Event]) -> list[tuple[str, str, float, float]]:
    """Request, state, begin and end in seconds; fails where spans do not nest."""
    open_: defaultdict[tuple[int, int], list[Event]] = defaultdict(list)
    found = []
    for event in events:
        stack = open_[event["pid"], event["tid"]]
        if event["ph"] == "B":
            stack.append(event)
        elif event["ph"] == "E":
            begun = stack.pop()
            assert begun["name"] == event["name"]
            if len(stack) == 1:
                times = begun["ts"] / 1e6, event["ts"] / 1e6
                found.append((stack[0]["name"], event["name"], *times))
            assert len(stack) <= 1
    assert not any(open_.values())
    return found


@pytest.mark.parametrize("boundary", ["always", "off"])
def test_the_states_of_a_request_add_up_to_its_time(boundary: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    run = run_traced(path, boundary)
    events: list[Event] = json.loads(path.read_text())
    times = [event["ts"] for event in events]
    assert times == sorted(times)
    spans = spans_of(events)
    assert {state for _, state, _, _ in spans} == STATES - (
        set() if boundary == "always" else {"migrating"}
    )
    by_request: defaultdict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for name, state, begin_s, end_s in spans:
        by_request[name].append((state, begin_s, end_s))
    assert len(by_request) == len(run.timelines)
    preempted = 0
    for number, timeline in enumerate(run.timelines, 1):
        parts = by_request[f"request {number}"]
        for (_, _, before_s), (_, after_s, _) in itertools.pairwise(parts):
            assert before_s == after_s
        assert timeline.finished_s is not None
        assert timeline.boundary_s is not None
        total_s = sum(end_s - begin_s for _, begin_s, end_s in parts)
        assert total_s == pytest.approx(timeline.finished_s - timeline.arrival_s, abs=1e-6)
        # At its boundary it begins to answer, or to move.
        after = [begin_s for state, begin_s, _ in parts if state in ("answering", "migrating")]
        assert min(after) == pytest.approx(timeline.boundary_s, abs=1e-6)
        preempted += sum(state == "preempted" for state, _, _ in parts)
    assert preempted >= sum(timeline.resumes for timeline in run.timelines) > 0
    moved = sum(state == "migrating" for _, state, _, _ in spans)
    assert moved == run.migrations
    assert (moved > 0) == (boundary == "always")


def test_leaps_leave_the_spans_as_they_are(tmp_path: Path) -> None:
    """Without KV offload, where they change nothing; counters are read less often."""

    def spans(name: str, leaps: bool) -> list[Event]:
        path = tmp_path / name
        run_traced(path, "off", until_s=8.0, leaps=leaps, offload=False, migration=False)
        return [event for event in json.loads(path.read_text()) if event["ph"] in "BE"]

    assert spans("leaps.json", leaps=True) == spans("steps.json", leaps=False)


def test_counters_stay_within_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    run_traced(path, "off")
    counters = [event for event in json.loads(path.read_text()) if event["ph"] == "C"]
    used = [event["args"]["used"] for event in counters if event["name"] == "KV blocks"]
    assert max(used) <= 89
    assert max(used) > 80
    running = [event["args"]["running"] for event in counters if event["name"] == "requests"]
    assert max(running) > 1
    seen: dict[tuple[int, str], float] = {}
    for event in counters:
        key = event["pid"], event["name"]
        assert event["ts"] - seen.get(key, -1e9) >= 0.1e6 - 1
        seen[key] = event["ts"]


def test_who_is_not_finished_at_the_end_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    run = run_traced(path, "off", until_s=2.0)
    events: list[Event] = json.loads(path.read_text())
    spans_of(events)
    ends = [event["args"] for event in events if event["ph"] == "E" and "args" in event]
    left = sum(not end["finished"] for end in ends)
    assert left > 0
    assert len(ends) - left >= len(run.timelines)


def test_nothing_simulated_is_a_trace_too(tmp_path: Path) -> None:
    with ChromeTrace(tmp_path / "trace.json"):
        pass
    assert json.loads((tmp_path / "trace.json").read_text()) == []
