"""Refused requests that were told when to come back: each has a place until then.

A client that obeys ``Retry-After`` sends the same request again. `Promises` finds it by a digest of
what it sent. Whoever does not come in time loses the place. Some never come, so a promise is
counted by the share of those who came of late.

Pure: ``now`` is a parameter, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.policy.capacity import Work

_EARLY_S = 0.5  # a client may be so much early
_HOLD_S = 2.0  # room is held for so long after the time that was told
_WINDOW = 0.25  # the place is kept for this part of the wait, if that is longer
_WEIGHT = 0.05  # of one promise in the share that came
_LEAST_SHARE = 0.1


@dataclass(slots=True)
class Promise:
    """One place."""

    user: str
    work: Work
    made_s: float
    due_s: float

    @property
    def lapses_s(self) -> float:
        """From then on the place is lost."""
        return self.due_s + max(_HOLD_S, _WINDOW * (self.due_s - self.made_s))


class Promises:
    """The places that were promised, in the order of the promises.

    :param most: with so many places, the next refused request gets none.
    """

    def __init__(self, most: int = 4096) -> None:
        self.came_share = 1.0  # of the promises that were due of late
        self._most = most
        self._by_key: dict[bytes, Promise] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, key: bytes) -> Promise | None:
        """The promise to a request, if it has one."""
        return self._by_key.get(key)

    def is_due(self, promise: Promise, now: float) -> bool:
        """Whether the time has come."""
        return now >= promise.due_s - _EARLY_S

    def make(self, key: bytes, user: str, work: Work, wait_s: float, now: float) -> Promise | None:
        """Promise a place after ``wait_s``, or a later one; None if there are too many."""
        promise = self._by_key.get(key)
        if promise is not None:
            promise.made_s, promise.due_s = now, now + wait_s
            return promise
        if len(self._by_key) >= self._most:
            return None
        promise = self._by_key[key] = Promise(user, work, now, now + wait_s)
        return promise

    def take(self, key: bytes, now: float) -> None:
        """The request came and was admitted."""
        promise = self._by_key.pop(key, None)
        if promise is not None and self.is_due(promise, now):
            self._note(1.0)

    def expire(self, now: float) -> None:
        """Drop the places of those who did not come."""
        for key, promise in list(self._by_key.items()):
            if now > promise.lapses_s:
                del self._by_key[key]
                self._note(0.0)

    def held(self, now: float) -> Iterator[Promise]:
        """The promises that room is to be kept for."""
        return (p for p in self._by_key.values() if now <= p.due_s + _HOLD_S)

    def ahead(self, user: str | None = None) -> float:
        """How many places are taken up to the end of the line, of one user or of all."""
        if user is None:
            return self.came_share * len(self._by_key)
        return self.came_share * sum(p.user == user for p in self._by_key.values())

    def due(self, now: float, user: str | None = None) -> float:
        """How many are expected to come now, of one user or of all."""
        count = sum(
            self.is_due(promise, now) and (user is None or promise.user == user)
            for promise in self.held(now)
        )
        return self.came_share * count

    def _note(self, came: float) -> None:
        self.came_share = max(_LEAST_SHARE, self.came_share + _WEIGHT * (came - self.came_share))
