"""Finished responses that clients can still come back to: for a time, and within a byte budget.

Pure bookkeeping with ``now`` as a parameter (monotonic seconds). When the budget is used up, the
oldest responses lose their events first, then they are dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from gateway.session import Session


@dataclass(frozen=True, slots=True)
class _Kept:
    session: Session
    until_s: float
    events_bytes: int
    rest_bytes: int


class KeptResponses:
    """Finished responses, from the oldest to the newest.

    :param ttl_s: how long each is kept after its end.
    :param total_bytes: memory that all of them but the newest may take, an estimate.
    """

    def __init__(self, ttl_s: float, total_bytes: int) -> None:
        self.size_bytes = 0
        self._ttl_s = ttl_s
        self._total_bytes = total_bytes
        # Those that have lost their events are the older ones, always.
        self._without_events: OrderedDict[str, _Kept] = OrderedDict()
        self._whole: OrderedDict[str, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._without_events) + len(self._whole)

    @property
    def next_expiry_s(self) -> float | None:
        """When `expire` is due; None if nothing is kept."""
        oldest = self._oldest()
        return None if oldest is None else oldest.until_s

    def add(self, session: Session, now: float) -> list[Session]:
        """Keep a finished response; :return: those that are dropped for it.

        The newest response is always kept whole: its client may not have read its end yet.
        """
        new = _Kept(session, now + self._ttl_s, session.log.size_bytes, session.size_bytes)
        self.size_bytes += new.events_bytes + new.rest_bytes
        while self.size_bytes > self._total_bytes and self._whole:
            response_id, kept = self._whole.popitem(last=False)
            kept.session.log.expire()
            self.size_bytes -= kept.events_bytes
            self._without_events[response_id] = kept
        dropped = []
        while self.size_bytes > self._total_bytes and self._without_events:
            _, kept = self._without_events.popitem(last=False)
            self.size_bytes -= kept.rest_bytes
            dropped.append(kept.session)
        self._whole[session.response_id] = new
        return dropped

    def discard(self, response_id: str) -> None:
        """Keep a response no longer; one that is not kept is ignored."""
        if (kept := self._without_events.pop(response_id, None)) is not None:
            self.size_bytes -= kept.rest_bytes
        elif (kept := self._whole.pop(response_id, None)) is not None:
            self.size_bytes -= kept.events_bytes + kept.rest_bytes

    def expire(self, now: float) -> list[Session]:
        """Drop the responses whose time is over, and return them."""
        dropped = []
        while (oldest := self._oldest()) is not None and oldest.until_s <= now:
            self.discard(oldest.session.response_id)
            dropped.append(oldest.session)
        return dropped

    def _oldest(self) -> _Kept | None:
        oldest = self._without_events or self._whole
        return next(iter(oldest.values()), None)
