"""The overload benchmark without servers: capacity, summaries and verdicts."""

from __future__ import annotations

from typing import Any

import pytest

from bench.overload import Client, capacity_rps, is_right, summary, verdicts


def client(
    came_s: float = 0.0, *told: tuple[float, float], watcher: bool = False, **fields: Any
) -> Client:
    refusals = [(at_s, told_s, 0.002) for at_s, told_s in told]
    return Client(watcher, 60.0, came_s, refusals, **fields)


def test_capacity_grows_with_the_instances() -> None:
    assert capacity_rps(4) == pytest.approx(2 * capacity_rps(2))
    assert 1.0 < capacity_rps(1) < 10.0


@pytest.mark.parametrize(
    ("told_s", "real_s", "right"),
    [
        (10, 10, True),
        (10, 19, True),
        (10, 21, False),
        (20, 9, False),
        (1, 0.1, True),
        (2, 0.4, False),
    ],
)
def test_a_wait_is_right_within_a_factor_of_two_or_one_second(
    told_s: float, real_s: float, right: bool
) -> None:
    assert is_right(told_s, real_s) is right


def test_a_summary_counts_those_admitted_after_the_ramp_and_all_refusals() -> None:
    result = summary(
        [
            client(0.0, admitted_s=5.0, qoe=0.5),  # in the ramp
            client(10.0, admitted_s=10.0, qoe=0.99, ttft_s=2.0),
            client(10.0, (10.0, 4.0), admitted_s=14.0, qoe=0.9, ttft_s=4.0),
            client(10.0, (10.0, 30.0), (40.0, 1.0)),
            client(10.0, (10.0, 9.0), (11.0, 2.0), admitted_s=13.0, watcher=True, failure="lost"),
        ],
        from_s=10.0,
        seconds=10.0,
    )
    assert (result["clients"], result["admitted"], result["gave_up"]) == (5, 3, 1)
    assert result["goodput_rps"] == pytest.approx(0.1)
    assert result["slo_violations"] == pytest.approx(2 / 3)
    assert (result["refusals"], result["failures"]) == (5, ["lost"])
    told = result["retry_after"]
    assert (told["obedient"]["told"], told["obedient"]["right"]) == (1, 1.0)
    assert (told["watchers"]["told"], told["watchers"]["right"]) == (1, 0.0)  # the first time
    assert told["watchers"]["right_or_earlier"] == 1.0


def test_each_goal_can_be_missed() -> None:
    good = {
        "slo_violations": 0.0,
        "refusal_ms": {"p99": 5.0, "max": 20.0},
        "retry_after": {"obedient": {"right": 1.0}, "watchers": {"right_or_earlier": None}},
    }
    assert set(verdicts({"overload": good}).values()) == {True}
    for name, changed in (
        ("violations", {"slo_violations": 0.01}),
        ("refused_at_once", {"refusal_ms": {"p99": 5.0, "max": 51.0}}),
        (
            "retry_after",
            {"retry_after": {"obedient": {"right": 0.5}, "watchers": {"right_or_earlier": 1.0}}},
        ),
    ):
        met = verdicts({"overload": good | changed})
        assert [goal for goal in met if not met[goal]] == [name]
