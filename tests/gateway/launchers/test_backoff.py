"""Pauses between attempts, without a clock."""

from __future__ import annotations

from gateway.launchers.backoff import Backoff


def test_pauses_double_up_to_the_longest_while_nothing_serves() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.failed(None) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.failures == 5


def test_a_worker_that_served_for_a_moment_is_not_forgiven() -> None:
    backoff = Backoff(0.5, 30.0, stable_s=60.0)
    assert [backoff.failed(1.0) for _ in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert backoff.failed(60.1) == 0.5
    assert backoff.failures == 1
    assert backoff.failed(None) == 1.0


def test_to_be_forgiven_an_attempt_must_outlast_the_pause_before_it() -> None:
    backoff = Backoff(1.0, 8.0)
    assert [backoff.failed(None) for _ in range(3)] == [1.0, 2.0, 4.0]
    assert backoff.failed(3.0) == 8.0
    assert backoff.failed(9.0) == 1.0


def test_failures_are_forgotten_while_a_worker_serves_well() -> None:
    backoff = Backoff(1.0, 8.0, stable_s=60.0)
    backoff.failed(None)
    backoff.failed(None)
    assert not backoff.forgive(60.0)
    assert backoff.failures == 2
    assert backoff.forgive(60.5)
    assert backoff.failures == 0
    assert backoff.failed(None) == 1.0


def test_the_first_pause_is_no_longer_than_the_longest() -> None:
    assert Backoff(5.0, 1.0).failed(None) == 1.0
