"""Finished responses that clients can still ask for: for a time, and within a byte budget.

Pure bookkeeping with ``now`` as a parameter (monotonic seconds). When the budget is used up, the
oldest responses are dropped. Their names stay until their time is over, so that a client that asks
for one of them learns that its events have expired.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from gateway.response.session import Session

_MOST_NAMES = 65_536  # of dropped responses, about 200 bytes each


@dataclass(frozen=True, slots=True)
class _Kept:
    session: Session
    until_s: float
    size_bytes: int


class KeptResponses:
    """Finished responses, from the oldest to the newest.

    :param ttl_s: how long each is kept after its end.
    :param total_bytes: memory for all of them except the newest, by an estimate.
    """

    def __init__(self, ttl_s: float, total_bytes: int) -> None:
        self.size_bytes = 0
        self._ttl_s = ttl_s
        self._total_bytes = total_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        # Responses that were dropped before their time: the owner, and when that time is over.
        self._dropped: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def next_expiry_s(self) -> float | None:
        """When `expire` is due; None if nothing is kept."""
        # Dropped responses are older than kept ones.
        for _, until_s in self._dropped.values():
            return until_s
        oldest = self._oldest()
        return None if oldest is None else oldest.until_s

    def add(self, session: Session, now: float) -> list[Session]:
        """Keep a finished response, and return those that were dropped to make room.

        The newest response is always kept, because its client may not have read its end yet.
        """
        size_bytes = session.size_bytes + session.log.size_bytes
        self.size_bytes += size_bytes
        dropped = []
        while self.size_bytes > self._total_bytes and (oldest := self._oldest()) is not None:
            self.discard(oldest.session.response_id)
            oldest.session.log.expire()
            self._dropped[oldest.session.response_id] = oldest.session.owner, oldest.until_s
            dropped.append(oldest.session)
        while len(self._dropped) > _MOST_NAMES:
            self._dropped.popitem(last=False)
        self._kept[session.response_id] = _Kept(session, now + self._ttl_s, size_bytes)
        return dropped

    def discard(self, response_id: str) -> None:
        """Stop keeping a response, if it is kept."""
        if (kept := self._kept.pop(response_id, None)) is not None:
            self.size_bytes -= kept.size_bytes

    def was_dropped(self, response_id: str, owner: str) -> bool:
        """Whether a response of this owner was dropped before its time."""
        return self._dropped.get(response_id, (None,))[0] == owner

    def expire(self, now: float) -> list[Session]:
        """Drop the responses whose time is over, and return them."""
        while self._dropped:
            response_id, (_, until_s) = next(iter(self._dropped.items()))
            if until_s > now:
                break
            del self._dropped[response_id]
        dropped = []
        while (oldest := self._oldest()) is not None and oldest.until_s <= now:
            self.discard(oldest.session.response_id)
            dropped.append(oldest.session)
        return dropped

    def _oldest(self) -> _Kept | None:
        return next(iter(self._kept.values()), None)
