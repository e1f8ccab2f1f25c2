"""How many requests wait before one that has no token yet, for clients that ask.

Nobody is told unasked. All who ask within a second get the answers of one look at the responses,
so that many who wait cost no more than one.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.response.session import Session
from gateway.response.tally import live_state

_FRESH_S = 1.0  # for so long the answers of a look are given


class Queues:
    """The requests that wait at each instance, in the order in which they came.

    :param running: the responses that are not fully delivered, in that order.
    """

    def __init__(self, running: Mapping[str, Session]) -> None:
        self._running = running
        self._ahead: dict[str, int] = {}  # of each response that waited at the last look
        self._looked_s: float | None = None

    def ahead(self, session: Session, now: float) -> int | None:
        """Requests that came before to its instance and wait as it does; None if it has begun.

        It is no promise: a scheduler may take another one first.
        """
        if live_state(session) != "queued":
            return None
        if (
            self._looked_s is None
            or now - self._looked_s >= _FRESH_S
            or session.response_id not in self._ahead
        ):
            self._look(now)
        return self._ahead.get(session.response_id)

    def _look(self, now: float) -> None:
        waiting: dict[str | None, int] = {}
        self._ahead = {}
        self._looked_s = now
        for response_id, session in self._running.items():
            if live_state(session) == "queued":
                before = waiting.get(session.instance_id, 0)
                self._ahead[response_id] = before
                waiting[session.instance_id] = before + 1
