"""The sending side of one client connection, and the readers of events that send through it.

Events are sent without a task in between, as long as the client takes them. While it does not,
nothing is sent, and its readers fall behind. When it takes more, they catch up from the logs of
their responses. So a slow client takes no memory and delays nobody.

What is sent in one turn of the event loop is written to the sockets at the end of that turn, one
client after the other. That is cheaper than a system call between every two events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from gateway.response.event_log import EventLog, LogTruncated
from gateway.response.transcript import Transcript

log = structlog.get_logger()

_MOST_HELD_BYTES = 2**20  # then they are written before the end of the turn
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

    __slots__ = ("_data", "_outlets", "_size_bytes")

    def __init__(self) -> None:
        self._outlets: list[Outlet] = []
        self._data: list[bytes] = []  # for each of the outlets
        self._size_bytes = 0

    def add(self, outlet: Outlet, data: bytes) -> None:
        """Write data at the end of this turn."""
        if not self._outlets:
            asyncio.get_running_loop().call_soon(self.write)
        self._outlets.append(outlet)
        self._data.append(data)
        self._size_bytes += len(data)
        if self._size_bytes > _MOST_HELD_BYTES:
            self.write()

    def write(self) -> None:
        """Write what is held."""
        outlets, data = self._outlets, self._data
        self._outlets, self._data, self._size_bytes = [], [], 0
        for outlet, frames in zip(outlets, data, strict=True):
            try:
                outlet.write(frames)
            except Exception:
                log.exception("write_failed")
                outlet.cut()


class Outlet:
    """Sends to one client.

    :param outbox: of the server.
    :param stall_s: a client that takes nothing for so long loses its connection.
    """

    __slots__ = (
        "_followers",
        "_outbox",
        "_shut",
        "_stall_s",
        "_timer",
        "_transport",
        "full",
        "on_stall",
        "write",
    )

    def __init__(self, outbox: Outbox, stall_s: float) -> None:
        self.full = True  # the client takes nothing now
        # Writes at once, after what this turn of the event loop has for it.
        self.write: Callable[[bytes], None] = _not_open
        # Tells the client why it is cut off, in the words of its protocol.
        self.on_stall: Callable[[], None] | None = None
        self._shut = False
        self._transport: asyncio.Transport | None = None
        self._followers: dict[Follower, None] = {}
        self._outbox = outbox
        self._stall_s = stall_s
        self._timer: asyncio.TimerHandle | None = None

    def send(self, data: bytes) -> None:
        """Send data, which must be whole frames of the protocol. Call it only if not `full`."""
        self._outbox.add(self, data)

    def flush(self) -> None:
        """Write what was sent so far."""
        self._outbox.write()

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
        self._timer = asyncio.get_running_loop().call_later(self._stall_s, self._stalled)

    def resume(self) -> None:
        """The client takes more."""
        self._stop_timer()
        self.full = self._shut
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
        self._transport = None
        for follower in list(self._followers):
            follower.fail(ClientLeft())

    def _stalled(self) -> None:
        log.warning("stalled_client_closed", seconds=self._stall_s)
        if self.on_stall is not None:
            self.on_stall()
        self._timer = asyncio.get_running_loop().call_later(_GOODBYE_S, self.cut)

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


class EventFollower:
    """Sends the events of one response to one client, from a place in its log to its end.

    :param starting_after: the number of the last event that the client has; -1 for none.
    :param frame: makes what is sent of an event's type and JSON object.
    """

    __slots__ = ("_done", "_frame", "_log", "_next", "_outlet")
    wants_events = True

    def __init__(
        self,
        log: EventLog,
        outlet: Outlet,
        starting_after: int,
        frame: Callable[[str, bytes], bytes],
    ) -> None:
        self._log = log
        self._outlet = outlet
        self._frame = frame
        self._next = starting_after + 1  # the event that the client gets next
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Send up to the last event. The log must call this reader already.

        :raises LogTruncated: the client is so slow that events are lost.
        :raises ClientLeft: the client has left.
        """
        self._outlet.add(self)
        self.catch_up()
        try:
            await self._done
        finally:
            self._outlet.discard(self)

    def take(self, sequence: int, type_: str, data: bytes) -> None:
        """Send an event, unless the client is behind."""
        if sequence == self._next and not self._outlet.full:
            self._outlet.send(self._frame(type_, data))
            self._next = sequence + 1

    def text_grew(self) -> None:
        """Not called: this reader wants events."""

    def log_ended(self) -> None:
        """End, if the client has all events."""
        if self._next == self._log.next_sequence and not self._done.done():
            self._done.set_result(None)

    def catch_up(self) -> None:
        """Send from the log as much as the client takes."""
        if self._done.done():
            return
        outlet = self._outlet
        outlet.flush()
        try:
            for entry in self._log.after(self._next - 1):
                if outlet.full:
                    return
                outlet.write(self._frame(entry.type, entry.data))
                self._next = entry.sequence + 1
        except LogTruncated as error:
            self._done.set_exception(error)
            return
        if self._log.closed:
            self.log_ended()

    def fail(self, error: Exception) -> None:
        """End, because sending does not work."""
        if not self._done.done():
            self._done.set_exception(error)


class TextFollower:
    """Sends the texts of one response to one client, without events.

    It needs no log: a client that was behind gets the text since then in one piece.

    :param reasoning: makes what is sent of a piece of the reasoning, the inside of a JSON string.
    :param answer: the same for the answer.
    """

    __slots__ = (
        "_answer",
        "_answer_sent",
        "_done",
        "_log",
        "_outlet",
        "_reasoning",
        "_reasoning_sent",
        "_transcript",
    )
    wants_events = False

    def __init__(
        self,
        log: EventLog,
        transcript: Transcript,
        outlet: Outlet,
        reasoning: Callable[[bytes], bytes],
        answer: Callable[[bytes], bytes],
    ) -> None:
        self._log = log
        self._transcript = transcript
        self._outlet = outlet
        self._reasoning = reasoning
        self._answer = answer
        self._reasoning_sent = 0  # bytes of its text
        self._answer_sent = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Send up to the end of the response. The log must call this reader already.

        :raises ClientLeft: the client has left.
        """
        self._outlet.add(self)
        self.catch_up()
        try:
            await self._done
        finally:
            self._outlet.discard(self)

    def take(self, sequence: int, type_: str, data: bytes) -> None:
        """Not called: this reader wants no events."""

    def text_grew(self) -> None:
        """Send the new text, unless the client is behind."""
        self.catch_up()

    def log_ended(self) -> None:
        """End, if the client has all text."""
        self.catch_up()

    def catch_up(self) -> None:
        """Send the text that the client does not have."""
        reasoning, answer = self._transcript.reasoning, self._transcript.answer
        if reasoning.shown_bytes > self._reasoning_sent and not self._outlet.full:
            text = bytes(reasoning.text[self._reasoning_sent : reasoning.shown_bytes])
            self._outlet.send(self._reasoning(text))
            self._reasoning_sent = reasoning.shown_bytes
        if answer.shown_bytes > self._answer_sent and not self._outlet.full:
            text = bytes(answer.text[self._answer_sent : answer.shown_bytes])
            self._outlet.send(self._answer(text))
            self._answer_sent = answer.shown_bytes
        if self._log.closed and not (self._outlet.full or self._done.done()):
            self._done.set_result(None)

    def fail(self, error: Exception) -> None:
        """End, because sending does not work."""
        if not self._done.done():
            self._done.set_exception(error)
