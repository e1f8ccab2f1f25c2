"""Refused requests that were told when to come back: each has a place until then.

A client that obeys ``Retry-After`` sends the same request again. `Promises` finds it by a digest of
what it sent. Whoever does not come in time loses the place. Many do not come who are told to wait
long, so a promise counts as much as the share of those who came after waits like it.

Pure: ``now`` is a parameter, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.policy.capacity import Work

_EARLY_S = 0.5  # a client may be so much early
_HOLD_S = 2.0  # room is held for so long after the time that was told
_WINDOW = 0.25  # the place is kept for this part of the wait, if that is longer
_WEIGHT = 0.1  # of one promise in the share that came
_MISJUDGED = 0.1
# Waits of like length have one share: below 4 s, and then two ranges for each doubling, to 128 s.
_RANGES = 12
# Until promises are due. Official clients do not obey a wait of more than 60 s.
_PRIOR = (1.0,) * 6 + (0.8,) * 2 + (0.7,) * 4
_LEAST_SHARE = 0.05


@dataclass(slots=True)
class Promise:
    """One place."""

    user: str
    work: Work
    told_s: float  # how long it was told to wait, the first time
    due_s: float
    again_s: float  # when it was told to come; later than `due_s` if it came and had no room
    came: bool = False  # in time, and there was no room
    booking: tuple[float, float, float] | None = None  # begin, step time and weight, if it has one

    @property
    def lapses_s(self) -> float:
        """From then on the place is lost."""
        return self.again_s + max(_HOLD_S, _WINDOW * self.told_s)


class Promises:
    """The places that were promised, in the order of the promises.

    :param most: with so many places, the next refused request gets none.
    """

    def __init__(self, most: int = 2048) -> None:
        self._shares = list(_PRIOR)
        self._most = most
        self._by_key: dict[bytes, Promise] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, key: bytes) -> Promise | None:
        """The promise to a request, if it has one."""
        return self._by_key.get(key)

    def is_due(self, promise: Promise, now: float) -> bool:
        """Whether the time has come."""
        return now >= promise.again_s - _EARLY_S

    def make(self, key: bytes, user: str, work: Work, wait_s: float, now: float) -> Promise | None:
        """Promise a place after ``wait_s``, or a later one; None if there are too many."""
        promise = self._by_key.get(key)
        if promise is not None:
            promise.again_s = now + wait_s
            if not promise.came:
                self._note(promise, 1.0)
                promise.came = True
            return promise
        if len(self._by_key) >= self._most:
            return None
        promise = self._by_key[key] = Promise(user, work, wait_s, now + wait_s, now + wait_s)
        return promise

    def take(self, key: bytes) -> Promise | None:
        """The request came and was admitted; return its promise, if it had one."""
        promise = self._by_key.pop(key, None)
        if promise is not None and not promise.came:
            self._note(promise, 1.0)
        return promise

    def expire(self, now: float) -> None:
        """Drop the places of those who did not come.

        Their bookings have been taken back before, see `late`.
        """
        for key, promise in list(self._by_key.items()):
            if now > promise.lapses_s:
                del self._by_key[key]
                if not promise.came:
                    self._note(promise, 0.0)

    def share(self, promise: Promise) -> float:
        """The probability that it is taken."""
        return 1.0 if promise.came else max(_LEAST_SHARE, self._shares[_range(promise.told_s)])

    def misjudged(self, most: int) -> list[Promise]:
        """At most so many promises whose bookings have another weight than they should."""
        found = []
        for promise in self._by_key.values():
            if promise.booking and abs(promise.booking[2] - self.share(promise)) > _MISJUDGED:
                found.append(promise)
                if len(found) == most:
                    break
        return found

    def late(self, now: float) -> list[Promise]:
        """The promises that no room is kept for any longer."""
        return [p for p in self._by_key.values() if now > p.again_s + _HOLD_S and p.booking]

    def held(self, now: float, before: Promise | None = None) -> Iterator[Promise]:
        """The promises that room is to be kept for; only those due before another one."""
        for promise in self._by_key.values():
            if now <= promise.again_s + _HOLD_S and (
                before is None or promise.due_s < before.due_s
            ):
                yield promise

    def ahead(self, user: str | None = None) -> float:
        """How many places are taken up to the end of the line, of one user or of all."""
        return sum(
            self.share(promise)
            for promise in self._by_key.values()
            if user is None or promise.user == user
        )

    def due(self, now: float, user: str | None = None) -> float:
        """How many are expected to come now, of one user or of all."""
        return sum(
            self.share(promise)
            for promise in self.held(now)
            if self.is_due(promise, now) and (user is None or promise.user == user)
        )

    def _note(self, promise: Promise, came: float) -> None:
        """Learn from one promise. The longer the wait, the smaller is the share that comes."""
        here, shares = _range(promise.told_s), self._shares
        shares[here] += _WEIGHT * (came - shares[here])
        shares[:here] = (max(share, shares[here]) for share in shares[:here])
        shares[here + 1 :] = (min(share, shares[here]) for share in shares[here + 1 :])


def _range(told_s: float) -> int:
    return max(0, min(_RANGES - 1, 1 + int(2 * math.log2(max(told_s, 2.0) / 4.0))))
