"""Admission: how many responses may be unfinished at once, in engines and in total.

Pure bookkeeping; `gateway.service` reports what happens to each response. A response whose tokens
are all generated needs no engine, only memory in the gateway, so it has a limit of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gateway.config import LimitsConfig
from gateway.schemas.errors import Overloaded


@dataclass(slots=True)
class _Admitted:
    user: str
    in_engine: bool = True
    counted: bool = True  # against the limit of its user


class Admission:
    """Counts the unfinished responses, and refuses those above the limits."""

    def __init__(self, limits: LimitsConfig) -> None:
        self.in_engines = 0
        self._limits = limits
        self._admitted: dict[str, _Admitted] = {}
        self._of_user: Counter[str] = Counter()

    def admit(self, response_id: str, user: str) -> None:
        """Count a new response, which needs an engine.

        :param user: the user that `LimitsConfig.max_requests_per_user` applies to; empty if the
            request is anonymous, then that limit does not apply.
        :raises Overloaded: a limit is reached.
        """
        limits = self._limits
        if self.in_engines >= limits.max_requests:
            raise self._overloaded(
                f"The engines have {self.in_engines} requests, the limit (limits.max_requests)."
            )
        if len(self._admitted) >= limits.max_readers:
            raise self._overloaded(
                f"The server has {len(self._admitted)} unfinished responses, the limit "
                "(limits.max_readers)."
            )
        if user and self._of_user[user] >= limits.max_requests_per_user:
            raise self._overloaded(
                f"You have {self._of_user[user]} unfinished requests, the limit for one user "
                "(limits.max_requests_per_user).",
                code="rate_limit_exceeded",
            )
        self._admitted[response_id] = _Admitted(user)
        self.in_engines += 1
        self._of_user[user] += 1

    def update(self, response_id: str, *, in_engine: bool, followed: bool) -> None:
        """Record whether a response is in an engine, and whether any client reads it.

        A generated response without a client does not count against its user.
        """
        admitted = self._admitted.get(response_id)
        if admitted is None:
            return
        self.in_engines += in_engine - admitted.in_engine
        admitted.in_engine = in_engine
        self._count(admitted, in_engine or followed)

    def remove(self, response_id: str) -> None:
        """The response has ended."""
        admitted = self._admitted.pop(response_id, None)
        if admitted is not None:
            self.in_engines -= admitted.in_engine
            self._count(admitted, False)

    def _count(self, admitted: _Admitted, counted: bool) -> None:
        self._of_user[admitted.user] += counted - admitted.counted
        admitted.counted = counted
        if not self._of_user[admitted.user]:
            del self._of_user[admitted.user]

    def _overloaded(self, message: str, code: str = "server_overloaded") -> Overloaded:
        return Overloaded(message, code=code, retry_after_s=self._limits.retry_after_s)


def user_of(owner: str, user: str | None) -> str:
    """The key under which limits and fairness count a request; empty if it is anonymous."""
    return f"{owner}/{user or ''}" if owner or user else ""
