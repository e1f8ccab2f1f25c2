"""Tickets for the KV of requests that left an engine: what they say, and who may use them.

A ticket is good for one reader, until a deadline. Reads are one-sided: the engine that holds the KV
does not see them, and who reads memory that is no longer held gets another request's KV without any
error. So a reader *claims* a ticket at its engine before it reads, and is told for how long the
memory stays as it is. It counts that time from the moment at which it asked, and throws away what
arrives later: no clock is compared with another, and no message can be so slow that it matters.

Reads no clock: ``now`` is passed in.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import msgspec

# Of the time for which memory is held: what the ticket says on its way, so that there is still time
# to claim and read; and what must be left for reading when it is claimed.
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
    """As it travels."""
    return msgspec.json.encode(data).decode()


def decode(text: str) -> TicketData:
    """:raises msgspec.MsgspecError: if it is none."""
    return msgspec.json.decode(text, type=TicketData)


@dataclass(slots=True)
class _Held:
    """Memory that waits for a reader."""

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
        self.expired = 0  # of them: nobody read them in time

    @property
    def blocks(self) -> int:
        """KV blocks that are held for all tickets."""
        return sum(held.blocks for held in self._held.copy().values())

    def give(self, ticket: str, blocks: int, until: float) -> None:
        """So many blocks are held for a new ticket; not before ``until`` may they be freed."""
        with self._lock:
            self._held[ticket] = _Held(blocks, until)
            self.given += 1

    def claim(self, ticket: str, reader: str, now: float) -> float | None:
        """Make ``reader`` the only one who may read; several ranks of it may ask.

        :return: for how many seconds from now the memory is held; None: it must not be read.
        """
        with self._lock:
            held = self._held.get(ticket)
            if held is None or held.until - now < self._read_s or held.reader not in (None, reader):
                return None
            held.reader = reader
            return held.until - now

    def close(self, ticket: str, now: float) -> None:
        """Its memory is about to be freed; ignored for tickets that are unknown or closed."""
        with self._lock:
            held = self._held.pop(ticket, None)
            if held is not None and (held.reader is None or now >= held.until):
                self.expired += 1
