"""The release wheel: which sessions have a token to release in which slot of time.

One wheel and one timer serve all responses of a gateway. Time is divided into slots. A session
waits in the slot in which its next token is due, and is served at the beginning of that slot, so
its token goes out up to one slot early. Planned releases stay absolute, so nothing accumulates.

Pure bookkeeping with ``now`` as a parameter (monotonic seconds). `gateway.service` has the timer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from gateway.response.session import Session

SLOT_S = 0.005


class ReleaseWheel:
    """Sessions by the slot of their next release; each is in one slot at most."""

    def __init__(self) -> None:
        self._slots: defaultdict[int, dict[Session, None]] = defaultdict(dict)
        self._served = 0  # the last slot that was served

    def set(self, session: Session, due_s: float) -> None:
        """Serve a session at ``due_s``, instead of any other time that was set."""
        if session.wheel_slot is not None:
            self.clear(session)
        self.put(session, due_s)

    def put(self, session: Session, due_s: float) -> None:
        """Do as `set`, for a session that is in no slot: a new one, or one that `due` has given."""
        session.due_s = due_s
        slot = int(due_s / SLOT_S)
        if slot <= self._served:
            slot = self._served + 1
        session.wheel_slot = slot
        self._slots[slot][session] = None

    def clear(self, session: Session) -> None:
        """Serve a session no more."""
        if session.wheel_slot is None:
            return
        if (waiting := self._slots.get(session.wheel_slot)) is not None:
            waiting.pop(session, None)
            if not waiting:
                del self._slots[session.wheel_slot]
        session.wheel_slot = None

    def next_s(self) -> float | None:
        """When `due` has sessions next; None if none waits."""
        slot = self._first()
        return None if slot is None else slot * SLOT_S

    def due(self, now: float) -> Iterator[tuple[int, Iterable[Session]]]:
        """The slots up to the current one, each with its sessions, which are taken off the wheel.

        A session keeps its `wheel_slot` until it is set again or cleared. Whoever serves it must
        look whether that is still the one of this slot.
        """
        current = int(now / SLOT_S)
        while (slot := self._first()) is not None and slot <= current:
            self._served = slot
            yield slot, self._slots.pop(slot)
        self._served = max(self._served, current)

    def _first(self) -> int | None:
        """The first slot in which sessions wait."""
        if self._served + 1 in self._slots:
            return self._served + 1
        return min(self._slots, default=None)
