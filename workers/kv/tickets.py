"""Tickets for the KV of requests that left an engine: their content, and which claims are granted.

A ticket is good for one target engine, until a deadline. Reads are one-sided: the engine that holds
the KV does not see them, and a read of memory that is no longer held returns another request's KV
without an error. So the target *claims* a ticket at the source before it reads, and the answer says
for how long the memory stays as it is. The target counts that time from the moment of its question,
and throws away KV that arrives later. No clock is compared with another, and a slow message can
only shorten the time that is left.

Reads no clock: ``now`` is passed in.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import msgspec

# Shares of the time for which memory is held: the validity that a ticket states, so that there is
# still time to claim and read; and the time that must be left for reading when it is claimed.
_VALID = 2 / 3
_READ = 1 / 8


class TicketData(msgspec.Struct, frozen=True, kw_only=True):
    """What `workers.messages.Ticket.data` holds."""

    request_id: str  # vLLM's, on the engine that holds the KV
    host: str  # where that engine is asked
    port: int
    tp_size: int
    block_size: int
    block_ids: tuple[tuple[int, ...], ...]  # for each group of layers


def encode(data: TicketData) -> str:
    """The text in which a ticket travels."""
    return msgspec.json.encode(data).decode()


def decode(text: str) -> TicketData:
    """Inverse of `encode`; :raises msgspec.MsgspecError: if the text is not a ticket."""
    return msgspec.json.decode(text, type=TicketData)


@dataclass(slots=True)
class _Held:
    """Memory that waits for its ticket to be used."""

    blocks: int
    until: float
    reader: str | None = None


class TicketBook:
    """All tickets of one engine. Claims come from another thread than the rest."""

    def __init__(self, held_s: float) -> None:
        """No ticket yet.

        :param held_s: for how long memory is held.
        """
        self.valid_s = _VALID * held_s  # of a ticket, when it is sent
        self._read_s = _READ * held_s
        self._held: dict[str, _Held] = {}  # by ticket
        self._lock = threading.Lock()
        self.given = 0
        self.expired = 0  # tickets that no engine used in time

    @property
    def blocks(self) -> int:
        """KV blocks that are held for all tickets."""
        return sum(held.blocks for held in self._held.copy().values())

    def give(self, ticket: str, blocks: int, until: float) -> None:
        """Hold N blocks for a new ticket, at least until the moment ``until``."""
        with self._lock:
            self._held[ticket] = _Held(blocks, until)
            self.given += 1

    def claim(self, ticket: str, reader: str, now: float) -> float | None:
        """Make ``reader`` the only engine that may read; several of its ranks may ask.

        :return: for how many seconds from now the memory is held; None: it must not be read.
        """
        with self._lock:
            held = self._held.get(ticket)
            if held is None or held.until - now < self._read_s or held.reader not in (None, reader):
                return None
            held.reader = reader
            return held.until - now

    def close(self, ticket: str, now: float) -> None:
        """The ticket's memory is about to be freed. Unknown and closed tickets are ignored."""
        with self._lock:
            held = self._held.pop(ticket, None)
            if held is not None and (held.reader is None or now >= held.until):
                self.expired += 1
