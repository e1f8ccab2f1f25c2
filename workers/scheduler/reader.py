"""When the reader of one request runs out of tokens, as far as a scheduler can know.

The reader's clock begins with the first token of text. It stands while the reader has paused. It
also stands once the reader has read everything while the model thinks again or writes a call: who
waits for thoughts lacks no token. With the next text it goes on from there.

Pure: no clock of its own; moments are seconds.
"""

from __future__ import annotations

from pacer.clock import ReadingClock


class Reader:
    """The reader of one request, from the first token of text on."""

    __slots__ = ("_clock", "_ended_at", "_paused", "_stands", "_tokens")

    def __init__(self, tau_s: float, paused: bool, now: float) -> None:
        """Begin to read.

        :param tau_s: seconds per token.
        """
        self._clock = ReadingClock(tau_s, now)
        self._paused = paused  # by the reader
        self._ended_at: float | None = None  # since when no text comes; None: it comes
        self._tokens = 0  # of text, when it ended
        self._stands = False  # everything is read, and no text comes
        if paused:
            self._clock.pause(now)

    def dry_at(self, tokens: int) -> float | None:
        """When the reader has read so many tokens; None while the clock stands before that."""
        return self._clock.seconds(tokens)

    def text_ends(self, tokens: int, now: float) -> None:
        """The model goes on with thoughts or a call.

        :param tokens: of text so far.
        """
        self._ended_at, self._tokens = now, tokens

    def text_begins(self, now: float) -> None:
        """The model goes on with text."""
        self._catch_up(now)
        self._ended_at, self._stands = None, False
        self._run(now)

    def pace(self, tau_s: float, paused: bool, now: float) -> None:
        """The reader changed pace, paused or resumed."""
        self._catch_up(now)
        self._clock.set_tau(tau_s, now)
        self._paused = paused
        self._run(now)

    def _catch_up(self, now: float) -> None:
        """Stop the clock at the moment at which everything was read."""
        if self._ended_at is None or self._stands or self._paused:
            return
        read_at = self._clock.seconds(self._tokens)
        assert read_at is not None, "the clock runs"
        stands_at = max(read_at, self._ended_at)
        if now >= stands_at:
            self._clock.pause(stands_at)
            self._stands = True

    def _run(self, now: float) -> None:
        if self._paused or self._stands:
            self._clock.pause(now)
        else:
            self._clock.resume(now)
