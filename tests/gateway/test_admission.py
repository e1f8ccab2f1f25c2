"""Admission: which responses count against which limit, and until when."""

from __future__ import annotations

import pytest

from gateway.admission import Admission
from gateway.config import LimitsConfig
from gateway.schemas.errors import Overloaded


def admission(engines: int = 10, readers: int = 10, user: int = 10) -> Admission:
    limits = LimitsConfig(max_requests=engines, max_readers=readers, max_requests_per_user=user)
    return Admission(limits)


def refused(counts: Admission, response_id: str, user: str = "") -> Overloaded:
    with pytest.raises(Overloaded) as caught:
        counts.admit(response_id, user)
    return caught.value


def test_engines_are_full_until_a_response_is_generated() -> None:
    counts = admission(engines=1)
    counts.admit("a", "")
    error = refused(counts, "b")
    assert error.code == "server_overloaded"
    assert "limits.max_requests" in error.message
    counts.update("a", in_engine=False, followed=True)
    counts.admit("b", "")
    assert counts.in_engines == 1


def test_the_gateway_is_full_of_responses_that_are_still_read() -> None:
    counts = admission(engines=1, readers=2)
    for name in ("a", "b"):
        counts.admit(name, "")
        counts.update(name, in_engine=False, followed=True)
    error = refused(counts, "c")
    assert error.code == "server_overloaded"
    assert "limits.max_readers" in error.message
    counts.remove("a")
    counts.admit("c", "")


def test_a_user_is_at_the_limit_while_engines_work_or_a_client_reads() -> None:
    counts = admission(user=1)
    counts.admit("a", "ann")
    counts.admit("b", "bob")
    counts.update("a", in_engine=True, followed=False)  # its client left; the engine goes on
    error = refused(counts, "c", "ann")
    assert error.code == "rate_limit_exceeded"
    counts.update("a", in_engine=False, followed=True)
    refused(counts, "c", "ann")
    counts.update("a", in_engine=False, followed=False)
    counts.admit("c", "ann")
    counts.update("a", in_engine=False, followed=True)  # its client is back
    counts.remove("c")
    refused(counts, "d", "ann")
    counts.remove("a")
    counts.admit("d", "ann")


def test_nobody_without_a_key_or_a_user_is_counted() -> None:
    counts = admission(user=1)
    for name in ("a", "b", "c"):
        counts.admit(name, "")


def test_all_counts_return_to_the_start_whatever_is_said_twice() -> None:
    counts = admission()
    for name in ("a", "b"):
        counts.admit(name, "ann")
    for _ in range(2):
        counts.update("a", in_engine=False, followed=False)
        counts.update("b", in_engine=False, followed=True)
        counts.remove("a")
        counts.remove("b")
        counts.update("a", in_engine=True, followed=True)  # of one that has ended
    assert (counts.in_engines, counts._admitted, counts._of_user) == (0, {}, {})
