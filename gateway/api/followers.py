"""Readers of a response's events that send them to one client, each from its own place.

A follower sends each event in the call of the log that brings it. If the client takes nothing at
that moment, the follower is behind, and sends the rest when the client takes more.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from gateway.api.outlet import ClientLeft, Outlet
from gateway.response.event_log import EventLog, LogTruncated
from gateway.response.transcript import Transcript

__all__ = ["ClientLeft", "EventFollower", "TextFollower"]


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

    __slots__ = ("_frame", "_next")
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
        self._next = starting_after + 1  # the event that the client gets next

    def take(self, sequence: int, type_: str, data: bytes) -> None:
        """Send an event, unless the client is behind."""
        outlet = self._outlet
        if sequence == self._next and not outlet.full:
            outlet.outbox.add(outlet, self._frame(type_, data))
            self._next = sequence + 1

    def text_grew(self) -> None:
        """Not called: this reader wants events."""

    def log_ended(self) -> None:
        """End, if the client has all events."""
        if self._next == self._log.next_sequence:
            self._end()

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
            self.fail(error)
            return
        if self._log.closed:
            self.log_ended()


class TextFollower(_Following):
    """Sends the texts of one response, without its events.

    It needs no log: a client that was behind gets the text since then in one piece.

    :param reasoning: makes what is sent of a piece of the reasoning, the inside of a JSON string.
    :param answer: the same for the answer.
    """

    __slots__ = ("_answer", "_answer_sent", "_reasoning", "_reasoning_sent", "_transcript")
    wants_events = False

    def __init__(
        self,
        log: EventLog,
        transcript: Transcript,
        outlet: Outlet,
        reasoning: Callable[[bytes], bytes],
        answer: Callable[[bytes], bytes],
    ) -> None:
        super().__init__(log, outlet)
        self._transcript = transcript
        self._reasoning = reasoning
        self._answer = answer
        self._reasoning_sent = 0  # bytes of its text
        self._answer_sent = 0

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
        outlet = self._outlet
        reasoning, answer = self._transcript.reasoning, self._transcript.answer
        if reasoning.shown_bytes > self._reasoning_sent and not outlet.full:
            text = bytes(reasoning.text[self._reasoning_sent : reasoning.shown_bytes])
            outlet.send(self._reasoning(text))
            self._reasoning_sent = reasoning.shown_bytes
        if answer.shown_bytes > self._answer_sent and not outlet.full:
            text = bytes(answer.text[self._answer_sent : answer.shown_bytes])
            outlet.send(self._answer(text))
            self._answer_sent = answer.shown_bytes
        if self._log.closed and not outlet.full:
            self._end()
