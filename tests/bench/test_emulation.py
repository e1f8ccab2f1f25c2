"""Counters and requests of the check of emulated instances; the check itself needs engines."""

from __future__ import annotations

import random

from bench.emulation import _bodies, parse_counters

METRICS = """\
# TYPE pascal_requests_running gauge
pascal_requests_running{instance="worker-0",phase="reasoning"} 25.0
pascal_requests_running{instance="worker-0",phase="answering"} 15.0
pascal_requests_running{instance="worker-1",phase="reasoning"} 3.0
pascal_kv_blocks{instance="worker-0"} 5624.0
pascal_emulated_seconds_total{instance="worker-0"} 7.5
pascal_emulated_steps_total{instance="worker-0"} 100.0
pascal_emulated_busy_seconds_total{instance="worker-0"} 2.5
pascal_emulated_starved_seconds_total{instance="worker-0"} 1e-05
pascal_emulated_late_seconds_total{instance="worker-0"} 0.2
pascal_preemptions_total 3.0
"""


def test_counters_are_read_by_instance_and_phases_added_up() -> None:
    counters = parse_counters(METRICS)
    assert counters.keys() == {"worker-0", "worker-1"}
    first = counters["worker-0"]
    assert (first.running, first.steps) == (40.0, 100.0)
    assert first.passed_s == 7.5
    assert (first.busy_s, first.starved_s, first.late_s) == (2.5, 1e-05, 0.2)
    assert counters["worker-1"].running == 3.0


def test_the_first_request_of_a_client_is_under_way_already() -> None:
    def total(body: dict[str, object]) -> int:
        lengths = body["forced_lengths"]
        assert isinstance(lengths, dict)
        return int(lengths["reasoning_tokens"]) + int(lengths["answer_tokens"])

    rng = random.Random(0)
    clients = [_bodies("m", rng) for _ in range(400)]
    first = sum(total(next(client)) for client in clients)
    second = sum(total(next(client)) for client in clients)
    assert 0.4 < first / second < 0.6
    assert len({str(next(client)["input"]) for client in clients}) == 400
