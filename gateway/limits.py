"""Admission: how many requests may run at once. Pure; `gateway.service` keeps the counts."""

from __future__ import annotations

from gateway.config import LimitsConfig
from gateway.errors import Overloaded


def check_admission(limits: LimitsConfig, *, running: int, running_of_user: int) -> None:
    """Raise `Overloaded` if one more request would be too many."""
    if running >= limits.max_requests:
        raise Overloaded(
            f"The server is serving {running} requests, its limit.",
            code="server_overloaded",
            retry_after_s=limits.retry_after_s,
        )
    if running_of_user >= limits.max_requests_per_user:
        raise Overloaded(
            f"You have {running_of_user} unfinished requests, the limit for one user.",
            code="rate_limit_exceeded",
            retry_after_s=limits.retry_after_s,
        )


def user_of(owner: str, user: str | None) -> str:
    """Whom the limit per user counts, and fairness; empty without a key and a ``user``: nobody."""
    return f"{owner}/{user or ''}" if owner or user else ""
