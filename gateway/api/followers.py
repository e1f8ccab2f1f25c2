"""Readers of a response's events that send them to one client, each from its own place.

A follower sends each event in the call of the log that brings it. If the client takes nothing at
that moment, the follower is behind, and sends the rest when the client takes more.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from gateway.api.outlet import ClientLeft, Outlet
from gateway.response.event_log import EventLog, LogTruncated
from gateway.response.output_item import OutputItem
from gateway.response.transcript import Transcript

__all__ = ["ClientLeft", "EventFollower", "Frames", "TextFollower"]


class _Following(ABC):
    """A reader of one log that sends through one outlet, up to the end of the response."""

    __slots__ = ("_done", "_error", "_log", "_outlet")

    def __init__(self, log: EventLog, outlet: Outlet) -> None:
        self._log = log
        self._outlet = outlet
        self._error: Exception | None = None  # why it ends early
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Send up to the end of the response. The log must call this reader already.

        :raises LogTruncated: the client is so slow that events are lost.
        :raises ClientLeft: the client has left.
        """
        self._outlet.add(self)
        try:
            self.catch_up()
            await self._done
        finally:
            self._outlet.discard(self)
        self._outlet.flush()  # before what the caller sends next
        if self._error is not None:
            self._raise()

    @abstractmethod
    def catch_up(self) -> None:
        """Send as much of what the client lacks as it takes."""

    def fail(self, error: Exception) -> None:
        """End early."""
        if not self._done.done():
            self._error = error
            self._done.set_result(None)

    def _end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _raise(self) -> None:
        error, self._error = self._error, None
        assert error is not None
        try:
            raise error
        finally:
            del error  # else frame and error would keep each other alive


class EventFollower(_Following):
    """Sends the events of one response, from a place in its log on.

    :param starting_after: the number of the last event that the client has; -1 for none.
    :param frame: makes what is sent of an event's type and JSON object.
    """

    __slots__ = ("_behind", "_frame", "_next")
    wants_events = True

    def __init__(
        self,
        log: EventLog,
        outlet: Outlet,
        starting_after: int,
        frame: Callable[[str, bytes], bytes],
    ) -> None:
        super().__init__(log, outlet)
        self._frame = frame
        self._behind = True  # the client lacks events that came before
        self._next = starting_after + 1  # the event that it gets next, while it is behind

    def take(self, sequence: int, type_: str, data: bytes) -> None:
        """Send an event, unless the client is behind."""
        if self._behind:
            return
        outlet = self._outlet
        if outlet.full:
            self._behind, self._next = True, sequence
        else:
            frame = self._frame  # a call of `self._frame` would be slower: it is no method
            outlet.outbox.add(outlet, frame(type_, data))

    def text_grew(self) -> None:
        """Not called: this reader wants events."""

    def log_ended(self) -> None:
        """End, if the client has all events."""
        if not self._behind:
            self._end()

    def catch_up(self) -> None:
        """Send from the log as much as the client takes."""
        if self._done.done() or not self._behind:
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
            self.fail(error)
            return
        self._behind = False
        if self._log.closed:
            self.log_ended()


class Frames(Protocol):
    """Makes what a `TextFollower` sends. Texts are insides of JSON strings."""

    def text(self, item: OutputItem, text: bytes, deltas: range) -> bytes:
        """A piece of the text of an item.

        :param deltas: of the item, that the piece is made of.
        """

    def began(self, item: OutputItem) -> bytes:
        """A call began: its name is known."""


class TextFollower(_Following):
    """Sends the texts of one response, without its events.

    It needs no log: a client that was behind gets the text since then in one piece.
    """

    __slots__ = ("_began", "_frames", "_place", "_sent_bytes", "_sent_deltas", "_transcript")
    wants_events = False

    def __init__(
        self, log: EventLog, transcript: Transcript, outlet: Outlet, frames: Frames
    ) -> None:
        super().__init__(log, outlet)
        self._transcript = transcript
        self._frames = frames
        self._place = 0  # of the item that is being sent
        self._began = False  # the client knows that this item is a call
        self._sent_bytes = 0  # of its text
        self._sent_deltas = 0

    def take(self, sequence: int, type_: str, data: bytes) -> None:
        """Not called: this reader wants no events."""

    def text_grew(self) -> None:
        """Send the new text, unless the client is behind."""
        self.catch_up()

    def log_ended(self) -> None:
        """End, if the client has all text."""
        self.catch_up()

    def catch_up(self) -> None:
        """Send the text that the client does not have, if it takes it."""
        outlet, items = self._outlet, self._transcript.items
        while self._place < len(items):
            item = items[self._place]
            if item.segment == "call" and item.index is not None and not self._began:
                if outlet.full:
                    return
                outlet.send(self._frames.began(item))
                self._began = True
            if item.shown_bytes > self._sent_bytes:
                if outlet.full:
                    return
                text = bytes(item.text[self._sent_bytes : item.shown_bytes])
                deltas = range(self._sent_deltas, item.shown)
                outlet.send(self._frames.text(item, text, deltas))
                self._sent_bytes, self._sent_deltas = item.shown_bytes, item.shown
            if self._place + 1 == len(items) or not item.ended or item.waiting:
                break
            self._place += 1
            self._began, self._sent_bytes, self._sent_deltas = False, 0, 0
        if self._log.closed and not outlet.full:
            self._end()
