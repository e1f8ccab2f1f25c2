"""The sending side of one client connection.

Events are sent without a task in between, as long as the client takes them. While it does not,
nothing is sent, and the followers that send through it fall behind. When it takes more, they catch
up (`gateway.api.followers`). So a slow client takes no memory and delays nobody.

What is sent in one turn of the event loop is written to the sockets at the end of that turn, one
client after the other. That is cheaper than a system call between every two events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

log = structlog.get_logger()

# At most this much is held, together 1 MiB. What is more is written before the end of the turn.
_MOST_HELD = 1024  # pieces
MOST_SHORT_BYTES = 1024
_GOODBYE_S = 1.0  # that a stalled client has to take the reason before it is cut off


class ClientLeft(ConnectionError):
    """The connection has ended, or nothing more may be sent on it."""


class Follower(Protocol):
    """Something that sends through an outlet."""

    def catch_up(self) -> None:
        """Send what could not be sent before."""

    def fail(self, error: Exception) -> None:
        """Send nothing more."""


class Outbox:
    """What is sent in this turn of the event loop, to all clients."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: list[tuple[Outlet, bytes]] = []

    def add(self, outlet: Outlet, data: bytes) -> None:
        """Write data at the end of this turn, or at once if it is long."""
        self.add_short(outlet, data)
        if len(data) > MOST_SHORT_BYTES:
            self.write()

    def add_short(self, outlet: Outlet, data: bytes) -> None:
        """Do as `add`, with at most `MOST_SHORT_BYTES`."""
        held = self._held
        if not held:
            asyncio.get_running_loop().call_soon(self.write)
        held.append((outlet, data))
        if len(held) >= _MOST_HELD:
            self.write()

    def write(self) -> None:
        """Write what is held."""
        held, self._held = self._held, []
        for outlet, data in held:
            try:
                write = outlet.write  # a call of `outlet.write` would be slower: it is no method
                write(data)
            except Exception:
                log.exception("write_failed")
                outlet.cut()


class _OutletHot:
    """What is read for each token, next to each other in memory."""

    __slots__ = (
        "full",
        "outbox",
        "write",
    )


class Outlet(_OutletHot):
    """Sends to one client.

    :param outbox: of the server.
    :param stall_s: a client that takes nothing for so long loses its connection.
    """

    __slots__ = (
        "_followers",
        "_left_bytes",
        "_shut",
        "_stall_s",
        "_timer",
        "_transport",
        "on_stall",
        "stalled",
    )

    def __init__(self, outbox: Outbox, stall_s: float) -> None:
        self.full = True  # the client takes nothing now
        # Writes at once, after what this turn of the event loop has for it.
        self.write: Callable[[bytes], None] = _not_open
        # Tells the client why it is cut off, in the words of its protocol.
        self.on_stall: Callable[[], None] | None = None
        self.stalled = False  # it was cut off for taking nothing
        self._shut = False
        self._left_bytes = 0  # that the client had not taken when the timer was set
        self._transport: asyncio.Transport | None = None
        self._followers: dict[Follower, None] = {}
        self.outbox = outbox
        self._stall_s = stall_s
        self._timer: asyncio.TimerHandle | None = None

    def send(self, data: bytes) -> None:
        """Send data, which must be whole frames of the protocol. Call it only if not `full`."""
        self.outbox.add(self, data)

    def flush(self) -> None:
        """Write what was sent so far."""
        self.outbox.write()

    def add(self, follower: Follower) -> None:
        """Let a follower catch up whenever the client takes more."""
        self._followers[follower] = None

    def discard(self, follower: Follower) -> None:
        """Undo `add`."""
        self._followers.pop(follower, None)

    # ---- what the connection reports ------------------------------------------------------------

    def open(self, transport: asyncio.Transport) -> None:
        """The client has connected."""
        self._transport = transport
        self.write = transport.write
        self.full = False

    def pause(self) -> None:
        """The client has not taken what was sent."""
        self.full = True
        self._wait_for_room()

    def _wait_for_room(self) -> None:
        assert self._transport is not None
        self._left_bytes = self._transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(self._stall_s, self._check_stall)

    def resume(self) -> None:
        """The client takes more."""
        self.full = self._shut
        if not self.stalled:  # else it is about to be cut off
            self._stop_timer()
        for follower in list(self._followers):
            if self.full:
                break
            try:
                follower.catch_up()
            except Exception as error:
                log.exception("follower_failed")
                follower.fail(error)

    def shut(self) -> None:
        """Send no more events: the connection is about to end."""
        self.flush()
        self.full = self._shut = True

    def lose(self) -> None:
        """The connection has ended."""
        self._stop_timer()
        self.full = True
        self.write = _not_open
        self.on_stall = None
        self._transport = None
        for follower in list(self._followers):
            follower.fail(ClientLeft())

    def _check_stall(self) -> None:
        """Cut the client off, unless it takes data, however slowly."""
        self._timer = None
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() < self._left_bytes:
            self._wait_for_room()
            return
        self.note_stall()
        self._shut = True
        if self.on_stall is not None:
            self.on_stall()
        self._timer = asyncio.get_running_loop().call_later(_GOODBYE_S, self.cut)

    def note_stall(self) -> None:
        """The client is cut off for taking nothing, by this outlet or by the system."""
        if not self.stalled:
            self.stalled = True
            log.warning("stalled_client_closed", seconds=self._stall_s)

    def cut(self) -> None:
        """End the connection at once."""
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _not_open(_: bytes) -> None:
    """Drop data for a client that has left in this turn."""
